"""Prediction of x_0 from noisy embeddings: sampling and bound."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.diffusion.elbo import continuous_bound, released_bound
from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.losses import cross_entropy
from jtextdiff.diffusion.parameterization import TO_X_0
from jtextdiff.diffusion.randomness import Keys
from jtextdiff.diffusion.rounding import nearest_token
from jtextdiff.diffusion.schedules import Time
from jtextdiff.methods.components.types import Given, Sample, TextSpec, allowed_tokens, valid_and_last
from jtextdiff.sampling.denoiser_transforms import clamp, infill, temper
from jtextdiff.sampling.energies import Energy, along_path
from jtextdiff.sampling.gaussian_samplers import Sampler
from jtextdiff.sampling.loop import Denoise, State, time_grid, unroll


class Constraints(NamedTuple):
    """What a sample is restricted to."""

    given: Given
    valid: Bool[Array, "b l"]
    allowed: Bool[Array, "#b #l v"]  # tokens that each position may take
    pad: int
    clean: Bool[Array, "b l"] | None  # given positions that the network reads without noise, at its first time


def constraints_of(
    text_spec: TextSpec, given: Given, length: Int[Array, "b"], clean: Bool[Array, "b l"] | None, *, known_length: bool
) -> Constraints:
    """Returns the constraints of texts of these lengths; without `known_length`, EOS and PAD may stand anywhere."""
    valid, last = valid_and_last(given, length)
    allowed = allowed_tokens(text_spec, given, last if known_length else None, with_pad=not known_length)
    return Constraints(given, valid, allowed, text_spec.pad, clean)


class GaussianDenoiser(NamedTuple):
    """A `nets.denoisers.EmbeddingDenoiser` bound to its parameters, and the process that it reverses."""

    net: Any
    process: Gaussian
    first_time: float  # of training; the network receives times relative to it
    network_input: Callable[[Array, Time], Array]  # (x_t, t) ↦ x_t rescaled for the network
    parameterization: str | None  # what a predicted vector is; None: the network predicts logits over tokens
    self_conditioned: bool
    spread: float | None = None  # the standard deviation of an embedding's coordinates; None: norms are free

    def predict(
        self, x_t: Float[Array, "b l d"], t: Array, previous: Array | None, valid: Bool[Array, "b l"], key: Any
    ) -> Float[Array, "b l k"]:
        """Returns the prediction for x_t at times [b #l]; `previous` is an earlier estimate of x_0, if any."""
        previous = None if previous is None else self.network_input(previous, 0.0)
        time = 1000.0 * (t - self.first_time)
        return self.net(self.network_input(x_t, t), time, previous, valid=valid, key=key)

    def to_x_0(self, prediction: Float[Array, "b l k"], x_t: Float[Array, "b l d"], t: Time) -> Float[Array, "b l d"]:
        """Returns the estimate of x_0: the expected embedding, or the vector by its parameterization."""
        if self.parameterization is None:
            return jnp.matmul(jax.nn.softmax(prediction), self.net.embedding_matrix(), precision="highest")
        return TO_X_0[self.parameterization](self.process, prediction, x_t, t)

    def first_estimate(self, x_t: Float[Array, "b l d"], t: Array, valid: Bool[Array, "b l"]) -> Array | None:
        """Returns an estimate of x_0 for self-conditioning; None if the network is not self-conditioned."""
        if not self.self_conditioned:
            return None
        return self.to_x_0(self.predict(x_t, t, None, valid, None), x_t, t)

    def sample(
        self,
        state: State,
        keys: Keys,
        constraints: Constraints,
        sampler: Sampler,
        energy: Energy | None,
        *,
        keep_path: bool,
    ) -> Sample:
        """Samples from a noisy state down to tokens, guided by the energy if there is one."""
        given, valid = constraints.given, constraints.valid

        def rounded(x: Float[Array, "b l d"]) -> Int[Array, "b l"]:
            return nearest_token(self.net.embedding_matrix(), x, constraints.allowed)

        def tokens_of(state: State) -> Int[Array, "b l"]:
            return jnp.where(valid, rounded(state.x_t), constraints.pad)

        def record(state: State) -> tuple[Any, Any]:
            if not keep_path:
                return None, None
            return tokens_of(state), None if energy is None else state.x_t

        denoise = self.denoise(constraints, sampler.temperature)
        clamped = clamp(denoise, lambda x: self.net.embed(rounded(x)), below=sampler.clamp)
        step = sampler.step(self.process, infill(clamped, self.net.embed(given.tokens), given.fixed))
        if energy is not None:
            step = sampler.guide(step, self.process, denoise, energy, given.fixed, valid, self.spread or 1.0)
        start, grid = state.t_hat, time_grid(sampler.steps, start=state.t_hat)
        state, (path, states) = unroll(step, state, keys, grid, record=record)
        energies = None
        if energy is not None and keep_path:
            energies = along_path(energy, states, jnp.append(start, grid[1]), valid)
        return Sample(tokens_of(state), path, jnp.full(len(valid), sampler.steps), energies)

    def denoise(self, constraints: Constraints, temperature: float) -> Denoise:
        """Returns the sampler's denoiser, whose logits are restricted to the allowed tokens and tempered."""
        x_0, clean = self.net.embed(constraints.given.tokens), constraints.clean

        def predict(x_t: Array, t: Time, previous: Array) -> Array:
            inputs = x_t if clean is None else jnp.where(clean[..., None], x_0, x_t)
            times = jnp.full((len(x_t), 1), t) if clean is None else jnp.where(clean, self.first_time, t)
            prediction = self.predict(inputs, times, previous, constraints.valid, None)
            return jnp.where(constraints.allowed, prediction, -jnp.inf) if self.parameterization is None else prediction

        tempered = temper(predict, temperature) if self.parameterization is None else predict

        def denoise(x_t: Array, t: Time, previous: Array) -> Array:
            return self.to_x_0(tempered(x_t, t, previous), x_t, t)

        return denoise

    def bound_terms(
        self,
        key: Key[Array, ""],
        tokens: Int[Array, "b l"],
        valid: Bool[Array, "b l"],
        *,
        start: float,
        num_points: int,
        released: bool,
    ) -> Float[Array, "b l"]:
        """Returns nats per token: `continuous_bound` of its embedding from `start`, plus E[−log p(token | x_start)].

        With `released`, returns the quantity that the authors' code reports instead. There is no clamp. Each term
        self-conditions in two passes, so that it remains a function of x_t alone.
        """
        x_0 = self.net.embed(tokens)
        times = jnp.full((len(tokens), 1), start)
        bound_key, noise_key = jax.random.split(key)

        def predict(x_t: Array, t: Array) -> Array:
            return self.predict(x_t, t, self.first_estimate(x_t, t, valid), valid, None)

        def denoise(x_t: Array, t: Array) -> Array:
            return self.to_x_0(predict(x_t, t), x_t, t)

        if released:
            bound, noisy_x_0 = released_bound(self.process, x_0, denoise, bound_key, start, num_points)
            return bound + cross_entropy(self.net.rounding_logits(noisy_x_0), tokens)
        bound = continuous_bound(self.process, x_0, denoise, bound_key, start, num_points)
        x_t = self.process.marginal(x_0, times).sample(noise_key)
        predicts_logits = self.parameterization is None
        logits = predict(x_t, times) if predicts_logits else self.net.rounding_logits(denoise(x_t, times))
        return bound + cross_entropy(logits, tokens)
