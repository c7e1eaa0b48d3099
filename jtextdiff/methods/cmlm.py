"""CMLM (Ghazvininejad et al. 2019): a masked language model of any number of masks, decoded by mask-predict.

Its loss is the mean over k masked words, k uniform in 1 … L with L itself included, which the release leaves out: so
it is the bound of masked diffusion by the text's length, and CMLM can be scored as one. Only its decoding differs.
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
from jtextdiff.diffusion.distributions import Categorical, check_narrowing
from jtextdiff.diffusion.randomness import Keys, fold, stratified
from jtextdiff.methods.components.masked_denoiser import Canvas, bidirectional, canvas, hidden_nll, reader
from jtextdiff.methods.components.types import Given, Language, Metrics, Sample, check_settings
from jtextdiff.nets.functional import Net, Params
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling import masked_samplers as unmasking
from jtextdiff.sampling.loop import unroll


@dataclass(frozen=True, kw_only=True)
class MaskPredict:
    """How texts are written."""

    name: str = "mask_predict"
    steps: int = 10  # iterations; after each but the last, the least sure words are masked again
    candidates: int = 1  # lengths that are tried for each text; the one of the highest mean log p is kept
    temperature: float = 1.0  # without a source to translate, the likeliest words would always be the same text
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.name != "mask_predict":
            raise ValueError(f"sampler.name must be mask_predict, got {self.name!r}.")
        check_settings(self, positive=("steps", "candidates"), choices={})
        check_narrowing(self.temperature, self.top_p)


@dataclass(frozen=True, kw_only=True)
class CMLM:
    """A bidirectional transformer that fills in masked words, and a learned law of lengths."""

    language: Language = Language()
    trunk: Transformer = Transformer()
    bound_points: int = 16  # numbers of masked words at which the bound is estimated, a text
    sampler: MaskPredict = MaskPredict()

    def __post_init__(self) -> None:
        check_settings(self, positive=("bound_points",), choices={})

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
        return {"words": self.net.init(key), "lengths": {"bias": jnp.zeros(self.language.length + 1)}}

    def loss(self, params: Params, key: Key[Array, ""], batch: Batch) -> tuple[Float[Array, "b"], Metrics]:
        """Mean −log p of the masked words, nats a token, and −log p(length) by the mean length of a text.

        By its own length, short texts would weigh more in the law of lengths.
        """
        when, which, drop = (jax.random.fold_in(key, purpose) for purpose in range(3))
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        losses = lambda hidden: self._losses(params, tokens, hidden, valid, drop)
        words = bounds.any_order_loss(losses, which, valid, stratified(when, len(tokens)))
        lengths = self._length_nll(params, jnp.sum(valid, axis=-1)) / self.language.mean_length
        return words + lengths, {"words": words, "lengths": lengths}

    def nll(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """An upper bound on −log p(text), nats a sequence, of writing it in an order drawn at random."""
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        losses = lambda hidden: self._losses(params, tokens, hidden, valid, None)
        total = bounds.any_order_bound(losses, key, valid, self.bound_points)
        return total + self._length_nll(params, jnp.sum(valid, axis=-1))

    @property
    def bound_again(self) -> str:
        return "bound of one order drawn at random, word by word"

    def nll_again(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """The bound by the chain of words in one order a text."""
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        losses = lambda hidden: self._losses(params, tokens, hidden, valid, None)
        return bounds.one_order_bound(losses, key, valid) + self._length_nll(params, jnp.sum(valid, axis=-1))

    def sample(self, params: Params, keys: Keys, given: Given, *, keep_path: bool = False) -> Sample:
        """The best of the candidates; fixed words are never masked."""
        tries = [self._write(params, fold(keys, each), given, keep_path) for each in range(self.sampler.candidates)]
        scores = jnp.stack([score for _, score in tries])
        best = jnp.argmax(scores, axis=0)
        rows = jnp.arange(len(best))
        tokens = jnp.stack([sample.tokens for sample, _ in tries])[best, rows]
        calls = jnp.sum(jnp.stack([sample.calls for sample, _ in tries]), axis=0)
        path = jnp.stack([sample.path for sample, _ in tries], axis=1)[:, best, rows] if keep_path else None
        return Sample(tokens, path, calls)

    def _write(self, params: Params, keys: Keys, given: Given, keep_path: bool) -> tuple[Sample, Float[Array, "b"]]:
        """One candidate of each text, and its mean log p a word."""
        walk, measure = (fold(keys, purpose) for purpose in range(2))
        law = jnp.broadcast_to(self._length_law(params), (len(given.length), self.language.length + 1))
        length = jnp.where(given.length > 0, given.length, Categorical(logits=law).sample(measure))
        start, predict = self._start(params, given, length)
        step = unmasking.mask_predict(predict, self.language.mask, start.masked, self.sampler.steps)
        keep = (lambda state: state.tokens) if keep_path else (lambda state: None)
        state = unmasking.Guess(start.tokens, jnp.zeros(start.tokens.shape))
        state, path = unroll(step, state, walk, jnp.arange(self.sampler.steps), keep=keep)
        calls = jnp.full(len(start.tokens), self.sampler.steps)
        return Sample(state.tokens, path, calls), objectives.mean_over(state.log_p, start.masked)

    def law(self, params: Params, given: Given) -> Float[Array, "b v"] | None:
        """log p of the one word that is missing; of several candidates the surest is kept, whose law is another."""
        start, predict = self._start(params, given, given.length)
        return start.first(predict(start.tokens, 1.0)) if self.sampler.candidates == 1 else None

    def _start(self, params: Params, given: Given, length: Int[Array, "b"]) -> tuple[Canvas, unmasking.Predict]:
        """What is there before the first call, and how the network's answers are drawn from."""
        net, start = self.net.bind(params["words"]), canvas(self.language, given, length)
        answers = lambda x_t, t: net(x_t, valid=start.valid)
        return start, reader(answers, start, self.sampler.temperature, self.sampler.top_p)

    def _losses(
        self, params: Params, tokens: Int[Array, "b l"], hidden: Bool[Array, "b l"], valid: Bool[Array, "b l"], key: Any
    ) -> Float[Array, "b l"]:
        return hidden_nll(self.net.bind(params["words"]), self.language, tokens, hidden, valid, key)

    def _length_law(self, params: Params) -> Float[Array, "m"]:
        """log p of each length; no text has length 0."""
        return jax.nn.log_softmax(params["lengths"]["bias"].at[0].set(-jnp.inf))

    def _length_nll(self, params: Params, length: Int[Array, "b"]) -> Float[Array, "b"]:
        return -self._length_law(params)[length]
