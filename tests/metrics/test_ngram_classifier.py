"""NB-SVM separates values by their n-grams, and falls back to the frequent value for unknown words."""

import numpy as np

from jtextdiff.metrics.ngram_classifier import fit

GOOD = ["the food is great", "great food", "not bad at all", "i love it", "not bad"]
BAD = ["the food is bad", "bad food", "not great at all", "i hate it", "not great"]
VALUES = np.asarray([1] * 5 + [0] * 5)


def test_values_follow_from_words_and_from_neighbouring_words() -> None:
    classifier = fit(GOOD + BAD, VALUES, 2)
    assert classifier.values(GOOD + BAD).tolist() == VALUES.tolist()
    assert classifier.values(["not bad food at all", "it is not great"]).tolist() == [1, 0]


def test_probabilities_sum_to_one_and_unknown_words_get_the_frequent_value() -> None:
    classifier = fit(GOOD + BAD[:2], VALUES[:7], 2)
    p = np.exp(classifier.log_p(["zebra", "great", ""]))
    np.testing.assert_allclose(p.sum(-1), 1.0)
    assert p[0, 1] == p[2, 1] > 0.5 and p[1, 1] > p[0, 1]


def test_chinese_is_judged_by_its_characters() -> None:
    """No review is the same as another, so that as one word each would be unknown."""
    good, bad = [f"{noun}很好吃" for noun in "米面饭菜肉"], [f"{noun}太难吃" for noun in "米面饭菜肉"]
    assert fit(good + bad, VALUES, 2).values(["鱼很好吃，", "鱼太难吃。"]).tolist() == [1, 0]
