"""A trigram model of texts, interpolated as by Kneser and Ney: how well neighbouring words fit together.

Chen & Goodman (1999), with one discount for each order from how many n-grams occur once and twice (Ney et al. 1994).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int


class Ngrams(NamedTuple):
    """What is known of n-grams, which are sorted by their number, see `_number`."""

    numbers: Int[np.ndarray, "n"]
    values: Float[np.ndarray, "n"]

    def get(self, numbers: Int[np.ndarray, "*m"], others: Float[np.ndarray, "*m"]) -> Float[np.ndarray, "*m"]:
        """Returns the value of each n-gram, and that of `others` where it is not known."""
        place = np.minimum(np.searchsorted(self.numbers, numbers), len(self.numbers) - 1)
        return np.where(self.numbers[place] == numbers, self.values[place], others)


class Trigrams(NamedTuple):
    """log p of the n-grams of the training texts, and for each context that of a change to the next shorter one."""

    log_p_1: Float[np.ndarray, "v"]
    log_p_2: Ngrams
    log_p_3: Ngrams
    log_back_off_1: Float[np.ndarray, "v"]
    log_back_off_2: Ngrams

    @property
    def vocab_size(self) -> int:
        """Tokens that a text may consist of; the token of this number stands before a text, twice."""
        return len(self.log_p_1) - 1

    def nll(self, tokens: Int[np.ndarray, "b l"], valid: Bool[np.ndarray, "b l"]) -> Float[np.ndarray, "b"]:
        """Returns −log p of the valid tokens of each text, in nats; they come first, and end with EOS."""
        return -np.where(valid, self.log_p(*_in_threes(tokens, self.vocab_size)), 0.0).sum(-1)

    def log_p(
        self, first: Int[np.ndarray, "*m"], second: Int[np.ndarray, "*m"], third: Int[np.ndarray, "*m"]
    ) -> Float[np.ndarray, "*m"]:
        """Returns log p of the third token after the other two, in nats."""
        size = len(self.log_p_1)
        by_bigram = self.log_p_2.get(_number(size, second, third), self.log_back_off_1[second] + self.log_p_1[third])
        back_off = self.log_back_off_2.get(_number(size, first, second), np.zeros(np.shape(second)))
        return self.log_p_3.get(_number(size, first, second, third), back_off + by_bigram)

    def followers(
        self, tokens: Int[np.ndarray, "m"], least: float
    ) -> tuple[Int[np.ndarray, "k"], Int[np.ndarray, "k"]]:
        """Returns tokens that followed these in the training texts, and the row of the one that each followed.

        They have a log p after it of `least` nats.
        """
        size = self.vocab_size + 1
        first, end = (np.searchsorted(self.log_p_2.numbers, (tokens + after) * size) for after in (0, 1))
        rows = np.repeat(np.arange(len(tokens)), end - first)
        places = np.arange(len(rows)) - np.repeat(np.cumsum(end - first) - end, end - first)
        probable = self.log_p_2.values[places] >= least
        return rows[probable], self.log_p_2.numbers[places[probable]] % size

    def arrays(self) -> list[np.ndarray]:
        """Returns what the model consists of, with its logarithms in single precision."""
        parts = [array for part in self for array in (part if isinstance(part, Ngrams) else (part,))]
        return [array.astype(np.float32) if array.dtype == np.float64 else array for array in parts]


def from_arrays(arrays: Sequence[np.ndarray], vocab_size: int) -> Trigrams:
    """Returns the model that consists of these arrays. Raises ValueError if they are of no model of this vocabulary."""
    if len(arrays) != NUM_ARRAYS:
        raise ValueError(f"{len(arrays)} arrays; expected {NUM_ARRAYS}")
    one, numbers_2, p_2, numbers_3, p_3, back_off_1, contexts, back_off_2 = arrays
    pairs = ((numbers_2, p_2), (numbers_3, p_3), (contexts, back_off_2))
    unordered = lambda numbers: numbers.dtype.kind != "i" or np.any(np.diff(numbers) <= 0)
    values = (one, p_2, p_3, back_off_1, back_off_2)
    if any(part.dtype.kind != "f" or part.ndim != 1 or not np.all(np.isfinite(part)) for part in values):
        raise ValueError("logarithms that are no numbers")
    if not len(one) == len(back_off_1) == vocab_size + 1:
        raise ValueError(f"trigrams of {len(one) - 1} tokens; expected those of {vocab_size}")
    if any(of.shape != numbers.shape or unordered(numbers) for numbers, of in pairs):
        raise ValueError("numbers of n-grams of another kind or in another order")
    two, three, backed_off = (Ngrams(*pair) for pair in pairs)
    return Trigrams(one, two, three, back_off_1, backed_off)


NUM_ARRAYS = 8
"""Of which a model consists."""


def fit(tokens: Int[np.ndarray, "n l"], valid: Bool[np.ndarray, "n l"], vocab_size: int) -> Trigrams:
    """Fits the model to the valid tokens of texts, which come first and end with EOS; there must be one.

    Every token of the vocabulary has a probability after any others. Raises ValueError for too large a vocabulary.
    """
    size = vocab_size + 1  # the last token stands before a text
    if size**3 >= 2**63:
        raise ValueError(f"trigrams of {vocab_size} tokens cannot be numbered by 64 bits; use a smaller vocabulary")
    numbers = _number(size, *(of_place[valid] for of_place in _in_threes(tokens, vocab_size)))
    trigrams, counts = np.unique(numbers, return_counts=True)
    bigrams, num_before_bigram = np.unique(trigrams % size**2, return_counts=True)
    num_before_token = np.bincount(bigrams % size, minlength=size)

    discount = _discount(num_before_token)
    p_1 = np.maximum(num_before_token - discount, 0) + discount * np.count_nonzero(num_before_token) / vocab_size
    p_1 = p_1 / num_before_token.sum()
    p_2, back_off_1 = _interpolated(size, bigrams, num_before_bigram, p_1[bigrams % size])
    p_3, back_off_2 = _interpolated(size, trigrams, counts, p_2[np.searchsorted(bigrams, trigrams % size**2)])
    return Trigrams(
        np.log(p_1),
        Ngrams(bigrams, np.log(p_2)),
        Ngrams(trigrams, np.log(p_3)),
        back_off_1.get(np.arange(size), np.zeros(size)),
        back_off_2,
    )


def _in_threes(tokens: Int[np.ndarray, "n l"], start: int) -> tuple[Int[np.ndarray, "n l"], ...]:
    """Returns, for each token, the two before it and itself; before the first are two of `start`."""
    padded = np.pad(tokens.astype(np.int64), ((0, 0), (2, 0)), constant_values=start)
    return padded[:, :-2], padded[:, 1:-1], padded[:, 2:]


def _number(size: int, *tokens: Int[np.ndarray, "*m"]) -> Int[np.ndarray, "*m"]:
    """Returns the number of n-grams: their tokens are its digits in base `size`."""
    number = np.zeros(np.shape(tokens[0]), np.int64)
    for of_place in tokens:
        number = number * size + of_place
    return number


def _interpolated(
    size: int, ngrams: Int[np.ndarray, "n"], counts: Int[np.ndarray, "n"], shorter: Float[np.ndarray, "n"]
) -> tuple[Float[np.ndarray, "n"], Ngrams]:
    """Returns p of the last token of each n-gram, and for each context the log weight of p after a `shorter` one."""
    contexts, place, num_followers = np.unique(ngrams // size, return_inverse=True, return_counts=True)
    total, discount = np.bincount(place, counts), _discount(counts)
    back_off = discount * num_followers / total
    p = np.maximum(counts - discount, 0) / total[place] + back_off[place] * shorter
    return p, Ngrams(contexts, np.log(back_off))


def _discount(counts: Int[np.ndarray, "n"]) -> float:
    """Returns what is taken from each count, above 0 and below 1 however few texts there are."""
    once, twice = (int(np.count_nonzero(counts == n)) for n in (1, 2))
    return (once + 1) / (once + 2 * twice + 2)
