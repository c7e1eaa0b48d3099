"""Laws of the counting of words."""

import math

import pytest

from jtextdiff.text.metrics import copies, distinct_ngrams, unigram_entropy


def test_entropy_of_equal_words_is_log_of_their_number():
    assert unigram_entropy(["a b", "c d"]) == pytest.approx(math.log(4))
    assert unigram_entropy(["a a a"]) == pytest.approx(0.0)
    assert unigram_entropy([[1, 1, 2, 3]]) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4))


def test_strings_and_their_words_count_alike():
    texts = ["the Mill is cheap .", "the Mill"]
    split = [text.split() for text in texts]
    assert unigram_entropy(texts) == unigram_entropy(split)
    assert distinct_ngrams(texts, 2) == distinct_ngrams(split, 2)
    assert copies(texts, split[1:]) == 0.5


def test_distinct_ngrams_stay_within_texts():
    assert distinct_ngrams(["a b a b"], 2) == pytest.approx(2 / 3)
    assert distinct_ngrams(["a b", "b a"], 2) == 1.0  # "b b" would run across the two
    assert distinct_ngrams(["a a", "a a"], 1) == 0.25


def test_copies_is_the_share_found_in_train():
    assert copies(["a b", "b  a", "a"], ["b a", "c"]) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (lambda: unigram_entropy([""]), "no word"),
        (lambda: distinct_ngrams(["a"], 2), "no 2-gram"),
        (lambda: distinct_ngrams(["a"], 0), "at least 1"),
        (lambda: copies([], ["a"]), "no texts"),
    ],
)
def test_nothing_to_count_is_refused(count, message):
    with pytest.raises(ValueError, match=message):
        count()
