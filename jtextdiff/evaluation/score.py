"""Score: a value with unit, standard error and the same value for real text."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jtextdiff.data.corpus import Corpus
from jtextdiff.inference.model import Model

Score = dict[str, Any]
"""value, unit, se (standard error), n, kind (how it was found), real_valid, real_train."""


def evenly(model: Model, corpus: Corpus, split: str, num: int) -> list[str]:
    """At most `num` texts, taken evenly from a split without repeating one, spelled as the tokenizer writes them."""
    of_split = corpus.splits[split]
    return [model.tokenizer.spelled(text) for text in of_split.texts(of_split.evenly(num))]


def _even(rows: list[Any], n: int) -> list[Any]:
    """`n` of the rows, evenly taken."""
    return [rows[i * len(rows) // n] for i in range(n)]


def mean(values: Sequence[float], unit: str, kind: str) -> Score:
    n = len(values)
    return figure(float(np.mean(values)), unit, float(np.std(values, ddof=1) / math.sqrt(n)), n, kind)


def figure(value: float, unit: str, se: float | None, n: int, kind: str) -> Score:
    """One score, of `n` texts."""
    return {"value": value, "unit": unit, "se": se, "n": n, "kind": kind}


def beside(valid: float | None, train: float | None) -> Score:
    return {"real_valid": valid, "real_train": train}
