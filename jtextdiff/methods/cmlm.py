"""CMLM: conditional masked language model with mask-predict decoding.

Ghazvininejad et al. (2019), without a source text. The loss is the mean over k masked tokens, k uniform in 1 … L. L
itself is included, which the authors' code leaves out, so that the loss is the bound of masked diffusion divided by
the mean length, and CMLM can be scored like masked diffusion. Only the decoding differs.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion.distributions import UNDEFINED, Categorical
from jtextdiff.diffusion.elbo import any_order_bound, any_order_loss, one_order_bound
from jtextdiff.diffusion.losses import mean_over
from jtextdiff.diffusion.randomness import Keys, fold_in, stratified
from jtextdiff.methods.components.masked_denoiser import MaskedDenoiser, any_order_bound_name, masked_denoiser_net
from jtextdiff.methods.components.types import Given, Metrics, Sample, TextSpec, check_settings
from jtextdiff.nets.functional import Net, Params
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.denoiser_transforms import LogitShaping
from jtextdiff.sampling.energies import Energy
from jtextdiff.sampling.loop import unroll
from jtextdiff.sampling.masked_samplers import mask_predict
from jtextdiff.sampling.masked_state import MaskedState


@dataclass(frozen=True, kw_only=True)
class MaskPredict:
    """Settings of mask-predict decoding."""

    name: str = "mask_predict"
    steps: int = 10  # iterations; after each but the last, the least likely tokens are masked again
    candidates: int = 1  # lengths tried for each text; the one of the highest mean log p is returned
    temperature: float = 1.0  # without a source to translate, the most likely tokens would always be the same text
    top_p: float = 1.0

    names = ("mask_predict",)
    uses_steps = True

    def __post_init__(self) -> None:
        if self.name != "mask_predict":
            raise ValueError(f"sampler.name must be mask_predict, got {self.name!r}.")
        check_settings(self, positive=("steps", "candidates"), choices={})
        self.shaping.check()

    @property
    def shaping(self) -> LogitShaping:
        return LogitShaping(self.temperature, self.top_p)


@dataclass(frozen=True, kw_only=True)
class CMLM:
    """A bidirectional transformer that predicts masked tokens, and a learned distribution of lengths."""

    text_spec: TextSpec = TextSpec()
    trunk: Transformer = Transformer()
    bound_points: int = 16  # numbers of masked tokens per text at which the bound is estimated
    sampler: MaskPredict = MaskPredict()

    prefix_only = False
    guided_by_words = True

    def __post_init__(self) -> None:
        check_settings(self, positive=("bound_points",), choices={})

    @functools.cached_property
    def net(self) -> Net:
        return masked_denoiser_net(self.text_spec, self.trunk)

    @property
    def bound(self) -> str:
        return any_order_bound_name(self.bound_points, self.sampler.name)

    def init(self, key: Key[Array, ""]) -> Params:
        return {"words": self.net.init(key), "lengths": {"bias": jnp.zeros(self.text_spec.length + 1)}}

    def loss(self, params: Params, key: Key[Array, ""], batch: Batch) -> tuple[Float[Array, "b"], Metrics]:
        """Returns L times the mean −log p of masked tokens, plus −log p(length), divided by the mean length."""
        count_key, mask_key, dropout_key = (jax.random.fold_in(key, purpose) for purpose in range(3))
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        losses = self._denoiser(params).losses(tokens, valid, dropout_key)
        token_nats = any_order_loss(losses, mask_key, valid, stratified(count_key, len(tokens)))
        token_loss = token_nats / self.text_spec.mean_length
        length_loss = self._length_nll(params, valid) / self.text_spec.mean_length
        return token_loss + length_loss, {"words": token_loss, "lengths": length_loss}

    def nll(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """Returns an upper bound on −log p(text), nats per sequence, of generating it in a random order.

        It does not bound the texts of mask-predict, which generates and masks by confidence.
        """
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        losses = self._denoiser(params).losses(tokens, valid)
        return any_order_bound(losses, key, valid, self.bound_points) + self._length_nll(params, valid)

    @property
    def bound_check(self) -> str:
        return "bound of one random order, token by token"

    def nll_check(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """Estimates the same bound by the chain rule in one random order per text."""
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        losses = self._denoiser(params).losses(tokens, valid)
        return one_order_bound(losses, key, valid) + self._length_nll(params, valid)

    def sample(
        self, params: Params, keys: Keys, given: Given, *, energy: Energy | None = None, keep_path: bool = False
    ) -> Sample:
        """Returns the best of the candidates; fixed tokens are never masked."""
        candidates = [
            self._decode(params, fold_in(keys, i), given, energy, keep_path) for i in range(self.sampler.candidates)
        ]
        best = jnp.argmax(jnp.stack([score for _, score in candidates]), axis=0)
        rows = jnp.arange(len(best))
        tokens = jnp.stack([sample.tokens for sample, _ in candidates])[best, rows]
        calls = jnp.sum(jnp.stack([sample.calls for sample, _ in candidates]), axis=0)
        path = jnp.stack([sample.path for sample, _ in candidates], axis=1)[:, best, rows] if keep_path else None
        return Sample(tokens, path, calls)

    def _decode(
        self, params: Params, keys: Keys, given: Given, energy: Energy | None, keep_path: bool
    ) -> tuple[Sample, Float[Array, "b"]]:
        """Returns one candidate of each text, and its mean log p per token."""
        token_keys, length_keys = (fold_in(keys, purpose) for purpose in range(2))
        length_logits = jnp.broadcast_to(self._length_log_probs(params), (len(given.length), self.text_spec.length + 1))
        length = jnp.where(given.length > 0, given.length, Categorical(logits=length_logits).sample(length_keys))
        settings = self.sampler
        start, predict = self._denoiser(params).start(given, length, settings.shaping, energy)
        step = mask_predict(predict, self.text_spec.mask, start.masked, settings.steps)
        state = MaskedState.start(start.tokens, start.masked)

        def record(state: MaskedState) -> Int[Array, "b l"] | None:
            return state.tokens if keep_path else None

        state, path = unroll(step, state, token_keys, jnp.arange(settings.steps), record=record)
        tokens = jnp.where(length[:, None] == UNDEFINED, UNDEFINED, state.tokens)
        return Sample(tokens, path, state.calls), mean_over(state.log_p, start.masked)

    def token_distribution(self, params: Params, given: Given) -> Float[Array, "b v"] | None:
        """Returns log p of the one missing token; None for several candidates: choosing changes it."""
        if self.sampler.candidates > 1:
            return None
        settings = self.sampler
        start, predict = self._denoiser(params).start(given, given.length, settings.shaping)
        return start.first_masked(predict(start.tokens, 1.0, None)[0])

    def _denoiser(self, params: Params) -> MaskedDenoiser:
        return MaskedDenoiser(self.net.bind(params["words"]), self.text_spec)

    def _length_log_probs(self, params: Params) -> Float[Array, "m"]:
        """Returns log p of each length; no text has length 0."""
        return jax.nn.log_softmax(params["lengths"]["bias"].at[0].set(-jnp.inf))

    def _length_nll(self, params: Params, valid: Bool[Array, "b l"]) -> Float[Array, "b"]:
        return -self._length_log_probs(params)[jnp.sum(valid, axis=-1)]
