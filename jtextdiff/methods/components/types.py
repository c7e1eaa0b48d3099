"""TextSpec, Given and Sample: the inputs and outputs of methods."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jtextdiff.data.tokenizer import Tokenizer

Metrics = dict[str, Float[Array, "b"]]
"""Named values of each example; reports average them."""


@dataclass(frozen=True, kw_only=True)
class TextSpec:
    """Vocabulary, special ids and lengths of a corpus; training fills them in, users do not type them."""

    vocab_size: int = 0  # ids that a text may contain
    mask: int = 0
    pad: int = 0
    eos: int = 0
    unk: int = -1  # stands for every unknown word, and is never generated; −1: there is none
    length: int = 0  # of the longest sequence, in tokens, EOS counted
    length_counts: tuple[int, ...] = ()  # training sequences of each length, 0 … length

    @property
    def mean_length(self) -> float:
        """The mean number of tokens in a training sequence.

        Losses are nats per text divided by it, so that all tokens of the training text weigh the same. Dividing by
        each text's own length would give tokens of short texts more weight than the likelihood per token does.
        """
        return sum(n * count for n, count in enumerate(self.length_counts)) / sum(self.length_counts)


def text_spec_of(tokenizer: Tokenizer, length: int, length_counts: tuple[int, ...]) -> TextSpec:
    """Returns the spec of texts in the tokens of a tokenizer."""
    return TextSpec(
        vocab_size=tokenizer.vocab_size,
        mask=tokenizer.mask,
        pad=tokenizer.pad,
        eos=tokenizer.eos,
        unk=-1 if tokenizer.unk is None else tokenizer.unk,
        length=length,
        length_counts=length_counts,
    )


class Given(NamedTuple):
    """What a sample is conditioned on: fixed tokens, a length, a label."""

    tokens: Int[Array, "b l"]
    fixed: Bool[Array, "b l"]  # True: the sample keeps this token
    length: Int[Array, "b"]  # in tokens, EOS counted; 0: the method draws one; −n: it draws one of at least n
    label: Int[Array, "b"] | None = None  # value of the method's condition, numbered from 1; 0: no label


class Sample(NamedTuple):
    """Sampled tokens, and on request the path that led to them."""

    tokens: Int[Array, "b l"]  # PAD after the end
    path: Any  # if requested: the states along the way, [steps + 1, b, l], as tokens
    calls: Int[Array, "b"]  # network calls per row
    energies: Float[Array, "steps+1 b parts"] | None = None  # nats, of a path that followed an energy


def nothing_given(num: int, length: int) -> Given:
    """Returns the empty conditioning: `num` unconditional samples of at most `length` tokens."""
    shape = (num, length)
    return Given(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool), jnp.zeros(num, jnp.int32))


def valid_and_last(given: Given, length: Int[Array, "b"]) -> tuple[Bool[Array, "b l"], Bool[Array, "b l"]]:
    """Returns the positions inside texts of these lengths, and the last of them."""
    valid = jnp.arange(given.tokens.shape[1]) < length[:, None]
    return valid, valid & ~jnp.pad(valid[:, 1:], ((0, 0), (0, 1)))


def allowed_tokens(
    text_spec: TextSpec, given: Given, last: Bool[Array, "b l"] | None, *, with_pad: bool
) -> Bool[Array, "b l v"]:
    """Returns the allowed tokens of each position: the fixed one, else all but UNK, MASK and, unless `with_pad`, PAD.

    Where the `last` positions of texts are known, they take EOS and no other position does.
    """
    ids = jnp.arange(text_spec.vocab_size)
    is_eos = ids == text_spec.eos
    free = (ids != text_spec.unk) & (ids != text_spec.mask) & (is_eos | (ids != text_spec.pad) | with_pad)
    if last is not None:
        free = free & (last[..., None] == is_eos)
    return jnp.where(given.fixed[..., None], ids == given.tokens[..., None], free)


def possible_kinds(text_spec: TextSpec, x_t: Int[Array, "b k"]) -> Bool[Array, "b k 3"]:
    """Returns whether each position of a block may take a word, EOS and PAD, given its tokens that are not MASK.

    The blocks before hold no end. After an end there is PAD alone. EOS comes once, after all words. PAD comes after an
    end, so not after a word, and a word not just before PAD.
    """

    def from_here(flags: Bool[Array, "b k"]) -> Bool[Array, "b k"]:
        return jnp.cumsum(flags[:, ::-1], axis=-1)[:, ::-1] > 0

    is_eos, is_pad = x_t == text_spec.eos, (x_t == text_spec.pad) & (x_t != text_spec.eos)
    is_word = (x_t != text_spec.mask) & ~is_eos & ~is_pad
    ended = jnp.cumsum(is_eos | is_pad, axis=-1) > 0
    after_word = jnp.pad(is_word, ((0, 0), (1, 0)), constant_values=True)[:, :-1]
    before_pad = jnp.pad(is_pad, ((0, 0), (0, 1)))[:, 1:]
    eos_follows = from_here(is_eos) & (text_spec.eos != text_spec.pad)
    eos = ~ended & ~from_here(is_word) & ~eos_follows
    return jnp.stack([~ended & ~before_pad, eos, ended | (eos & ~after_word)], axis=-1)


def words_only(text_spec: TextSpec, tokens: Int[Array, "b l"]) -> Int[Array, "b l"]:
    """Returns the tokens, with an id outside the vocabulary in place of MASK, EOS and PAD."""
    special = (tokens == text_spec.mask) | (tokens == text_spec.eos) | (tokens == text_spec.pad)
    return jnp.where(special, text_spec.vocab_size, tokens)


def of_kinds(
    text_spec: TextSpec, logits: Float[Array, "b k v"], possible: Bool[Array, "b k 3"]
) -> Float[Array, "b k v"]:
    """Returns the logits with −∞ for tokens of the kinds (word, EOS, PAD) that are not `possible` at a position."""
    ids = jnp.arange(text_spec.vocab_size)
    is_eos, is_pad = ids == text_spec.eos, ids == text_spec.pad
    word, eos, pad = (possible[..., kind, None] for kind in range(3))
    return jnp.where(is_eos & eos | is_pad & pad | ~(is_eos | is_pad) & word, logits, -jnp.inf)


def has_end(text_spec: TextSpec, tokens: Int[Array, "b l"], before: Array | int) -> Bool[Array, "b"]:
    """Returns whether a text has EOS or PAD before this position."""
    is_end = (tokens == text_spec.eos) | (tokens == text_spec.pad)
    return jnp.any(is_end & (jnp.arange(tokens.shape[1]) < before), axis=-1)


def until_end(text_spec: TextSpec, tokens: Int[Array, "b l"]) -> Int[Array, "b l"]:
    """Returns texts with EOS at the first position that is EOS or PAD, and PAD after it."""
    is_end = (tokens == text_spec.eos) | (tokens == text_spec.pad)
    ends = jnp.cumsum(is_end, axis=-1)
    return jnp.where(is_end & (ends == 1), text_spec.eos, jnp.where(ends > 0, text_spec.pad, tokens))


def check_settings(method: Any, *, positive: tuple[str, ...], choices: dict[str, tuple[str, ...]]) -> None:
    """Raises ValueError naming a field that is below 1 but must be positive, or that is none of its choices."""
    for field in positive:
        if getattr(method, field) < 1:
            raise ValueError(f"{field} must be at least 1, got {getattr(method, field)}.")
    for field, names in choices.items():
        if getattr(method, field) not in names:
            raise ValueError(f"{field} must be one of {names}, got {getattr(method, field)!r}.")


def check_numbers(method: Any, weights: tuple[str, ...], shares: tuple[str, ...]) -> None:
    """Raises ValueError naming a weight that is negative, or a share that is not in [0, 1)."""
    for field in (*weights, *shares):
        value, limit = getattr(method, field), 1.0 if field in shares else float("inf")
        if not 0 <= value < limit:
            raise ValueError(f"{field} must be at least 0{' and below 1' if field in shares else ''}, got {value}.")
