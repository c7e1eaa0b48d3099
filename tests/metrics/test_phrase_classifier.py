"""Phrases that occur with one value only recover the label of a text, or find that it contradicts itself."""

import functools

import numpy as np
import pytest

from jtextdiff.data.grammar.restaurants import grammar, sentences
from jtextdiff.metrics.phrase_classifier import fit

draw = functools.cache(sentences)


@pytest.mark.parametrize("label", sorted(set(grammar().attributes) - {"sentiment"}))
def test_it_agrees_with_the_grammar(label: str) -> None:
    train = draw(4_000, seed=0)
    classifier = fit([sentence.words for sentence in train], [sentence.fields[label] for sentence in train])
    agrees = [classifier.value(sentence.words) == sentence.fields[label] for sentence in draw(500, seed=7)]
    assert np.mean(agrees) >= 0.99


def test_a_text_with_phrases_of_two_values_has_none_and_one_without_has_the_default() -> None:
    texts = ["it serves sushi today", "it serves curry today", "it is open today"] * 6
    classifier = fit([text.split() for text in texts], ["Japanese", "Indian", "none"] * 6)
    assert classifier.default == "none"
    assert classifier.value(["a", "place", "for", "sushi"]) == "Japanese"
    assert classifier.value(["sushi", "and", "curry"]) is None
    assert classifier.value(["a", "place"]) == "none"


def test_rare_phrases_are_no_evidence() -> None:
    texts = ["it serves sushi"] * 4 + ["it serves food"] * 9
    classifier = fit([text.split() for text in texts], ["Japanese"] * 4 + ["none"] * 9)
    assert classifier.value(["sushi"]) == "none"
