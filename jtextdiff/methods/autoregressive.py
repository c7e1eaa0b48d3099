"""Autoregressive language model: one word after another, p(w) = Π p(w_i | w_<i). The baseline, and the judge."""

import functools
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jtextdiff.core import objectives
from jtextdiff.core.randomness import Keys
from jtextdiff.core.sampling import autoregress, unroll
from jtextdiff.methods.method import Given, Language, Metrics, Sample, possible_words
from jtextdiff.nets.denoisers import TokenDenoiser
from jtextdiff.nets.functional import Net, Params
from jtextdiff.nets.transformer import Transformer
from jtextdiff.text.batches import Batch


@dataclass(frozen=True, kw_only=True)
class Autoregressive:
    """A causal transformer; a text starts after EOS and ends with EOS, so its length needs no law."""

    language: Language = Language()
    trunk: Transformer = Transformer(causal=True)

    def __post_init__(self) -> None:
        if not self.trunk.causal:
            raise ValueError("Autoregressive needs trunk.causal=True: each word may see only those before it.")

    @functools.cached_property
    def net(self) -> Net:
        make = functools.partial(_make_net, trunk=self.trunk, vocab_size=self.language.vocab_size)
        return Net(make)

    @property
    def bound(self) -> str:
        return "exact"

    @property
    def prefix_only(self) -> bool:
        return True

    def init(self, key: Key[Array, ""]) -> Params:
        return self.net.init(key)

    def loss(self, params: Params, key: Key[Array, ""], batch: Batch) -> tuple[Float[Array, "b"], Metrics]:
        """Cross-entropy, nats a token, EOS included."""
        tokens = jnp.asarray(batch.tokens)
        losses = objectives.cross_entropy(self._logits(params, tokens, key), tokens)
        loss = objectives.mean_over(losses, jnp.asarray(batch.valid))
        return loss, {"cross_entropy": loss}

    def nll(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """−log p(text, EOS), exact, nats a sequence; `key` is not used."""
        tokens = jnp.asarray(batch.tokens)
        losses = objectives.cross_entropy(self._logits(params, tokens, None), tokens)
        return objectives.sum_over(losses, jnp.asarray(batch.valid))

    def sample(self, params: Params, keys: Keys, given: Given, *, keep_path: bool = False) -> Sample:
        """Draws word after word until EOS, which is the last position at the latest; a fixed prefix is kept."""
        ends = given._replace(
            tokens=given.tokens.at[:, -1].set(self.language.eos), fixed=given.fixed.at[:, -1].set(True)
        )
        possible = possible_words(self.language, ends, None, with_pad=True)

        def next_logits(tokens: Int[Array, "b l"], position: Array) -> Float[Array, "b v"]:
            return jnp.where(possible[:, position], self._logits(params, tokens, None)[:, position], -jnp.inf)

        blank = jnp.full(given.tokens.shape, self.language.pad, given.tokens.dtype)
        keep = self._until_end if keep_path else (lambda tokens: None)
        tokens, path = unroll(autoregress(next_logits), blank, keys, jnp.arange(blank.shape[1]), keep=keep)
        written = self._until_end(tokens)
        return Sample(written, path, jnp.sum(written != self.language.pad, axis=-1))

    def _logits(self, params: Params, tokens: Int[Array, "b l"], key: Any) -> Float[Array, "b l v"]:
        """Logits of each position given those before it; the first is given EOS."""
        before = jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)), constant_values=self.language.eos)
        return self.net.bind(params)(before, key=key)

    def _until_end(self, tokens: Int[Array, "b l"]) -> Int[Array, "b l"]:
        """PAD after the first EOS."""
        ended = jnp.cumsum(tokens == self.language.eos, axis=-1) - (tokens == self.language.eos) > 0
        return jnp.where(ended, self.language.pad, tokens)


def _make_net(rngs: Any, *, trunk: Transformer, vocab_size: int) -> TokenDenoiser:
    return TokenDenoiser(trunk, num_inputs=vocab_size, vocab_size=vocab_size, rngs=rngs)
