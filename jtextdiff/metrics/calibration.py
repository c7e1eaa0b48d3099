"""Calibration of classifiers: on left-out texts, with equal weights of all values."""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize
from scipy.special import logsumexp

MAX_LOG_FACTOR = 2.0
"""Limit of the log of the factor: labels that words decide without exception would make it infinite."""


def balanced_weights(value: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Returns the weight of each text, of mean 1, under which all values are equally frequent.

    A classifier that has learned from more texts of one value would find it in texts of the other.
    """
    counts = np.bincount(value)
    return (len(value) / (np.count_nonzero(counts) * counts[value])).astype(np.float32)


def fold_ids(value: Int[np.ndarray, "n"], num_folds: int) -> Int[np.ndarray, "n"]:
    """Returns the fold of each text; each value has the same number of texts in every fold, to within one."""
    fold = np.zeros(len(value), int)
    for which in np.unique(value):
        rows = np.flatnonzero(value == which)
        fold[rows] = np.arange(len(rows)) % num_folds
    return fold


def calibrated(logits: Float[np.ndarray, "n c"], value: Int[np.ndarray, "n"]) -> tuple[float, Float[np.ndarray, "c"]]:
    """Returns the factor and the bias of logits with the least log-loss; all values weigh the same."""
    weights = balanced_weights(value)

    def loss(flat: Float[np.ndarray, "p"]) -> float:
        scaled = np.exp(flat[0]) * logits + flat[1:]
        return float(np.average(logsumexp(scaled, axis=-1) - scaled[np.arange(len(value)), value], weights=weights))

    bounds = [(-MAX_LOG_FACTOR, MAX_LOG_FACTOR)] + [(None, None)] * logits.shape[1]
    solution = minimize(loss, np.zeros(1 + logits.shape[1]), bounds=bounds).x
    return float(np.exp(solution[0])), solution[1:]


def calibration_error(
    confidence: Float[np.ndarray, "n"],
    correct: Bool[np.ndarray, "n"] | Float[np.ndarray, "n"],
    weights: Float[np.ndarray, "n"],
    bins: int = 15,
) -> float:
    """Returns |mean confidence − accuracy|, averaged over `bins` equal bins of confidence (Guo et al. 2017)."""
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, weights * (confidence - correct), minlength=bins)
    return float(np.abs(gaps).sum() / weights.sum())
