"""Co-training: texts without a label get the value that their neighbours of all views have."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from jtextdiff.metrics.co_training import SURE, _left_out, _surest, co_train, mean_log_odds
from jtextdiff.metrics.trigram_classifier import log_likelihoods

PAD, EOS, VOCAB, NUM_VALUES = 0, 1, 20, 3
WORDS = np.asarray([[2, 3, 4], [5, 6, 7], [8, 9, 10]])
"""Of each value; other tokens belong to none."""


def world(num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The value of texts, their tokens, and which are valid: of six words three are of their value."""
    rng = np.random.default_rng(seed)
    value = rng.integers(0, NUM_VALUES, num)
    tokens = rng.integers(11, VOCAB, (num, 7))
    for place in range(3):
        tokens[:, 2 * place + 1] = WORDS[value, rng.integers(0, 3, num)]
    tokens[:, -1] = EOS
    return value, tokens, np.ones(tokens.shape, bool)


def weak_view(value: np.ndarray, seed: int) -> np.ndarray:
    """log p of the values, right for about two thirds of the texts."""
    rng = np.random.default_rng(seed)
    return log_softmax(np.eye(NUM_VALUES)[value] + rng.normal(size=(len(value), NUM_VALUES)), axis=-1)


def test_two_weak_views_and_trigrams_label_more_texts_rightly_than_the_views_alone() -> None:
    value, tokens, valid = world(1_500)
    given = np.where(np.arange(1_500) < 60, value, -1)
    views = [weak_view(value, seed) for seed in (1, 2)]
    p, classifier = co_train(views, given, tokens, valid, VOCAB)
    right = lambda p: np.mean(p.argmax(-1)[60:] == value[60:])
    assert right(p) > right(mean_log_odds(views)) + 0.1
    new_value, new_tokens, new_valid = world(500, seed=3)
    by_trigrams = classifier.log_p(log_likelihoods(classifier.of_values, new_tokens, new_valid))
    assert np.mean(by_trigrams.argmax(-1) == new_value) > 0.9


def test_labelled_texts_keep_their_value_and_others_have_a_distribution() -> None:
    value, tokens, valid = world(200)
    given = np.where(np.arange(200) < 30, (value + 1) % NUM_VALUES, -1)  # whatever the views say
    p, _ = co_train([weak_view(value, 1)], given, tokens, valid, VOCAB)
    np.testing.assert_array_equal(p[:30], np.eye(NUM_VALUES)[given[:30]])
    np.testing.assert_allclose(p.sum(-1), 1.0)
    assert np.all(p[30:].max(-1) < 1)


def test_texts_that_all_have_labels_need_no_view() -> None:
    value, tokens, valid = world(300)
    p, classifier = co_train([np.zeros((300, NUM_VALUES))], value, tokens, valid, VOCAB)
    np.testing.assert_array_equal(p, np.eye(NUM_VALUES)[value])
    nll = [classifier.of_values[number].nll(tokens[value == 0], valid[value == 0]).sum() for number in range(3)]
    assert np.argmin(nll) == 0


def test_a_text_is_not_read_by_trigrams_that_were_counted_in_it() -> None:
    """Every text has a word of its own, which would give its value away."""
    num, rng = 40, np.random.default_rng(0)
    value = rng.permutation(np.arange(num) % 2)
    tokens = np.stack([np.arange(num) + 2, np.full(num, EOS)], -1)
    sure = np.ones(num, bool)
    nats = _left_out(tokens, np.ones((num, 2), bool), value, sure, 2, num + 2)
    assert np.all(np.abs(nats[:, 0] - nats[:, 1]) < 0.5)


def test_the_surest_are_the_labelled_and_a_share_of_the_others() -> None:
    p = np.linspace(0.5, 0.99, 101)
    log_p = np.log(np.stack([p, 1 - p], -1))
    labelled = np.arange(101) == 0
    sure = _surest(log_p, labelled)
    assert sure[0] and sure[1:].mean() == pytest.approx(SURE, abs=0.01)
    assert not np.any(sure[1:30]) and np.all(sure[31:])
    assert np.all(_surest(log_p, np.ones(101, bool)))


def test_log_odds_of_views_are_averaged() -> None:
    views = [np.log([[0.2, 0.8]]), np.log([[0.5, 0.5]])]
    odds = np.sqrt((0.8 / 0.2) * 1.0)
    np.testing.assert_allclose(np.exp(mean_log_odds(views)), [[1 / (1 + odds), odds / (1 + odds)]])
    logits = np.random.default_rng(0).normal(size=(4, 3))
    np.testing.assert_allclose(mean_log_odds([logits]), np.log(softmax(logits, axis=-1)))


def test_each_half_has_a_text_of_every_value() -> None:
    """The only two texts of a value are both in even rows."""
    value, tokens, valid = world(100)
    value = np.where(value == 2, 0, value)
    value[[0, 2]] = 2
    nats = _left_out(tokens, valid, value, np.ones(100, bool), NUM_VALUES, VOCAB)
    assert np.all(np.isfinite(nats))
