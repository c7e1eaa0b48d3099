"""Autoregressive language model: one word after another, p(w) = Π p(w_i | w_<i). The baseline, and the judge."""

import functools
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion import losses as objectives
from jtextdiff.diffusion.distributions import narrowed
from jtextdiff.diffusion.randomness import Keys
from jtextdiff.methods.components.autoregressive_sampler import (
    Writer,
    losses_by_word,
    possible_next,
    token_before,
    write,
)
from jtextdiff.methods.components.types import Given, Language, Metrics, Sample
from jtextdiff.nets.denoisers import TokenDenoiser
from jtextdiff.nets.functional import Net, Params
from jtextdiff.nets.transformer import Transformer


@dataclass(frozen=True, kw_only=True)
class Autoregressive:
    """A causal transformer; a text starts after EOS and ends with EOS, so its length needs no law."""

    language: Language = Language()
    trunk: Transformer = Transformer(causal=True)
    sampler: Writer = Writer()

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
        """−log p(text, EOS) by the mean length of a text, nats a token.

        By its own length, short texts would weigh more and EOS would come too soon.
        """
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        losses = self._losses(params, tokens, key)
        total = objectives.sum_over(losses, valid)
        return total / self.language.mean_length, {"cross_entropy": objectives.mean_over(losses, valid)}

    def nll(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """−log p(text, EOS), exact, nats a sequence; `key` is not used."""
        tokens = jnp.asarray(batch.tokens)
        losses = self._losses(params, tokens, None)
        return objectives.sum_over(losses, jnp.asarray(batch.valid))

    @property
    def bound_again(self) -> str:
        return "exact, word by word from what is kept of those before"

    def nll_again(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """The same number as the sampler would have it; `key` is not used."""
        tokens, net = jnp.asarray(batch.tokens), self.net.bind(params)
        losses = losses_by_word(self.language, tokens, net.step, net.empty(*tokens.shape))
        return objectives.sum_over(losses, jnp.asarray(batch.valid))

    def law(self, params: Params, given: Given) -> Float[Array, "b v"] | None:
        """log p of the word after the given ones, in one reading of them; None where words are not drawn."""
        if self.sampler.name != "sample":
            return None
        position = jnp.argmin(given.fixed, axis=-1)[:, None, None]
        logits = self.net.bind(params)(token_before(self.language, given.tokens))
        possible = jnp.where(possible_next(self.language, given), logits, -jnp.inf)
        law = jnp.take_along_axis(possible, position, axis=1)[:, 0]
        return narrowed(law, self.sampler.temperature, self.sampler.top_p)

    def sample(self, params: Params, keys: Keys, given: Given, *, keep_path: bool = False) -> Sample:
        """Draws word after word until EOS, which comes where a length is given there, else at the last position at
        the latest; a fixed prefix is kept."""
        net, rows = self.net.bind(params), len(given.tokens) * self.sampler.beams
        kept = net.empty(rows, given.tokens.shape[1])
        return write(self.sampler, self.language, given, keys, net.step, kept, keep_path=keep_path)

    def features(self, params: Params, batch: Batch) -> Float[Array, "b w"]:
        """The last hidden states, in the mean over the text."""
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        hidden = self.net.bind(params).hidden(token_before(self.language, tokens))
        return jnp.sum(jnp.where(valid[..., None], hidden, 0.0), axis=1) / jnp.sum(valid, axis=-1, keepdims=True)

    def _losses(self, params: Params, tokens: Int[Array, "b l"], key: Any) -> Float[Array, "b l"]:
        """−log p of each token given those before it, nats; the first is given EOS."""
        return self.net.bind(params).per_word(
            objectives.cross_entropy, (tokens,), token_before(self.language, tokens), key=key
        )


def _make_net(rngs: Any, *, trunk: Transformer, vocab_size: int) -> TokenDenoiser:
    return TokenDenoiser(trunk, num_inputs=vocab_size, vocab_size=vocab_size, rngs=rngs)
