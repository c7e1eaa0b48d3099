"""p(value | text) by Bayes' rule, from trigrams of the texts of each value.

Trigrams see a word in its context: "not good" speaks against a text of which "good" alone would speak for.
"""

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import log_softmax

from jtextdiff.metrics import trigrams
from jtextdiff.metrics.trigrams import NUM_ARRAYS, Trigrams


class TrigramClassifier(NamedTuple):
    """Trigrams of the texts of each value, and a factor and biases of the log-likelihoods under them."""

    of_values: tuple[Trigrams, ...]
    factor: float
    bias: Float[np.ndarray, "c"]

    def log_p(self, log_likelihood: Float[np.ndarray, "b c"]) -> Float[np.ndarray, "b c"]:
        """Returns log p of every value, calibrated, from `log_likelihoods`.

        Tokens depend on each other more than trigrams can know, so that the factor is below 1.
        """
        return log_softmax(self.factor * log_likelihood + self.bias, axis=-1)


def log_likelihoods(
    of_values: Sequence[Trigrams], tokens: Int[np.ndarray, "b l"], valid: Bool[np.ndarray, "b l"]
) -> Float[np.ndarray, "b c"]:
    """Returns log p of each text by the trigrams of each value, in nats; see `Trigrams.nll`."""
    return -np.stack([of_value.nll(tokens, valid) for of_value in of_values], axis=-1)


def fit_each(
    tokens: Int[np.ndarray, "n l"],
    valid: Bool[np.ndarray, "n l"],
    value: Int[np.ndarray, "n"],
    num_values: int,
    vocab_size: int,
) -> tuple[Trigrams, ...]:
    """Returns the trigrams of the texts of each value, 0 … num_values − 1; each must have a text."""
    rows = [value == number for number in range(num_values)]
    return tuple(trigrams.fit(tokens[of_value], valid[of_value], vocab_size) for of_value in rows)


UNREADABLE = (OSError, ValueError, EOFError, TypeError, AttributeError, BadZipFile, zlib.error, RuntimeError)
"""What reading a damaged archive of arrays raises; the last one where it seems to be encrypted or of another kind."""


def save(classifier: TrigramClassifier, file: Path) -> None:
    """Writes the classifier, with its logarithms in single precision."""
    partial = file.with_name(f".{file.name}.partial")
    arrays = [array for of_value in classifier.of_values for array in of_value.arrays()]
    with partial.open("wb") as out:
        np.savez_compressed(out, *arrays, np.asarray([classifier.factor, *classifier.bias]))
    os.replace(partial, file)  # it exists whole or not at all


def load(file: Path, num_values: int, vocab_size: int) -> TrigramClassifier | None:
    """Reads a classifier that `save` wrote; None for a file from before classifiers, with the trigrams of all texts.

    Raises ValueError for any other file, and for one of other numbers of values or of tokens.
    """
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = [stored[name] for name in stored.files]
    except UNREADABLE:
        raise ValueError(f"{file} holds no trigrams: it is damaged, or no archive of arrays") from None
    if len(arrays) == NUM_ARRAYS:
        return None
    try:
        *arrays, calibration = arrays
        if calibration.dtype.kind != "f" or not np.all(np.isfinite(calibration)):
            raise ValueError("no numbers that calibrate it")
        parts = [arrays[start : start + NUM_ARRAYS] for start in range(0, len(arrays), NUM_ARRAYS)]
        of_values = tuple(trigrams.from_arrays(part, vocab_size) for part in parts)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} holds no trigrams of this control: {error}") from None
    if len(of_values) != num_values or calibration.shape != (1 + num_values,):
        raise ValueError(f"{file} holds trigrams of {len(of_values)} values; expected {num_values}")
    return TrigramClassifier(of_values, float(calibration[0]), calibration[1:])
