"""Filling in: a text with words under MASK, and a network that says what each of them is."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.diffusion import losses as objectives
from jtextdiff.diffusion.distributions import narrowed
from jtextdiff.methods.components.types import Given, Language, possible_words, span
from jtextdiff.nets.denoisers import TokenDenoiser
from jtextdiff.nets.functional import Net
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.masked_samplers import Predict


class Canvas(NamedTuple):
    """What a sampler starts from."""

    tokens: Int[Array, "b l"]  # the given words, MASK for each word to be written, PAD after the end
    masked: Bool[Array, "b l"]
    valid: Bool[Array, "b l"]
    possible: Bool[Array, "b l v"]  # the words that each position may take

    def first(self, log_p: Float[Array, "b l v"]) -> Float[Array, "b v"]:
        """The law of the first word to be written."""
        return jnp.take_along_axis(log_p, jnp.argmax(self.masked, axis=-1)[:, None, None], axis=1)[:, 0]


def canvas(language: Language, given: Given, length: Int[Array, "b"]) -> Canvas:
    """Texts of these lengths with the given words in them, and EOS known to be their last."""
    valid, ends = span(given, length)
    masked = valid & ~given.fixed
    tokens = jnp.where(valid, jnp.where(masked, language.mask, given.tokens), language.pad)
    return Canvas(tokens, masked, valid, possible_words(language, given, ends, with_pad=False))


def reader(answers: Predict, start: Canvas, temperature: float, top_p: float = 1.0) -> Predict:
    """(x_t, t) ↦ log p of the words that are drawn, from the network's `answers` (logits)."""
    return lambda x_t, t: narrowed(jnp.where(start.possible, answers(x_t, t), -jnp.inf), temperature, top_p)


def bidirectional(language: Language, trunk: Transformer, *, num_times: int = 0) -> Net:
    """A network that reads words and MASK, is told the length, and answers with logits of words."""
    return Net(
        lambda rngs: TokenDenoiser(
            trunk,
            num_inputs=max(language.vocab_size, language.mask) + 1,
            vocab_size=language.vocab_size,
            num_times=num_times,
            num_lengths=language.length + 1,
            rngs=rngs,
        )
    )


def hidden_nll(
    net: Any,
    language: Language,
    tokens: Int[Array, "b l"],
    hidden: Bool[Array, "b l"],
    valid: Bool[Array, "b l"],
    key: Key[Array, ""] | None,
) -> Float[Array, "b l"]:
    """−log p of each word, nats, by a network that reads the text with MASK where `hidden`. MASK is never an answer."""

    def missing(logits: Float[Array, "b m v"], words: Int[Array, "b m"]) -> Float[Array, "b m"]:
        is_mask = jnp.arange(language.vocab_size) == language.mask
        return objectives.cross_entropy(jnp.where(is_mask, -jnp.inf, logits), words)

    return net.per_word(missing, (tokens,), jnp.where(hidden, language.mask, tokens), valid=valid, key=key)
