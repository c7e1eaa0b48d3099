"""D3PM: discrete-time diffusion of tokens, absorbing or uniform (Austin et al. 2021)."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion import discrete
from jtextdiff.diffusion.discrete import Discrete
from jtextdiff.diffusion.distributions import Categorical
from jtextdiff.diffusion.lengths import length_nll, sample_length
from jtextdiff.diffusion.losses import sum_over
from jtextdiff.diffusion.randomness import Keys, fold_in, stratified
from jtextdiff.diffusion.schedules import TOKEN_SCHEDULES, Time
from jtextdiff.methods.components.discrete_denoiser import DiscreteDenoiser
from jtextdiff.methods.components.masked_denoiser import (
    MaskedText,
    first_hidden,
    logits_and_hidden,
    masked_denoiser_net,
    masked_text,
    token_predictor,
)
from jtextdiff.methods.components.types import Given, Metrics, Sample, TextSpec, check_numbers, check_settings
from jtextdiff.nets.functional import Net, Params
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.denoiser_transforms import LogitShaping
from jtextdiff.sampling.energies import Energy
from jtextdiff.sampling.loop import Step, time_grid, unroll
from jtextdiff.sampling.masked_samplers import ancestral
from jtextdiff.sampling.masked_state import Hidden, MaskedState, Predict
from jtextdiff.sampling.remasking import remasking

KERNELS = {"absorbing": discrete.absorbing, "uniform": discrete.uniform}
FORMS = ("mixture", "joint")
SAMPLERS = ("ancestral", "renoise")


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Settings of the reverse process."""

    name: str = "ancestral"  # x_s ~ p(x_s | x_t); "renoise": a drawn x_0 is noised to x_s, so that tokens are revised
    steps: int = 64  # any number up to the method's num_steps: one network serves them all
    temperature: float = 1.0
    top_p: float = 1.0  # tokens outside the most likely ones that make up this share are never sampled
    anneal: float = 1.0  # temperature at the last step, as a multiple of that at the first
    frequency_penalty: float = 0.0  # taken from the logit of a token in the text, times log(1 + its number)

    names = SAMPLERS
    uses_steps = True

    def __post_init__(self) -> None:
        if self.name not in SAMPLERS:
            raise ValueError(f"sampler.name must be one of {SAMPLERS}, got {self.name!r}.")
        if self.steps < 1:
            raise ValueError(f"sampler.steps must be at least 1, got {self.steps}.")
        self.shaping.check()

    @property
    def shaping(self) -> LogitShaping:
        return LogitShaping(self.temperature, self.top_p, self.anneal, self.frequency_penalty)


