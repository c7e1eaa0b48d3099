"""TextSpec, Given and Sample: what a method is told and returns."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Metrics = dict[str, Float[Array, "b"]]
"""Named numbers, one an example; they are averaged where they are reported."""


@dataclass(frozen=True, kw_only=True)
class Language:
    """What a method must know of the corpus; filled in when a run is prepared, never typed by hand."""

    vocab_size: int = 0  # ids that can be written
    mask: int = 0
    pad: int = 0
    eos: int = 0
    unk: int = -1  # stands for every unknown word, and so is never written; −1: there is none
    length: int = 0  # positions of the longest sequence, EOS counted
    length_counts: tuple[int, ...] = ()  # training sequences of each length, 0 … length

    @property
    def mean_length(self) -> float:
        """Tokens of a training sequence, in the mean."""
        return sum(n * count for n, count in enumerate(self.length_counts)) / sum(self.length_counts)


class Given(NamedTuple):
    """What is asked of a sample: words that stay, and how long the sequence is."""

    tokens: Int[Array, "b l"]
    fixed: Bool[Array, "b l"]  # True: this token stays
    length: Int[Array, "b"]  # tokens, EOS counted; 0: drawn by the method; −n: likewise, but n at least
    label: Int[Array, "b"] | None = None  # of its condition, the number of the value from 1; 0: none is told


class Sample(NamedTuple):
    """Tokens, PAD after the end; if it was asked for, the states on the way [steps + 1, b, l] as tokens; the network
    calls that each row has needed; and, of a path that followed an energy, its parts at each state, in nats."""

    tokens: Int[Array, "b l"]
    path: Any
    calls: Int[Array, "b"]
    energies: Float[Array, "steps+1 b parts"] | None = None


def nothing_given(num: int, length: int) -> Given:
    """Nothing fixed, lengths free: `num` unconditional samples of at most `length` tokens."""
    shape = (num, length)
    return Given(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool), jnp.zeros(num, jnp.int32))


def span(given: Given, length: Int[Array, "b"]) -> tuple[Bool[Array, "b l"], Bool[Array, "b l"]]:
    """The positions of texts of these lengths, and where they end."""
    valid = jnp.arange(given.tokens.shape[1]) < length[:, None]
    return valid, valid & ~jnp.pad(valid[:, 1:], ((0, 0), (0, 1)))


def possible_words(
    language: Language, given: Given, ends: Bool[Array, "b l"] | None, *, with_pad: bool
) -> Bool[Array, "b l v"]:
    """The words that each position may take: the given one; else any but UNK and MASK, and PAD only `with_pad`.

    Where it is known which positions are the `ends` of texts, EOS stands there and nowhere else.
    """
    words = jnp.arange(language.vocab_size)
    is_eos = words == language.eos
    free = (words != language.unk) & (words != language.mask) & (is_eos | (words != language.pad) | with_pad)
    if ends is not None:
        free = free & (ends[..., None] == is_eos)
    return jnp.where(given.fixed[..., None], words == given.tokens[..., None], free)


def check_settings(method: Any, *, positive: tuple[str, ...], choices: dict[str, tuple[str, ...]]) -> None:
    """Raises ValueError naming a field that must be at least 1 and is not, or is none of its choices."""
    for field in positive:
        if getattr(method, field) < 1:
            raise ValueError(f"{field} must be at least 1, got {getattr(method, field)}.")
    for field, names in choices.items():
        if getattr(method, field) not in names:
            raise ValueError(f"{field} must be one of {names}, got {getattr(method, field)!r}.")


def check_numbers(method: Any, weights: tuple[str, ...], shares: tuple[str, ...]) -> None:
    """Raises ValueError naming a field that is no weight, of at least 0, or no share, also below 1."""
    for field in (*weights, *shares):
        value, most = getattr(method, field), 1.0 if field in shares else float("inf")
        if not 0 <= value < most:
            raise ValueError(f"{field} must be at least 0{' and below 1' if field in shares else ''}, got {value}.")
