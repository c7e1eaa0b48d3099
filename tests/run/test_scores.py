"""Scores that have a known answer."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from jtextdiff.run.scores import _excess
from jtextdiff.text.restaurants import grammar, sentences

TEXTS = [sentence.text for sentence in sentences(40, seed=5)]


def test_what_a_likelihood_lacks_of_the_grammars_own() -> None:
    """A tenth of a nat a token is found as that, and texts that the grammar cannot write are left out."""
    model: Any = SimpleNamespace(num_tokens=lambda texts: [len(text.split()) + 1 for text in texts])
    nats = [0.1 * (len(text.split()) + 1) - grammar().log_prob(text.split()) for text in TEXTS]
    found = _excess(model, [*TEXTS, "not of the grammar"], [*nats, math.inf])["excess_nll"]
    assert found["value"] == pytest.approx(0.1) and found["se"] == pytest.approx(0, abs=1e-9)
    assert found["n"] == len(TEXTS)
    assert _excess(model, ["not of the grammar"] * 3, [1.0] * 3) == {}