@dataclass(frozen=True, kw_only=True)
class D3PM:
    """A bidirectional transformer conditioned on the time and, if it `reads_length`, on the length of the text."""

    text_spec: TextSpec = TextSpec()
    trunk: Transformer = Transformer()
    reads_length: bool = True  # the network has an embedding of the text's length; published ones have none
    time_input: str = "step"  # what the network reads: an embedding of each of the T steps; "sigma": −log ᾱ, for any T
    kernel: str = "absorbing"  # tokens become MASK; "uniform": any token
    schedule: str = "reciprocal"  # "cosine_d3pm" suits the uniform kernel
    num_steps: int = 1000  # T
    form: str = "mixture"  # of p(x_s | x_t); "joint" weighs x_t twice, as in the authors' code: see Discrete.joint
    hybrid: float = 0.01  # λ: weight of −log p(x_0 | x_t) relative to each of the bound's T terms
    self_conditioning: float = 0.0  # share of the training steps in which the network reads its own hidden states
    bound_points: int = 32  # number of the T terms that are sampled for the bound, per text
    sampler: Sampler = Sampler()

    prefix_only = False

    def __post_init__(self) -> None:
        choices = {
            "time_input": ("step", "sigma"),
            "kernel": tuple(KERNELS),
            "schedule": tuple(TOKEN_SCHEDULES),
            "form": FORMS,
        }
        check_settings(self, positive=("num_steps", "bound_points"), choices=choices)
        check_numbers(self, ("hybrid",), shares=("self_conditioning",))
        if self.kernel == "uniform" and self.sampler.frequency_penalty > 0:
            raise ValueError("sampler.frequency_penalty needs kernel=absorbing: uniform tokens are noise.")
        if self.sampler.steps > self.num_steps:
            raise ValueError(f"sampler.steps must be at most num_steps = {self.num_steps}, got {self.sampler.steps}.")

    @property
    def process(self) -> Discrete:
        return KERNELS[self.kernel](TOKEN_SCHEDULES[self.schedule](self.num_steps), self.text_spec.vocab_size)

    @functools.cached_property
    def net(self) -> Net:
        return masked_denoiser_net(
            self.text_spec,
            self.trunk,
            num_times=self.num_steps + 1 if self.time_input == "step" else 0,
            timed=self.time_input == "sigma",
            reads_length=self.reads_length,
            self_conditioned=self.self_conditioning > 0,
        )

    @property
    def bound(self) -> str:
        steps = f"ancestral sampling in {self.num_steps} steps at temperature 1"
        passes = ", with two passes a step" if self.self_conditioning else ""
        return f"bound of {steps}{passes}, {self.bound_points} of its terms a text"

    @property
    def guided_by_words(self) -> bool:
        """With the uniform kernel, words that occur in x_t may be noise."""
        return self.kernel == "absorbing"

    def init(self, key: Key[Array, ""]) -> Params:
        return self.net.init(key)

    def loss(self, params: Params, key: Key[Array, ""], batch: Batch) -> tuple[Float[Array, "b"], Metrics]:
        """Estimates L_vb + λ Σ_t −log p(x_0 | x_t) at one step per text, a weighted mean, divided by the mean length.

        Austin et al. (2021), eq. 5.
        """
        time_key, noise_key, dropout_key = (jax.random.fold_in(key, purpose) for purpose in range(3))
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        index = jnp.ceil(stratified(time_key, len(tokens)) * self.num_steps).astype(int)
        terms, two_passes = self._denoiser(params).terms, self.two_passes(key)
        kl, token_nll = terms(noise_key, tokens, valid, index, dropout_key, two_passes=two_passes)
        weight = self.hybrid * self.num_steps
        bound, mean_nll = (sum_over(nats, valid) / self.text_spec.mean_length for nats in (kl, token_nll))
        bound = self.num_steps * bound
        return (bound + weight * mean_nll) / (1 + weight), {"bound": bound, "cross_entropy": mean_nll}

    def two_passes(self, key: Key[Array, ""]) -> Bool[Array, ""]:
        """Returns whether the network reads its own hidden states in the training step of this key."""
        return jax.random.uniform(jax.random.fold_in(key, 3)) < self.self_conditioning

    def nll(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """Returns an upper bound on −log p(text), nats per sequence: `bound_points` of T terms, and −log p(length)."""
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        bound = self._denoiser(params).estimated_bound(key, tokens, valid, self.bound_points)
        return sum_over(bound, valid) + self._length_nll(valid)

    @property
    def bound_check(self) -> str:
        return f"{self.num_steps}-step bound, all of its terms, as KL of the posteriors"

    def nll_check(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """Returns the same bound with all of its T terms, and without their closed form: one call per step."""
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        return sum_over(self._denoiser(params).full_bound(key, tokens, valid), valid) + self._length_nll(valid)

    def sample_lengths(self, params: Params, keys: Keys, given: Given) -> Int[Array, "b"]:
        """Returns the given lengths; the others are drawn from the length distribution of the training text."""
        return sample_length(jnp.asarray(self.text_spec.length_counts), fold_in(keys, 2), given.length)

    def sample(
        self, params: Params, keys: Keys, given: Given, *, energy: Energy | None = None, keep_path: bool = False
    ) -> Sample:
        """Samples from p(x_1) down to tokens. Fixed tokens end as given; with MASK they are visible from the start."""
        prior_keys, step_keys, reveal_keys = (fold_in(keys, purpose) for purpose in (0, 1, 3))
        denoiser = self._denoiser(params)
        start, predict = self._start(denoiser, given, self.sample_lengths(params, keys, given), energy)
        x_1 = self.process.prior(given.tokens.shape).sample(prior_keys)
        if self.kernel == "absorbing":
            # Tokens that the process leaves unmasked at t = 1 are guessed; MASK replaces those not allowed there.
            guess = jnp.minimum(x_1, self._mask - 1)
            allowed = jnp.take_along_axis(start.allowed, guess[..., None], axis=-1)[..., 0]
            x_1 = jnp.where(given.fixed, given.tokens, jnp.where(allowed, x_1, self._mask))
        masked = start.valid & (x_1 == self._mask)

        def padded(x_t: Int[Array, "b l"]) -> Int[Array, "b l"]:
            return jnp.where(start.valid, x_t, self.text_spec.pad)

        def record(state: MaskedState) -> Int[Array, "b l"] | None:
            tokens = padded(state.tokens)
            return jnp.where(tokens == self._mask, self.text_spec.mask, tokens) if keep_path else None

        hidden = first_hidden(self.trunk, x_1, self.self_conditioning > 0)
        state = MaskedState.start(padded(x_1), masked, hidden)
        step, grid, done = self._step_and_grid(denoiser, predict, reveal_keys, state)
        state, path = unroll(step, state, step_keys, grid, record=record, done=done)
        return Sample(padded(state.tokens), path, state.calls)

    def token_distribution(self, params: Params, given: Given) -> Float[Array, "b v"] | None:
        """Returns log p of the one missing token, a mixture over the steps that may reveal it.

        None without MASK, and with "renoise", where a token may be revealed several times.
        """
        if self.kernel != "absorbing" or self.sampler.name == "renoise":
            return None
        start, predict = self._start(self._denoiser(params), given, given.length)
        x_1 = jnp.where(start.masked, self._mask, start.tokens)
        hidden = first_hidden(self.trunk, x_1, self.self_conditioning > 0)
        # A token may survive to t = 1, where it is guessed; MASK replaces a guess that is not allowed.
        allowed, log_alpha_1 = start.first_masked(start.allowed), self.process.log_alpha_bar(jnp.ones(()))
        log_masked = jnp.log1p(-jnp.exp(log_alpha_1) * allowed.mean(-1, keepdims=True))
        log_guess = jnp.where(allowed, log_alpha_1 - jnp.log(self.text_spec.vocab_size), -jnp.inf)

        def add(total: Array, times: tuple[Array, Array]) -> tuple[Array, None]:
            alpha_t, alpha_s = (jnp.exp(self.process.log_alpha_bar(time)) for time in times)
            log_step = jnp.log(alpha_s - alpha_t) - jnp.log1p(-jnp.exp(log_alpha_1)) + log_masked
            return jnp.logaddexp(total, log_step + start.first_masked(predict(x_1, times[0], hidden)[0])), None

        return jax.lax.scan(add, log_guess, self._grid)[0]

    def _start(
        self, denoiser: DiscreteDenoiser, given: Given, length: Int[Array, "b"], energy: Energy | None = None
    ) -> tuple[MaskedText, Predict]:
        """Returns the text before the first network call, and the distribution from which its tokens are sampled."""
        start = masked_text(self.text_spec, given, length)

        def logits(x_t: Int[Array, "b l"], t: Time, hidden: Hidden) -> tuple[Float[Array, "b l v"], Hidden]:
            index = jnp.broadcast_to(jnp.rint(t * self.num_steps).astype(int), len(x_t))
            return logits_and_hidden(denoiser.net, hidden, x_t, denoiser.network_time(index), valid=start.valid)

        return start, token_predictor(self.text_spec, logits, start, self.sampler.shaping, lambda x_t, t: t, energy)

    @property
    def _grid(self) -> tuple[Array, Array]:
        """(t, s) of the sampler's steps, each rounded to one of the T."""
        t, s = (jnp.rint(times * self.num_steps) / self.num_steps for times in time_grid(self.sampler.steps))
        return t, s

    def _step_and_grid(
        self, denoiser: DiscreteDenoiser, predict: Predict, keys: Keys, start: MaskedState
    ) -> tuple[Step, Any, Any]:
        """Returns the step x_s ~ p(x_s | x_t), the grid to unroll it over, and when to stop early.

        Absorbing kernel: a step reveals some tokens; with "renoise" it also masks others. Uniform kernel: every token
        is drawn from its posterior; with "renoise" from q(x_s | x̂_0) of a drawn x̂_0, whose tokens are independent, so
        that even exact predictions do not lead to the exact distribution of texts.
        """
        renoise = self.sampler.name == "renoise"
        if self.kernel == "absorbing" and renoise:
            return remasking(self.process.log_alpha_bar, predict, start, strategy="renoise", rate=0.0), self._grid, None
        if self.kernel == "absorbing":
            step = ancestral(self.process.log_alpha_bar, predict, self._grid, keys, start.tokens.shape)
            calls = min(self.sampler.steps, start.tokens.shape[1])
            return step, jnp.arange(calls, 0, -1), lambda state: ~jnp.any(state.masked)

        def posterior_step(keys: Keys, state: MaskedState, times: tuple[Array, Array]) -> MaskedState:
            t, s = times
            log_p, hidden = predict(state.tokens, t, state.hidden)
            if renoise:
                x_0 = Categorical(logits=denoiser.x_0(log_p, state.tokens, t)).sample(fold_in(keys, 1))
                tokens = self.process.noised(fold_in(keys, 2), x_0, s)
            else:
                tokens = denoiser.reverse(log_p, state.tokens, s, t).sample(keys)
            return state._replace(tokens=tokens, calls=state.calls + 1, hidden=hidden)

        return posterior_step, self._grid, None

    def _denoiser(self, params: Params) -> DiscreteDenoiser:
        return DiscreteDenoiser(
            net=self.net.bind(params),
            process=self.process,
            num_steps=self.num_steps,
            vocab_size=self.text_spec.vocab_size,
            absorbing=self.kernel == "absorbing",
            form=self.form,
            self_conditioned=self.self_conditioning > 0,
            reads_sigma=self.time_input == "sigma",
        )

    def _length_nll(self, valid: Bool[Array, "b l"]) -> Float[Array, "b"]:
        return length_nll(jnp.asarray(self.text_spec.length_counts), jnp.sum(valid, axis=-1))

    @property
    def _mask(self) -> int:
        """MASK as a state of the process: the one after the tokens."""
        return self.text_spec.vocab_size
