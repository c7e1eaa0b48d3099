"""Scores with a known value."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from jtextdiff.data.grammar.restaurants import grammar, sentences
from jtextdiff.evaluation.diversity import diversity_scores
from jtextdiff.evaluation.likelihood import likelihood_scores, nll_gap
from jtextdiff.metrics.ngrams import unigram_entropy


def test_the_nll_gap_to_the_grammar() -> None:
    """A gap of a tenth of a nat per token is measured, and texts outside the grammar are skipped."""
    texts = [sentence.text for sentence in sentences(40, seed=5)]
    model: Any = SimpleNamespace(num_tokens=lambda texts: [len(text.split()) + 1 for text in texts])
    nats = [0.1 * (len(text.split()) + 1) - grammar().log_prob(text.split()) for text in texts]
    scores = nll_gap(model, grammar(), [*texts, "not of the grammar"], [*nats, math.inf])["excess_nll"]
    assert scores["value"] == pytest.approx(0.1) and scores["se"] == pytest.approx(0, abs=1e-9)
    assert scores["n"] == len(texts)
    assert nll_gap(model, grammar(), ["not of the grammar"] * 3, [1.0] * 3) == {}


def test_texts_of_two_tokens_have_no_trigrams_and_are_scored() -> None:
    scores = diversity_scores({"samples": [(3, 1)] * 4, "valid": [(3, 1), (4, 1)], "train": [(5, 1), (4, 1)]}, "valid")
    assert "distinct_trigrams" not in scores and scores["distinct_bigrams"]["value"] == 0.5


def test_diversity_is_that_of_evenly_spaced_texts() -> None:
    """The front of a sorted split is not representative."""
    rows = [(word, word, word, 1) for word in range(2, 102)]
    scores = diversity_scores({"samples": rows[::25], "valid": rows, "train": rows}, "valid")
    assert scores["unigram_entropy"]["value"] == pytest.approx(scores["unigram_entropy"]["real_valid"])
    front = [rows[0]] * 50 + rows[50:]
    scores = diversity_scores({"samples": rows[::25], "valid": front, "train": rows}, "valid")
    spaced = [front[row] for row in (0, 25, 50, 75)]
    assert scores["unigram_entropy"]["real_valid"] == pytest.approx(unigram_entropy(spaced))


def test_perplexity_of_words_counts_units_and_ends() -> None:
    """Two nats for each of five units, of which one is a Latin word, and the end."""
    model: Any = SimpleNamespace(num_tokens=lambda texts: [1] * len(texts), method=SimpleNamespace(bound="exact"))
    real = {name: ["用iPhone 拍的图", "very good , thanks !"] for name in ("valid", "train")}
    scores = likelihood_scores(model, real, {name: [12.0, 12.0] for name in real}, "valid")
    assert scores["word_perplexity"]["value"] == pytest.approx(math.exp(2))
