"""Co-training (Blum & Mitchell 1998): values of texts without a label, from views that err on different ones.

Classifiers of several views are fitted to the labelled texts. The texts of whose values they are surest together train
one more, by trigrams, and so again.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import log_softmax, softmax

from jtextdiff.metrics.calibration import calibrated, fold_ids
from jtextdiff.metrics.trigram_classifier import TrigramClassifier, fit_each, log_likelihoods

NUM_ROUNDS = 2
"""How often trigrams are counted anew, in the texts that the views and the trigrams before are surest of."""

SURE = 0.7
"""Share of the texts without a label in which trigrams of values are counted: those with the most certain value."""


def co_train(
    views: Sequence[Float[np.ndarray, "n c"]],
    value: Int[np.ndarray, "n"],
    tokens: Int[np.ndarray, "n l"],
    valid: Bool[np.ndarray, "n l"],
    vocab_size: int,
) -> tuple[Float[np.ndarray, "n c"], TrigramClassifier]:
    """Returns the probability of each value in each text, and a classifier by trigrams.

    `views` are log p of the values by classifiers that were fitted to the labelled texts, `value` is −1 of those
    without a label. There must be two labelled texts of every value. Those have the probability 1 of their own.
    """
    labelled, num_values = value >= 0, views[0].shape[1]
    log_p, factor, bias = mean_log_odds(views), 1.0, np.zeros(num_values)
    for _ in range(NUM_ROUNDS):
        sure, guess = _surest(log_p, labelled), np.where(labelled, value, log_p.argmax(-1))
        left_out = _left_out(tokens, valid, guess, sure, num_values, vocab_size)
        factor, bias = calibrated(left_out[labelled], value[labelled])
        log_p = mean_log_odds([*views, factor * left_out + bias])
    sure, guess = _surest(log_p, labelled), np.where(labelled, value, log_p.argmax(-1))
    of_values = fit_each(tokens[sure], valid[sure], guess[sure], num_values, vocab_size)
    p = np.where(labelled[:, None], np.eye(num_values)[guess], softmax(log_p, axis=-1))
    return p, TrigramClassifier(of_values, factor, bias)


def mean_log_odds(views: Sequence[Float[np.ndarray, "n c"]]) -> Float[np.ndarray, "n c"]:
    """Returns log p of the values with the mean of the log odds of several views."""
    return log_softmax(np.mean([log_softmax(view, axis=-1) for view in views], axis=0), axis=-1)


def _surest(log_p: Float[np.ndarray, "n c"], labelled: Bool[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """The labelled texts, and of the others those with the most certain value."""
    certainty = log_p.max(-1)
    least = np.quantile(certainty[~labelled], 1 - SURE) if not labelled.all() else 0.0
    return labelled | (certainty >= least)


def _left_out(
    tokens: Int[np.ndarray, "n l"],
    valid: Bool[np.ndarray, "n l"],
    guess: Int[np.ndarray, "n"],
    sure: Bool[np.ndarray, "n"],
    num_values: int,
    vocab_size: int,
) -> Float[np.ndarray, "n c"]:
    """log p of each text by the trigrams of each value in the sure texts of the other half."""
    half, log_likelihood = np.arange(len(guess)) % 2, np.zeros((len(guess), num_values))
    half[sure] = fold_ids(guess[sure], 2)
    for number in range(2):
        others, own = sure & (half != number), half == number
        models = fit_each(tokens[others], valid[others], guess[others], num_values, vocab_size)
        log_likelihood[own] = log_likelihoods(models, tokens[own], valid[own])
    return log_likelihood
