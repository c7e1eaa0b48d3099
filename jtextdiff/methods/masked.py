"""Masked diffusion in continuous time: words go under MASK, and a network says what each of them was.

MDLM (Sahoo et al. 2024) and MD4 (Shi et al. 2024). A word that is seen stays what it is, and MASK is never an answer:
both hold by construction. The network is not told the time, which what is masked tells it (Ou et al. 2025).
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion import bounds
from jtextdiff.diffusion import losses as objectives
from jtextdiff.diffusion.discrete import reveal_rate
from jtextdiff.diffusion.randomness import Keys, fold, stratified
from jtextdiff.diffusion.schedules import WORD_SCHEDULES, Schedule
from jtextdiff.methods.components.masked_denoiser import Canvas, bidirectional, canvas, hidden_nll, reader
from jtextdiff.methods.components.types import Given, Language, Metrics, Sample, check_settings
from jtextdiff.nets.functional import Net, Params
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.loop import unroll
from jtextdiff.sampling.masked_samplers import Masking, Predict, Unmasking


@dataclass(frozen=True, kw_only=True)
class Masked:
    """A bidirectional transformer that fills in masked words; the length of a text is known to it."""

    language: Language = Language()
    trunk: Transformer = Transformer()
    hidden: str = "counted"  # how many words in training: k of L; or "timed", each on its own, as published
    weights: str = "bound"  # what a text counts in training: as in the bound; or "words": every hidden word alike
    schedule: str = "reciprocal"
    bound_points: int = 16  # numbers of masked words at which the bound is estimated, a text
    sampler: Unmasking = Unmasking()

    def __post_init__(self) -> None:
        choices = {"hidden": ("counted", "timed"), "weights": ("bound", "words"), "schedule": tuple(WORD_SCHEDULES)}
        check_settings(self, positive=("bound_points",), choices=choices)

    @property
    def log_alpha_bar(self) -> Schedule:
        return WORD_SCHEDULES[self.schedule](1000)

    @functools.cached_property
    def net(self) -> Net:
        return bidirectional(self.language, self.trunk)

    @property
    def bound(self) -> str:
        return f"exact-k bound, {self.bound_points} numbers of masked words a text"

    @property
    def prefix_only(self) -> bool:
        return False

    def init(self, key: Key[Array, ""]) -> Params:
        return self.net.init(key)

    def loss(self, params: Params, key: Key[Array, ""], batch: Batch) -> tuple[Float[Array, "b"], Metrics]:
        """The bound on −log p(words) by the text's length, nats a token, at one time a text, spread over the batch.

        "timed": −ᾱ′/(1 − ᾱ) Σ −log p(x_0 | x_t) over masked words (Sahoo et al. 2024, eq. 10). "counted": the mean of
        −log p over k of L words, which has the same mean under any schedule, and no weights to blow up at small t.
        With `weights` of "words" it is multiplied by twice the share that is hidden: 2 Σ −log p over hidden words by
        L + 1, which is no bound, and hears more of texts of which little is known.
        """
        when, noise, drop = (jax.random.fold_in(key, purpose) for purpose in range(3))
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        t = stratified(when, len(tokens))
        length = jnp.maximum(jnp.sum(valid, axis=-1), 1)
        if self.hidden == "counted":
            losses = lambda hidden: self._losses(params, tokens, hidden, valid, drop)
            loss, share = bounds.any_order_loss(losses, noise, valid, t), jnp.ceil(t * length) / (length + 1)
        else:
            loss = self._at(params, noise, tokens, valid, t, drop) / length
            share = -jnp.expm1(self.log_alpha_bar(t))
        return (2 * share * loss if self.weights == "words" else loss), {"bound": loss}

    def nll(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """An upper bound on −log p(text), nats a sequence: `bounds.any_order_bound` of the words, and −log p(length).

        It is the mean of the loss under any schedule, at far less variance.
        """
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        losses = lambda hidden: self._losses(params, tokens, hidden, valid, None)
        total = bounds.any_order_bound(losses, key, valid, self.bound_points)
        return total + self._length_nll(valid)

    @property
    def bound_again(self) -> str:
        return f"bound in continuous time, {self.bound_points} times a text"

    def nll_again(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """The bound as the loss has it: the mean over times, not over numbers of masked words."""
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        at = lambda t, noise: self._at(params, noise, tokens, valid, t, None)
        total = bounds.mean_over_strata(at, key, self.bound_points, (len(tokens),))
        return total + self._length_nll(valid)

    def lengths(self, params: Params, keys: Keys, given: Given) -> Int[Array, "b"]:
        """Those asked for; else drawn from the law fitted to the training text."""
        return objectives.draw_length(jnp.asarray(self.language.length_counts), fold(keys, 1), given.length)

    def sample(self, params: Params, keys: Keys, given: Given, *, keep_path: bool = False) -> Sample:
        """Writes masked words until none is left; fixed words are there from the start."""
        start, predict = self._start(params, given, self.lengths(params, keys, given))
        step, ticks = self.sampler.walk(self.log_alpha_bar, predict, fold(keys, 2), given.tokens.shape)
        keep = (lambda state: state.tokens) if keep_path else (lambda state: None)
        state = Masking(start.tokens, start.masked, jnp.zeros(len(given.length), int))
        state, path = unroll(step, state, fold(keys, 0), ticks, keep=keep, done=lambda state: ~jnp.any(state.masked))
        return Sample(state.tokens, path, state.calls)

    def law(self, params: Params, given: Given) -> Float[Array, "b v"]:
        """log p of the one word that is missing."""
        start, predict = self._start(params, given, given.length)
        return start.first(predict(start.tokens, 1.0))

    def _start(self, params: Params, given: Given, length: Int[Array, "b"]) -> tuple[Canvas, Predict]:
        """What is there before the first call, and how the network's answers are drawn from."""
        net, start = self.net.bind(params), canvas(self.language, given, length)
        answers = lambda x_t, t: net(x_t, valid=start.valid)
        return start, reader(answers, start, self.sampler.temperature, self.sampler.top_p)

    def _at(
        self, params: Params, key: Array, tokens: Int[Array, "b l"], valid: Bool[Array, "b l"], t: Array, drop: Any
    ) -> Float[Array, "b"]:
        """−ᾱ′/(1 − ᾱ) Σ −log p(x_0 | x_t) over the words that are masked at t [b], nats a text."""
        share = -jnp.expm1(self.log_alpha_bar(t))
        masked = valid & (jax.random.uniform(key, tokens.shape) < share[:, None])
        losses = self._losses(params, tokens, masked, valid, drop)
        return reveal_rate(self.log_alpha_bar, t) * objectives.sum_over(losses, masked)

    def _length_nll(self, valid: Bool[Array, "b l"]) -> Float[Array, "b"]:
        return objectives.length_nll(jnp.asarray(self.language.length_counts), jnp.sum(valid, axis=-1))

    def _losses(
        self, params: Params, tokens: Int[Array, "b l"], hidden: Bool[Array, "b l"], valid: Bool[Array, "b l"], key: Any
    ) -> Float[Array, "b l"]:
        return hidden_nll(self.net.bind(params), self.language, tokens, hidden, valid, key)
