"""Measures that have a known answer."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from jtextdiff.data.grammar.restaurants import grammar, sentences
from jtextdiff.evaluation.diversity import variety
from jtextdiff.evaluation.likelihood import excess
from jtextdiff.metrics.ngrams import unigram_entropy

TEXTS = [sentence.text for sentence in sentences(40, seed=5)]


def test_what_a_likelihood_lacks_of_the_grammars_own() -> None:
    """A tenth of a nat a token is found as that, and texts that the grammar cannot write are left out."""
    model: Any = SimpleNamespace(num_tokens=lambda texts: [len(text.split()) + 1 for text in texts])
    nats = [0.1 * (len(text.split()) + 1) - grammar().log_prob(text.split()) for text in TEXTS]
    found = excess(model, [*TEXTS, "not of the grammar"], [*nats, math.inf])["excess_nll"]
    assert found["value"] == pytest.approx(0.1) and found["se"] == pytest.approx(0, abs=1e-9)
    assert found["n"] == len(TEXTS)
    assert excess(model, ["not of the grammar"] * 3, [1.0] * 3) == {}


def test_the_shortest_of_texts_have_no_trigrams_and_are_scored() -> None:
    found = variety({"samples": [(3, 1)] * 4, "valid": [(3, 1), (4, 1)], "train": [(5, 1), (4, 1)]}, "valid")
    assert "distinct_trigrams" not in found and found["distinct_bigrams"]["value"] == 0.5


def test_variety_is_of_texts_evenly_taken() -> None:
    """Of a sorted split the front is not the whole."""
    rows = [(word, word, word, 1) for word in range(2, 102)]
    found = variety({"samples": rows[::25], "valid": rows, "train": rows}, "valid")
    assert found["unigram_entropy"]["value"] == pytest.approx(found["unigram_entropy"]["real_valid"])
    front = [rows[0]] * 50 + rows[50:]
    found = variety({"samples": rows[::25], "valid": front, "train": rows}, "valid")
    taken = [front[row] for row in (0, 25, 50, 75)]
    assert found["unigram_entropy"]["real_valid"] == pytest.approx(unigram_entropy(taken))
