"""Energies −log p(control | x): classifiers, phrases, sums, NOT, OR and noise averages.

An energy is in nats per text; sums, NOT and OR of energies are energies. It is a pytree whose leaves are its
parameters, targets and weights. As an argument of a compiled function it may change any of them without recompilation,
and may have a different target for each text of a batch.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.pytree import pytree, static
from jtextdiff.diffusion.rounding import token_log_probs
from jtextdiff.diffusion.schedules import Time

Energy = Callable[..., Float[Array, "b"]]
"""(x, t, valid, x̂_0 or None) ↦ nats per text; lower is better. `valid` marks the positions of the text."""

Valid = Bool[Array, "b l"] | None

MIN_ENERGY = 1e-6
"""Nats: NOT clips an energy from below to this, since its own energy would be infinite at 0."""

LOG_SMALL_MATCH = -9.0
"""Log of a probability q below which −log(1 − q) equals q to almost all digits of float32."""

LOG_SMALL_MENTION = -12.0
"""Log of a probability q below which 1 − (1 − q)^n equals n q to all digits of float32."""


@pytree
class Learned:
    """−log p(target | x_t) by a network trained on noisy x_t; with `on_estimate`, on the estimate of x_0 if given."""

    params: Any
    target: Any  # arrays, for one text or for each text of the batch
    log_prob: Callable[..., Float[Array, "b"]] = static()  # (params, target, x, t, valid)
    on_estimate: bool = static(default=False)

    def __call__(self, x: Array, t: Time, valid: Valid = None, x_0: Array | None = None) -> Float[Array, "b"]:
        x, t = (x_0, 0.0) if self.on_estimate and x_0 is not None else (x, t)
        return -self.log_prob(self.params, self.target, x, t, valid)


@pytree
class Sum:
    """Σ weight · energy: all controls at once."""

    energies: tuple[Any, ...]
    weights: tuple[Any, ...]  # one number each, or [b]

    def __call__(self, x: Array, t: Time, valid: Valid = None, x_0: Array | None = None) -> Float[Array, "b"]:
        terms = [weight * energy(x, t, valid, x_0) for energy, weight in zip(self.energies, self.weights, strict=True)]
        return sum(terms, jnp.zeros(len(x)))


@pytree
class Not:
    """−log(1 − p). It stops falling once p is small, where −E would push without end."""

    energy: Any

    def __call__(self, x: Array, t: Time, valid: Valid = None, x_0: Array | None = None) -> Float[Array, "b"]:
        return complement(self.energy(x, t, valid, x_0))


@pytree
class Or:
    """−log Σ e^−E: the probability of any of several controls that exclude each other."""

    energies: tuple[Any, ...]

    def __call__(self, x: Array, t: Time, valid: Valid = None, x_0: Array | None = None) -> Float[Array, "b"]:
        return -jax.nn.logsumexp(-jnp.stack([energy(x, t, valid, x_0) for energy in self.energies]), axis=0)


@pytree
class NoiseAveraged:
    """−log E[p(control | x_0)] over x_0 ~ N(√ᾱ_t x, (1 − ᾱ_t) I): extends an energy of clean x to noisy x.

    Exact for data from N(0, I), such as whitened latents. It does not commute with sums, NOT and OR: wrap the whole
    composition. The expectation is a mean over `noises`, which stay the same along a path.
    """

    energy: Any
    noises: Float[Array, "n *shape"]
    process: Gaussian

    def __call__(self, x: Array, t: Time, valid: Valid = None, x_0: Array | None = None) -> Float[Array, "b"]:
        marginal = self.process.marginal(x, t)

        def energy_at(noise: Array) -> Float[Array, "b"]:
            return self.energy(marginal.mean + marginal.std * jnp.broadcast_to(noise, x.shape), 0.0, valid)

        return jnp.log(len(self.noises)) - jax.nn.logsumexp(-jax.vmap(energy_at)(self.noises), axis=0)


@pytree
class Phrase:
    """−log p(a phrase occurs somewhere): consecutive tokens, each among those `allowed` at its place.

    `allowed` is the same for all texts or has a row for each. p = 1 − Π (1 − q) over the positions at which the phrase
    may start, where q is the product of its tokens' probabilities, as if positions were independent.
    """

    embedding: Float[Array, "v d"]
    allowed: Bool[Array, "*b k v"]
    process: Gaussian

    def __call__(self, x: Float[Array, "b l d"], t: Time, valid: Valid = None, x_0: Any = None) -> Float[Array, "b"]:
        x, t = (x, t) if x_0 is None else (x_0, 0.0)
        size = self.allowed.shape[-2]
        num_starts = x.shape[1] - size + 1
        if num_starts < 1:
            return jnp.full(len(x), -jnp.log(MIN_ENERGY))  # the texts are shorter than the phrase
        log_q = self._log_match(token_log_probs(self.embedding, self.process, x, t), num_starts)
        fits = jnp.ones((len(x), num_starts), bool) if valid is None else valid[:, size - 1 :]
        return -_log_any(log_q, fits)

    def _log_match(self, log_p: Float[Array, "b l v"], num_starts: int) -> Float[Array, "b s"]:
        """Returns log q of the phrase at each start: the sum of log p(allowed token) over its places."""
        allowed = [
            self.allowed[..., place, :].reshape(-1, 1, log_p.shape[-1]) for place in range(self.allowed.shape[-2])
        ]
        log_place = [jax.nn.logsumexp(jnp.where(tokens, log_p, -jnp.inf), axis=-1) for tokens in allowed]
        shifted = [log_place[place][:, place : place + num_starts] for place in range(len(log_place))]
        return sum(shifted, jnp.zeros((len(log_p), num_starts)))


def _log_any(log_q: Float[Array, "b s"], possible: Bool[Array, "b s"]) -> Float[Array, "b"]:
    """Returns log(1 − Π (1 − q)) over the possible events; log MIN_ENERGY if none is possible."""
    any_possible = jnp.any(possible, axis=-1)
    possible = possible | ~any_possible[:, None]  # without any, the sum below would have no terms
    # log of Σ −log(1 − q), computed from log q where q is small, so that improbable events have a gradient, too.
    log_nats = jnp.log(complement(-jnp.maximum(log_q, LOG_SMALL_MATCH)))
    log_nats = jnp.where(log_q > LOG_SMALL_MATCH, log_nats, log_q)
    log_total = jax.nn.logsumexp(jnp.where(possible, log_nats, -jnp.inf), axis=-1)
    log_p = jnp.log(-jnp.expm1(-jnp.exp(jnp.maximum(log_total, LOG_SMALL_MATCH))))
    return jnp.where(any_possible, jnp.where(log_total > LOG_SMALL_MATCH, log_p, log_total), jnp.log(MIN_ENERGY))


def bag_log_prob(logits: Float[Array, "b v"], allowed: Bool[Array, "*b k v"], mean_length: float) -> Float[Array, "b"]:
    """Returns Σ log(1 − (1 − q)^n) over the k places: log p(allowed tokens occur somewhere, in any order), nats.

    q is the probability of a place's `allowed` tokens under the token distribution `logits` of a text, and n the mean
    length, as if the tokens of a text were independent.
    """
    log_p = jax.nn.log_softmax(logits)[:, None]
    log_q = jax.nn.logsumexp(jnp.where(allowed if allowed.ndim == 3 else allowed[None], log_p, -jnp.inf), axis=-1)
    log_absent = mean_length * jnp.log1p(-jnp.minimum(jnp.exp(log_q), 1 - 1e-6))
    log_present = jnp.log(-jnp.expm1(jnp.minimum(log_absent, -1e-7)))
    # Where q is small its logarithm has a gradient, which the power has lost.
    log_expected = log_q + math.log(mean_length)
    return jnp.sum(jnp.where(log_q < LOG_SMALL_MENTION, log_expected, log_present), axis=-1)


def complement(energy: Array) -> Array:
    """Returns −log(1 − e^−E) elementwise: the energy of the complementary event."""
    energy = jnp.maximum(energy, MIN_ENERGY)
    # Two formulas, each used where it is accurate.
    small = jnp.log(-jnp.expm1(-jnp.minimum(energy, 1.0)))
    return -jnp.where(energy < 1.0, small, jnp.log1p(-jnp.exp(-jnp.maximum(energy, 1.0))))


def energy_terms(energy: Energy, x: Array, t: Time, valid: Valid = None) -> Float[Array, "b terms"]:
    """Returns the unweighted energies of a Sum, in nats; of any other energy, itself alone."""
    terms = energy.energies if isinstance(energy, Sum) else (energy,)
    return jnp.stack([term(x, t, valid) for term in terms], axis=-1) if terms else jnp.zeros((len(x), 0))


def along_path(
    energy: Energy, path: Float[Array, "n b l d"], times: Float[Array, "n"], valid: Valid = None
) -> Float[Array, "n b terms"]:
    """Returns the `energy_terms` at each state of a path, at the state's own time."""
    return jax.lax.map(lambda state: energy_terms(energy, state[0], state[1], valid), (path, times))


def stacked(energies: Sequence[Any], rows: Int[np.ndarray, "n"] | Sequence[int]) -> Any:
    """Returns one energy for a batch of texts with `energies[row]` for each of `rows`; all must have one structure.

    Leaves that are one array in all energies, such as a network's parameters, are shared; others are stacked by row.
    """

    def join(*leaves: Any) -> Any:
        return leaves[0] if all(leaf is leaves[0] for leaf in leaves) else jnp.stack([leaves[row] for row in rows])

    return jax.tree.map(join, *energies)
