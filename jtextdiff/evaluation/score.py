"""Score: a value with unit, standard error and the same value for real text."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jtextdiff.data.corpus import Corpus
from jtextdiff.inference.model import Model

Score = dict[str, Any]
"""value, unit, se (standard error), n, kind (how it was obtained), real_valid, real_train."""


def real_texts(model: Model, corpus: Corpus, split: str, num: int) -> list[str]:
    """Returns at most `num` different texts, evenly spaced in a split, spelled as the tokenizer decodes them."""
    texts_of = corpus.splits[split]
    return [model.tokenizer.normalize_spacing(text) for text in texts_of.texts(texts_of.evenly_spaced(num))]


def mean_score(values: Sequence[float], unit: str, kind: str) -> Score:
    """Returns the mean over texts, with its standard error."""
    n = len(values)
    return score(float(np.mean(values)), unit, float(np.std(values, ddof=1) / math.sqrt(n)), n, kind)


def score(value: float, unit: str, se: float | None, n: int, kind: str) -> Score:
    """Returns one score of `n` texts."""
    return {"value": value, "unit": unit, "se": se, "n": n, "kind": kind}


def reference(valid: float | None, train: float | None) -> Score:
    """Returns the fields of a score that hold the same value for real text, None where there is none."""
    return {"real_valid": valid, "real_train": train}


def compared_score(
    values: Mapping[str, float], split: str, unit: str, n: int, kind: str, se: float | None = None
) -> Score:
    """Returns the score of the `samples` among `values`, compared with real text of the split and of train."""
    return score(values["samples"], unit, se, n, kind) | reference(values[split], values["train"])
