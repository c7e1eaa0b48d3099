"""D3PM (Austin et al. 2021): words are destroyed in T steps, by MASK or by other words, and restored step by step."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion import bounds, discrete
from jtextdiff.diffusion import losses as objectives
from jtextdiff.diffusion.discrete import Discrete, LogProbs, delta
from jtextdiff.diffusion.distributions import Categorical, check_narrowing
from jtextdiff.diffusion.randomness import Keys, fold, stratified
from jtextdiff.diffusion.schedules import WORD_SCHEDULES, Time
from jtextdiff.methods.components.masked_denoiser import Canvas, bidirectional, canvas, reader
from jtextdiff.methods.components.types import Given, Language, Metrics, Sample, check_settings
from jtextdiff.nets.functional import Net, Params
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling import masked_samplers as unmasking
from jtextdiff.sampling.loop import Step, ticks, unroll
from jtextdiff.sampling.masked_samplers import Masking

KERNELS = {"absorbing": discrete.absorbing, "uniform": discrete.uniform}


@dataclass(frozen=True, kw_only=True)
class Ancestral:
    """How samples are drawn."""

    name: str = "ancestral"
    steps: int = 64  # any number up to the method's num_steps: one network serves them all
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.name != "ancestral":
            raise ValueError(f"sampler.name must be ancestral, got {self.name!r}.")
        if self.steps < 1:
            raise ValueError(f"sampler.steps must be at least 1, got {self.steps}.")
        check_narrowing(self.temperature)


@dataclass(frozen=True, kw_only=True)
class D3PM:
    """A bidirectional transformer that is told the step, and the length of the text."""

    language: Language = Language()
    trunk: Transformer = Transformer()
    kernel: str = "absorbing"  # words become MASK; or "uniform": any word
    schedule: str = "reciprocal"  # "cosine_d3pm" suits the uniform kernel
    num_steps: int = 1000  # T
    form: str = "mixture"  # of the belief in the posterior; "joint" weighs x_t twice, as released: see Discrete.joint
    hybrid: float = 0.01  # λ: what −log p(x_0 | x_t) of every word weighs beside each of the bound's T terms
    bound_points: int = 32  # of the T terms, how many are drawn for the bound, a text
    sampler: Ancestral = Ancestral()

    def __post_init__(self) -> None:
        choices = {"kernel": tuple(KERNELS), "schedule": tuple(WORD_SCHEDULES), "form": ("mixture", "joint")}
        check_settings(self, positive=("num_steps", "bound_points"), choices=choices)
        if not self.hybrid >= 0:
            raise ValueError(f"hybrid must be at least 0, got {self.hybrid}.")
        if self.sampler.steps > self.num_steps:
            raise ValueError(f"sampler.steps must be at most num_steps = {self.num_steps}, got {self.sampler.steps}.")

    @property
    def process(self) -> Discrete:
        return KERNELS[self.kernel](WORD_SCHEDULES[self.schedule](self.num_steps), self.language.vocab_size)

    @functools.cached_property
    def net(self) -> Net:
        return bidirectional(self.language, self.trunk, num_times=self.num_steps + 1)

    @property
    def bound(self) -> str:
        return f"{self.num_steps}-step bound, {self.bound_points} of its terms a text"

    @property
    def prefix_only(self) -> bool:
        return False

    def init(self, key: Key[Array, ""]) -> Params:
        return self.net.init(key)

    def loss(self, params: Params, key: Key[Array, ""], batch: Batch) -> tuple[Float[Array, "b"], Metrics]:
        """L_vb + λ Σ_t −log p(x_0 | x_t), by one t a text, as a weighted mean of nats a token.

        Austin et al. (2021), eq. 5.
        """
        when, noise, drop = (jax.random.fold_in(key, purpose) for purpose in range(3))
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        index = jnp.ceil(stratified(when, len(tokens)) * self.num_steps).astype(int)
        gap, missing = self._terms(params, noise, tokens, valid, index, drop)
        weight = self.hybrid * self.num_steps
        bound = self.num_steps * objectives.mean_over(gap, valid)
        cross_entropy = objectives.mean_over(missing, valid)
        return (bound + weight * cross_entropy) / (1 + weight), {"bound": bound, "cross_entropy": cross_entropy}

    def nll(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """An upper bound on −log p(text), nats a sequence: T terms, KL(q(x_1 | x_0) ‖ p(x_1)) and −log p(length)."""
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)

        roots = self.kernel == "uniform"  # its first terms are the largest: they are met more often, and weigh less

        def gap(u: Array, noise: Array) -> Array:
            index = jnp.maximum(jnp.ceil((u**2 if roots else u) * self.num_steps), 1)
            both = jnp.sqrt(index / self.num_steps) + jnp.sqrt((index - 1) / self.num_steps)
            terms = self._terms(params, noise, tokens, valid, index.astype(int), None)[0]
            return self.num_steps * (both[:, None] if roots else 1.0) * terms

        total = bounds.mean_over_strata(gap, key, self.bound_points, tokens.shape)
        return self._whole(total, tokens, valid)

    @property
    def bound_again(self) -> str:
        return f"{self.num_steps}-step bound, all of its terms, by the posterior of Bayes"

    def nll_again(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """The bound with every one of its terms, and none of them by a shortcut: a call a step."""
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)

        def add(total: Array, index: Array) -> tuple[Array, None]:
            noise, step = jax.random.fold_in(key, index), jnp.full(len(tokens), index)
            gap, _ = self._terms(params, noise, tokens, valid, step, None, by_bayes=True)
            return total + gap, None

        total = jax.lax.scan(add, jnp.zeros(tokens.shape), jnp.arange(1, self.num_steps + 1))[0]
        return self._whole(total, tokens, valid)

    def lengths(self, params: Params, keys: Keys, given: Given) -> Int[Array, "b"]:
        """Those asked for; else drawn from the law fitted to the training text."""
        return objectives.draw_length(jnp.asarray(self.language.length_counts), fold(keys, 2), given.length)

    def sample(self, params: Params, keys: Keys, given: Given, *, keep_path: bool = False) -> Sample:
        """Walks from p(x_1) to words; fixed words are clear from the start under MASK, and end as they are given."""
        begin, walk, plan = (fold(keys, purpose) for purpose in (0, 1, 3))
        start, predict = self._start(params, given, self.lengths(params, keys, given))
        spelled = lambda tokens: jnp.where(tokens == self._mask, self.language.mask, tokens)
        written = lambda tokens: jnp.where(start.valid, tokens, self.language.pad)
        x_1 = self.process.prior(given.tokens.shape).sample(begin)
        if self.kernel == "absorbing":
            # What the process has not reached is guessed, but nothing that cannot stand there.
            may = jnp.take_along_axis(start.possible, jnp.minimum(x_1, self._mask - 1)[..., None], axis=-1)[..., 0]
            x_1 = jnp.where(given.fixed, given.tokens, jnp.where(may, x_1, self._mask))
        masked = start.valid & (x_1 == self._mask)
        keep = (lambda state: spelled(written(state.tokens))) if keep_path else (lambda state: None)
        state = Masking(written(x_1), masked, jnp.zeros(len(x_1), int))
        step, moves, done = self._walk(predict, plan, given.tokens.shape)
        state, path = unroll(step, state, walk, moves, keep=keep, done=done)
        return Sample(written(state.tokens), path, state.calls)

    def law(self, params: Params, given: Given) -> Float[Array, "b v"] | None:
        """log p of the one missing word, over the steps at which it may be revealed; None if words hide words."""
        if self.kernel != "absorbing":
            return None
        start, predict = self._start(params, given, given.length)
        x_1 = jnp.where(start.masked, self._mask, start.tokens)
        guess = self.process.log_alpha_bar(jnp.ones(())) - jnp.log(self.language.vocab_size)

        def add(total: Array, tick: tuple[Array, Array]) -> tuple[Array, None]:
            alpha_t, alpha_s = (jnp.exp(self.process.log_alpha_bar(time)) for time in tick)
            return jnp.logaddexp(total, jnp.log(alpha_s - alpha_t) + start.first(predict(x_1, tick[0]))), None

        return jax.lax.scan(add, jnp.full(start.possible[:, 0].shape, guess), self._ticks)[0]

    def _start(self, params: Params, given: Given, length: Int[Array, "b"]) -> tuple[Canvas, unmasking.Predict]:
        """What is there before the first call, and how the network's answers are drawn from."""
        net, start = self.net.bind(params), canvas(self.language, given, length)

        def answers(x_t: Int[Array, "b l"], t: Time) -> Float[Array, "b l v"]:
            index = jnp.broadcast_to(jnp.rint(t * self.num_steps).astype(int), len(x_t))
            return net(x_t, index, valid=start.valid)

        return start, reader(answers, start, self.sampler.temperature)

    @property
    def _ticks(self) -> tuple[Array, Array]:
        """(t, s) of the sampler's steps, each of them one of the T."""
        t, s = (jnp.rint(grid * self.num_steps) / self.num_steps for grid in ticks(self.sampler.steps))
        return t, s

    def _walk(self, predict: unmasking.Predict, keys: Keys, shape: tuple[int, ...]) -> tuple[Step, Any, Any]:
        """x_s ~ p(x_s | x_t): masked words are revealed, or every word is drawn from its posterior; ticks; done."""
        if self.kernel == "absorbing":
            walk = unmasking.ancestral(self.process.log_alpha_bar, predict, self._ticks, keys, shape)
            return *walk, lambda state: ~jnp.any(state.masked)

        def step(keys: Keys, state: Masking, tick: tuple[Array, Array]) -> Masking:
            t, s = tick
            posterior = self._reverse(predict(state.tokens, t), state.tokens, s, t)
            return Masking(posterior.sample(keys), state.masked, state.calls + 1)

        return step, self._ticks, None

    def _reverse(self, log_p: LogProbs, x_t: Int[Array, "b l"], s: Time, t: Time) -> Categorical:
        """p(x_s | x_t) of a belief in x_0, in the form that the method has."""
        x_0 = self.process.joint(log_p, x_t, t) if self.form == "joint" else log_p
        return self.process.posterior(x_0, x_t, s, t)

    def _terms(
        self,
        params: Params,
        key: Key[Array, ""],
        tokens: Int[Array, "b l"],
        valid: Bool[Array, "b l"],
        index: Int[Array, "b"],
        drop: Any,
        by_bayes: bool = False,
    ) -> tuple[Float[Array, "b l"], Float[Array, "b l"]]:
        """KL(q(x_s | x_t, x_0) ‖ p(x_s | x_t)) of step `index` of T, and −log p(x_0 | x_t), nats a position.

        The last step's is −log p(x_0 | x_1). Under MASK it is (ᾱ_s − ᾱ_t)/(1 − ᾱ_t) of the second, where masked, and
        the posteriors themselves are compared only if `by_bayes`.
        """
        process, s, t = self.process, (index - 1) / self.num_steps, index / self.num_steps
        x_t = process.noised(key, tokens, t)

        def word(logits: Array, x_t: Int[Array, "b m"], tokens: Int[Array, "b m"]) -> tuple[Array, Array]:
            missing = objectives.cross_entropy(logits, tokens)
            if self.kernel == "absorbing" and not by_bayes:
                share = discrete.revealed(process.log_alpha_bar, s, t)[:, None]
                return jnp.where(x_t == self._mask, share * missing, 0.0), missing
            x_0 = self._certain(tokens)
            more = ((0, 0), (0, 0), (0, x_0.shape[-1] - logits.shape[-1]))
            log_p = jnp.pad(jax.nn.log_softmax(logits), more, constant_values=-jnp.inf)
            return process.posterior(x_0, x_t, s, t).kl(self._reverse(log_p, x_t, s, t)), missing

        return self.net.bind(params).per_word(word, (x_t, tokens), x_t, index, valid=valid, key=drop)

    def _whole(
        self, steps: Float[Array, "b l"], tokens: Int[Array, "b l"], valid: Bool[Array, "b l"]
    ) -> Float[Array, "b"]:
        """The bound from the sum of its terms: with KL(q(x_1 | x_0) ‖ p(x_1)) and −log p(length), nats a text."""
        # The same for every word.
        prior = self.process.marginal(self._certain(tokens[:1, :1] * 0), 1.0).kl(self.process.prior((1, 1)))
        length = objectives.length_nll(jnp.asarray(self.language.length_counts), jnp.sum(valid, axis=-1))
        return objectives.sum_over(steps + prior, valid) + length

    def _certain(self, tokens: Int[Array, "b l"]) -> LogProbs:
        return delta(tokens, self.language.vocab_size + (self.kernel == "absorbing"))

    @property
    def _mask(self) -> int:
        """MASK as a state of the process: the one after the words."""
        return self.language.vocab_size
