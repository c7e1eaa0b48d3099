"""NB-SVM text classifier: logistic regression on n-grams, weighted by naive Bayes.

Wang & Manning (2012), NB-SVM with the logistic loss. It is of another kind than the models whose texts it judges.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

from jtextdiff.metrics.ngrams import ngrams_up_to
from jtextdiff.metrics.units import units

LONGEST = 3
"""Units of an n-gram, at most."""

PENALTY = 1.0
"""Weight of the squared weights, added to the summed log-loss: a normal prior of this precision."""


class NgramClassifier(NamedTuple):
    """A linear classifier on the n-grams that occur in a text."""

    column: dict[tuple[str, ...], int]
    weights: Float[np.ndarray, "n c"]
    bias: Float[np.ndarray, "c"]

    def log_p(self, texts: Sequence[str]) -> Float[np.ndarray, "t c"]:
        """Returns log p of every value for each text."""
        return _log_softmax(_occurrences(texts, self.column) @ self.weights + self.bias)

    def values(self, texts: Sequence[str]) -> Int[np.ndarray, "t"]:
        """Returns the most probable value of each text."""
        return self.log_p(texts).argmax(-1)


def fit(texts: Sequence[str], values: Int[np.ndarray, "t"], num_values: int) -> NgramClassifier:
    """Fits a classifier to texts and the value of each, 0 … num_values − 1."""
    column: dict[tuple[str, ...], int] = {}
    for text in texts:
        for ngram in ngrams_up_to(units(text), LONGEST):
            column.setdefault(ngram, len(column))
    return NgramClassifier(
        column, *fit_occurrences(_occurrences(texts, column), np.eye(num_values)[np.asarray(values)])
    )


def fit_occurrences(
    occurrences: csr_matrix, p: Float[np.ndarray, "t c"]
) -> tuple[Float[np.ndarray, "n c"], Float[np.ndarray, "c"]]:
    """Returns the weights and the bias fitted to what occurs in each text, 1 or 0, [t, n], and p of its values.

    Of a labelled text p is 1 of its own value; then this is the classifier of the paper.
    """
    num_values = p.shape[1]
    with_value = occurrences.T @ p + 1.0  # [n, c]
    with_others = with_value.sum(axis=1, keepdims=True) - with_value + 1.0
    log_ratio = np.log(with_value / with_value.sum(axis=0)) - np.log(with_others / with_others.sum(axis=0))
    shape = log_ratio.shape

    def loss(flat: Float[np.ndarray, "p"]) -> tuple[float, Float[np.ndarray, "p"]]:
        weights, bias = flat[:-num_values].reshape(shape), flat[-num_values:]
        log_p = _log_softmax(occurrences @ (log_ratio * weights) + bias)
        logit_gradient = np.exp(log_p) - p
        weight_gradient = log_ratio * (occurrences.T @ logit_gradient) + PENALTY * weights
        nats = -np.sum(log_p * p) + 0.5 * PENALTY * np.sum(weights**2)
        return float(nats), np.concatenate([weight_gradient.ravel(), logit_gradient.sum(axis=0)])

    start = np.zeros(log_ratio.size + num_values)
    solution = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 100}).x
    weights, bias = solution[:-num_values].reshape(shape), solution[-num_values:]
    return log_ratio * weights, bias


def token_occurrences(tokens: Int[np.ndarray, "t l"], counted: Bool[np.ndarray, "t l"], num_tokens: int) -> csr_matrix:
    """Returns which tokens occur in each text, 1 or 0, [t, num_tokens], at the positions that are counted."""
    rows, positions = np.nonzero(counted)
    occurrences = csr_matrix((np.ones(len(rows)), (rows, tokens[rows, positions])), shape=(len(tokens), num_tokens))
    occurrences.data[:] = 1.0  # one that occurs twice was added up
    return occurrences


def _occurrences(texts: Iterable[str], column: dict[tuple[str, ...], int]) -> csr_matrix:
    """Returns which n-grams occur in each text, 1 or 0, [texts, n-grams]."""
    columns, starts = [], [0]
    for text in texts:
        columns += sorted({column[ngram] for ngram in ngrams_up_to(units(text), LONGEST) if ngram in column})
        starts.append(len(columns))
    return csr_matrix((np.ones(len(columns)), columns, starts), shape=(len(starts) - 1, len(column)))


def _log_softmax(logits: Float[np.ndarray, "t c"]) -> Float[np.ndarray, "t c"]:
    largest = logits.max(axis=-1, keepdims=True)
    return logits - largest - np.log(np.exp(logits - largest).sum(axis=-1, keepdims=True))
