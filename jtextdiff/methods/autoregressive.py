"""Autoregressive language model: the baseline, and the judge of samples.

p(text) = Π p(token_i | the tokens before it). A text starts after EOS and ends with EOS, so its length needs no
distribution of its own.
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion.distributions import temper_and_top_p
from jtextdiff.diffusion.losses import cross_entropy, sum_over
from jtextdiff.diffusion.randomness import Keys
from jtextdiff.methods.components.autoregressive_sampler import (
    DecodingSettings,
    allowed_next,
    decode,
    previous_tokens,
    stepwise_losses,
)
from jtextdiff.methods.components.types import Given, Metrics, Sample, TextSpec
from jtextdiff.nets.denoisers import Head, TokenDenoiser
from jtextdiff.nets.functional import Net, Params
from jtextdiff.nets.transformer import Transformer


@dataclass(frozen=True, kw_only=True)
class Autoregressive:
    """A causal transformer."""

    text_spec: TextSpec = TextSpec()
    trunk: Transformer = Transformer(causal=True)
    head: Head = Head()
    sampler: DecodingSettings = DecodingSettings()

    bound = "exact"
    prefix_only = True

    def __post_init__(self) -> None:
        if not self.trunk.causal:
            raise ValueError("Autoregressive needs trunk.causal=True: a token may attend only to those before it.")
        if self.head.shifted:
            raise ValueError("Autoregressive needs head.shifted=False: its inputs are the tokens before.")

    @functools.cached_property
    def net(self) -> Net:
        sizes = dict.fromkeys(("num_inputs", "vocab_size"), self.text_spec.vocab_size)
        return Net(lambda rngs: TokenDenoiser(self.trunk, **sizes, head=self.head, rngs=rngs))

    def init(self, key: Key[Array, ""]) -> Params:
        return self.net.init(key)

    def loss(self, params: Params, key: Key[Array, ""], batch: Batch) -> tuple[Float[Array, "b"], Metrics]:
        """Returns −log p(text, EOS) divided by the mean length."""
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        losses = self._losses(params, tokens, key)
        loss = sum_over(losses, valid) / self.text_spec.mean_length
        return loss, {"cross_entropy": loss}

    def nll(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """Returns −log p(text, EOS), exact, nats per sequence; `key` is not used."""
        return sum_over(self._losses(params, jnp.asarray(batch.tokens), None), jnp.asarray(batch.valid))

    def continuation_nll(
        self, params: Params, key: Key[Array, ""], batch: Batch, scored: Bool[Array, "b l"]
    ) -> Float[Array, "b"]:
        """Returns −log p(the tokens that are scored | those before each), exact, nats; `key` is not used."""
        return sum_over(self._losses(params, jnp.asarray(batch.tokens), None), jnp.asarray(scored))

    @property
    def bound_check(self) -> str:
        return "exact, token by token with the cache"

    def nll_check(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """Returns the same value, computed position by position with the cache; `key` is not used."""
        tokens, net = jnp.asarray(batch.tokens), self.net.bind(params)
        losses = stepwise_losses(self.text_spec, tokens, net.step, net.init_cache(*tokens.shape))
        return sum_over(losses, jnp.asarray(batch.valid))

    def token_distribution(self, params: Params, given: Given) -> Float[Array, "b v"] | None:
        """Returns log p of the token after the given prefix, in one forward pass; None if decoding does not sample."""
        if self.sampler.name != "sample":
            return None
        position = jnp.argmin(given.fixed, axis=-1)[:, None, None]
        logits = self.net.bind(params)(previous_tokens(self.text_spec, given.tokens))
        allowed = jnp.where(allowed_next(self.text_spec, given), logits, -jnp.inf)
        next_logits = jnp.take_along_axis(allowed, position, axis=1)[:, 0]
        return temper_and_top_p(next_logits, self.sampler.temperature, self.sampler.top_p)

    def sample(self, params: Params, keys: Keys, given: Given, *, keep_path: bool = False) -> Sample:
        """Samples tokens left to right until EOS.

        A given length forces EOS there; otherwise the last position does. Keeps a fixed prefix.
        """
        net, num_rows = self.net.bind(params), len(given.tokens) * self.sampler.beams
        cache = net.init_cache(num_rows, given.tokens.shape[1])
        return decode(self.sampler, self.text_spec, given, keys, net.step, cache, keep_path=keep_path)

    def features(self, params: Params, batch: Batch) -> Float[Array, "b w"]:
        """Returns the mean over the text of the last hidden states."""
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        hidden = self.net.bind(params).hidden(previous_tokens(self.text_spec, tokens))
        return jnp.sum(jnp.where(valid[..., None], hidden, 0.0), axis=1) / jnp.sum(valid, axis=-1, keepdims=True)

    def _losses(self, params: Params, tokens: Int[Array, "b l"], key: Any) -> Float[Array, "b l"]:
        """Returns −log p of each token given those before it, nats; the first is given EOS."""
        previous = previous_tokens(self.text_spec, tokens)
        return self.net.bind(params).per_token(cross_entropy, (tokens,), previous, key=key)
