"""BLEU and n-gram counts against values by hand."""

import math

import pytest

from jtextdiff.metrics.bleu import corpus_bleu, self_bleu, sentence_bleu
from jtextdiff.metrics.ngrams import distinct_ngrams, share_copied, unigram_entropy


def test_entropy_of_equal_words_is_log_of_their_number():
    assert unigram_entropy(["a b", "c d"]) == pytest.approx(math.log(4))
    assert unigram_entropy(["a a a"]) == pytest.approx(0.0)
    assert unigram_entropy([[1, 1, 2, 3]]) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4))


def test_strings_and_lists_of_words_give_equal_counts():
    texts = ["the Mill is cheap .", "the Mill"]
    split = [text.split() for text in texts]
    assert unigram_entropy(texts) == unigram_entropy(split)
    assert distinct_ngrams(texts, 2) == distinct_ngrams(split, 2)
    assert share_copied(texts, split[1:]) == 0.5


def test_distinct_ngrams_stay_within_texts():
    assert distinct_ngrams(["a b a b"], 2) == pytest.approx(2 / 3)
    assert distinct_ngrams(["a b", "b a"], 2) == 1.0  # "b b" would run across the two
    assert distinct_ngrams(["a a", "a a"], 1) == 0.25


def test_copies_is_the_share_found_in_train():
    assert share_copied(["a b", "b  a", "a"], ["b a", "c"]) == pytest.approx(1 / 3)


def test_self_bleu_is_one_for_copies_and_small_for_unrelated_texts():
    assert self_bleu(["a b c d e"] * 3) == pytest.approx(1.0)
    assert self_bleu(["a b c d e", "f g h i j", "k l m n o"]) < 0.05
    # "a b c d" against "a b c e": 3 of 4 words, 2 of 3 pairs, 1 of 2 triples, .1 of 1 quadruple, both texts alike
    by_hand = (3 / 4 * 2 / 3 * 1 / 2 * 0.1) ** 0.25
    assert self_bleu(["a b c d", "a b c e"]) == pytest.approx(by_hand)
    # a repeated word counts at most as often as in another text
    assert self_bleu(["a a", "a b"], n=1) == pytest.approx((1 / 2 + 1 / 2) / 2)


def test_self_bleu_penalises_texts_shorter_than_all_others():
    short = math.exp(1 - 4 / 2) * 1.0
    assert self_bleu(["a b", "a b c d"], n=1) == pytest.approx((short + 2 / 4) / 2)


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (lambda: unigram_entropy([""]), "no word"),
        (lambda: distinct_ngrams(["a"], 2), "no 2-gram"),
        (lambda: distinct_ngrams(["a"], 0), "at least 1"),
        (lambda: share_copied([], ["a"]), "no texts"),
        (lambda: self_bleu(["a"]), "at least two"),
    ],
)
def test_nothing_to_count_is_refused(count, message):
    with pytest.raises(ValueError, match=message):
        count()


def test_bleu_of_a_text_is_one_for_itself_and_falls_with_every_changed_word():
    reference = "the mill is a cheap pub near the river"
    texts = [reference, "the mill is a cheap pub near the sea", "a river", "no"]
    values = [sentence_bleu(text, reference) for text in texts]
    assert values[0] == pytest.approx(1.0) and values == sorted(values, reverse=True) and values[-1] == 0.0
    # One word of four is right, 2-grams 1/4, 3-grams 1/3, 4-grams 1/2 with what is added; brevity e^(1 - 9/4).
    expected = math.exp(1 - 9 / 4 + math.log(1 / 4 * 1 / 4 * 1 / 3 * 1 / 2) / 4)
    assert sentence_bleu("the x y z", reference) == pytest.approx(expected)
    # A word matches as often as it is in the reference: 1/4, then 1/4, 1/3 and 1/2 of what is added.
    assert sentence_bleu("a a a a", "a b c d") == pytest.approx((1 / 4 * 1 / 4 * 1 / 3 * 1 / 2) ** (1 / 4))


def test_bleu_of_a_corpus() -> None:
    """Two of three 1-grams, one of two 2-grams …; counted over all texts at once; Papineni's brevity penalty."""
    assert corpus_bleu(["a b c d e"], ["a b c d e"]) == pytest.approx(1.0)
    assert corpus_bleu(["a b x"], ["a b c"], n=2) == pytest.approx((2 / 3 * 1 / 2) ** 0.5)
    assert corpus_bleu(["a b", "c d e"], ["a b", "c d f"], n=1) == pytest.approx(4 / 5)
    assert corpus_bleu(["a b"], ["a b c d"], n=1) == pytest.approx(math.exp(1 - 4 / 2))
    assert corpus_bleu(["a"], ["b"]) == 0.0
    with pytest.raises(ValueError, match="a reference for each"):
        corpus_bleu(["a"], [])
