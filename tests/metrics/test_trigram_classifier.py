"""A classifier by trigrams is Bayes' rule, and is stored in a file."""

from pathlib import Path

import numpy as np
import pytest

from jtextdiff.metrics import trigrams
from jtextdiff.metrics.trigram_classifier import TrigramClassifier, fit_each, load, log_likelihoods, save

VOCAB, EOS = 8, 1
TOKENS = np.asarray([[2, 3, 4, EOS], [2, 3, EOS, 0], [5, 3, 4, EOS], [6, EOS, 0, 0], [6, 6, EOS, 0]])
VALID = TOKENS > 0
VALUE = np.asarray([0, 0, 1, 2, 2])


@pytest.fixture(scope="module")
def classifier() -> TrigramClassifier:
    return TrigramClassifier(fit_each(TOKENS, VALID, VALUE, 3, VOCAB), 0.5, np.asarray([0.0, 0.3, -0.2]))


def test_each_value_has_the_trigrams_of_its_texts(classifier: TrigramClassifier) -> None:
    for number, of_value in enumerate(classifier.of_values):
        alone = trigrams.fit(TOKENS[number == VALUE], VALID[number == VALUE], VOCAB)
        np.testing.assert_allclose(of_value.nll(TOKENS, VALID), alone.nll(TOKENS, VALID))


def test_values_have_the_scaled_log_likelihoods_as_logits(classifier: TrigramClassifier) -> None:
    nats = log_likelihoods(classifier.of_values, TOKENS, VALID)
    log_p = classifier.log_p(nats)
    np.testing.assert_allclose(np.exp(log_p).sum(-1), 1.0)
    odds = 0.5 * (nats[:, 1] - nats[:, 0]) + 0.3
    np.testing.assert_allclose(log_p[:, 1] - log_p[:, 0], odds)
    np.testing.assert_array_equal(log_p.argmax(-1), VALUE)


def test_a_file_holds_the_classifier(classifier: TrigramClassifier, tmp_path: Path) -> None:
    save(classifier, tmp_path / "trigrams.npz")
    again = load(tmp_path / "trigrams.npz", 3, VOCAB)
    assert again is not None
    nats = log_likelihoods(classifier.of_values, TOKENS, VALID)
    np.testing.assert_allclose(log_likelihoods(again.of_values, TOKENS, VALID), nats, rtol=1e-6)
    np.testing.assert_allclose(again.log_p(nats), classifier.log_p(nats))
    with pytest.raises(ValueError, match="trigrams of 3 values; expected 2"):
        load(tmp_path / "trigrams.npz", 2, VOCAB)
    with pytest.raises(ValueError, match=f"trigrams of {VOCAB} tokens; expected those of 9"):
        load(tmp_path / "trigrams.npz", 3, 9)


def test_a_file_from_before_there_were_trigrams_of_values_has_none(tmp_path: Path) -> None:
    with (tmp_path / "trigrams.npz").open("wb") as out:
        np.savez_compressed(out, *trigrams.fit(TOKENS, VALID, VOCAB).arrays())
    assert load(tmp_path / "trigrams.npz", 3, VOCAB) is None
