"""Telling phrases say of a text what its label says, and know when it contradicts itself."""

import numpy as np
import pytest

from jtextdiff.data.grammar.restaurants import grammar, sentences
from jtextdiff.metrics.phrase_classifier import learn

TRAIN, FRESH = sentences(8_000, seed=0), sentences(500, seed=7)


@pytest.mark.parametrize("label", sorted(set(grammar().attributes) - {"sentiment"}))
def test_they_agree_with_the_grammar(label: str) -> None:
    telling = learn([made.words for made in TRAIN], [made.fields[label] for made in TRAIN])
    found = [telling.value(made.words) == made.fields[label] for made in FRESH]
    assert np.mean(found) >= 0.99


def test_a_text_that_tells_two_values_has_none_and_one_that_tells_nothing_is_silent() -> None:
    texts = ["it serves sushi today", "it serves curry today", "it is open today"] * 6
    telling = learn([text.split() for text in texts], ["Japanese", "Indian", "none"] * 6)
    assert telling.silent == "none"
    assert telling.value(["a", "place", "for", "sushi"]) == "Japanese"
    assert telling.value(["sushi", "and", "curry"]) is None
    assert telling.value(["a", "place"]) == "none"


def test_what_is_seldom_seen_tells_nothing() -> None:
    texts = ["it serves sushi"] * 4 + ["it serves food"] * 9
    telling = learn([text.split() for text in texts], ["Japanese"] * 4 + ["none"] * 9)
    assert telling.value(["sushi"]) == "none"
