"""A judge of n-grams finds what tells values apart, and knows nothing of new words."""

import numpy as np
import pytest

from jtextdiff.metrics.bleu import corpus_bleu
from jtextdiff.metrics.ngram_classifier import learn

GOOD = ["the food is great", "great food", "not bad at all", "i love it", "not bad"]
BAD = ["the food is bad", "bad food", "not great at all", "i hate it", "not great"]
VALUES = np.asarray([1] * 5 + [0] * 5)


def test_values_are_told_by_words_and_by_words_side_by_side() -> None:
    judge = learn(GOOD + BAD, VALUES, 2)
    assert judge.values(GOOD + BAD).tolist() == VALUES.tolist()
    assert judge.values(["not bad food at all", "it is not great"]).tolist() == [1, 0]


def test_probabilities_are_probabilities_and_new_words_tell_what_is_common() -> None:
    judge = learn(GOOD + BAD[:2], VALUES[:7], 2)
    p = np.exp(judge.log_p(["zebra", "great", ""]))
    np.testing.assert_allclose(p.sum(-1), 1.0)
    assert p[0, 1] == p[2, 1] > 0.5 and p[1, 1] > p[0, 1]


def test_bleu_of_a_corpus() -> None:
    """Two of three 1-grams, one of two 2-grams …; counted over all texts at once; Papineni's brevity penalty."""
    assert corpus_bleu(["a b c d e"], ["a b c d e"]) == pytest.approx(1.0)
    assert corpus_bleu(["a b x"], ["a b c"], n=2) == pytest.approx((2 / 3 * 1 / 2) ** 0.5)
    assert corpus_bleu(["a b", "c d e"], ["a b", "c d f"], n=1) == pytest.approx(4 / 5)
    assert corpus_bleu(["a b"], ["a b c d"], n=1) == pytest.approx(np.exp(1 - 4 / 2))
    assert corpus_bleu(["a"], ["b"]) == 0.0
    with pytest.raises(ValueError, match="a reference for each"):
        corpus_bleu(["a"], [])
