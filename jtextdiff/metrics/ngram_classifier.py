"""Judging: which value of a label a text has, by logistic regression on its n-grams, weighted by naive Bayes.

Wang & Manning (2012), NB-SVM with the logistic loss. It is of another kind than the models that it judges.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

LONGEST = 3
"""Words of an n-gram, at most."""

PENALTY = 1.0
"""Of the weights squared, beside the summed log-loss: a normal prior of this precision."""


class Judge(NamedTuple):
    """What each n-gram says for each value."""

    column: dict[tuple[str, ...], int]
    weights: Float[np.ndarray, "n c"]
    bias: Float[np.ndarray, "c"]

    def log_p(self, texts: Sequence[str]) -> Float[np.ndarray, "t c"]:
        """log p of every value, of each text."""
        return _log_softmax(_counted(texts, self.column) @ self.weights + self.bias)

    def values(self, texts: Sequence[str]) -> Int[np.ndarray, "t"]:
        """The likeliest value of each text."""
        return self.log_p(texts).argmax(-1)


def learn(texts: Sequence[str], values: Int[np.ndarray, "t"], num_values: int) -> Judge:
    """A judge from texts and the value, 0 … num_values − 1, that each has."""
    column: dict[tuple[str, ...], int] = {}
    for text in texts:
        for gram in _grams(text):
            column.setdefault(gram, len(column))
    counted, is_value = _counted(texts, column), np.eye(num_values)[np.asarray(values)]
    seen = counted.T @ is_value + 1.0  # [n, c]
    rest = seen.sum(axis=1, keepdims=True) - seen + 1.0
    ratio = np.log(seen / seen.sum(axis=0)) - np.log(rest / rest.sum(axis=0))
    shape = (len(column), num_values)

    def loss(flat: Float[np.ndarray, "p"]) -> tuple[float, Float[np.ndarray, "p"]]:
        weights, bias = flat[:-num_values].reshape(shape), flat[-num_values:]
        log_p = _log_softmax(counted @ (ratio * weights) + bias)
        slope = np.exp(log_p) - is_value
        down = ratio * (counted.T @ slope) + PENALTY * weights
        nats = -np.sum(log_p * is_value) + 0.5 * PENALTY * np.sum(weights**2)
        return float(nats), np.concatenate([down.ravel(), slope.sum(axis=0)])

    found = minimize(loss, np.zeros(ratio.size + num_values), jac=True, method="L-BFGS-B", options={"maxiter": 100}).x
    return Judge(column, ratio * found[:-num_values].reshape(shape), found[-num_values:])


def _counted(texts: Iterable[str], column: dict[tuple[str, ...], int]) -> csr_matrix:
    """Which n-grams each text has, 1 or 0."""
    rows, starts = [], [0]
    for text in texts:
        rows += sorted({column[gram] for gram in _grams(text) if gram in column})
        starts.append(len(rows))
    return csr_matrix((np.ones(len(rows)), rows, starts), shape=(len(starts) - 1, len(column)))


def _grams(text: str) -> Iterator[tuple[str, ...]]:
    words = text.split()
    for size in range(1, LONGEST + 1):
        yield from zip(*(words[start:] for start in range(size)), strict=False)


def _log_softmax(logits: Float[np.ndarray, "t c"]) -> Float[np.ndarray, "t c"]:
    top = logits.max(axis=-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))
