"""Success: whether texts are what a control asked for, by rules that have not seen the control's classifier."""

import math
import re
from collections.abc import Sequence

import numpy as np

from jtextdiff.run.command import UserError
from jtextdiff.run.controls import RULES, Control
from jtextdiff.run.measures import Score, beside, mean
from jtextdiff.text.corpora import Corpus
from jtextdiff.text.restaurants import grammar
from jtextdiff.text.telling import Telling, learn

AGREED = 500
"""Texts of the split on which a rule's agreement with their labels is looked at."""


def success(rules: "Rules", control: Control, samples: Sequence[str], split: str) -> dict[str, Score]:
    """The share of samples that are all that was asked for, and of each part. Beside it: how often real text is."""
    splits = rules.corpus.splits
    real = {name: splits[name].texts(splits[name].evenly(AGREED)) for name in (split, "train")}
    whole = control.as_sum()
    parts = {"control_success": whole}
    if len(whole.parts) > 1:
        parts |= {f"control_success[{part}]": part for part in whole.parts}
    scores = {}
    for name, part in parts.items():
        rate = lambda texts, part=part: [float(rules.holds(part, text)) for text in texts]
        of_real = (float(np.mean(rate(texts))) for texts in real.values())
        scores[name] = mean(rate(samples), "share", rules.kind(part, split)) | beside(*of_real)
    return scores


class Rules:
    """What a label's value is in a text: of the grammar's members by their derivation, of others by telling phrases."""

    def __init__(self, corpus: Corpus, control: Control):
        """Raises UserError for a control of a label that the text does not have."""
        self.corpus, self.telling = corpus, {name: _telling(corpus, name) for name in _labels(control)}

    def holds(self, control: Control, text: str) -> bool:
        """Whether a text is what a control asks for."""
        if control.kind == "is":
            rule = {"length": _has_length, "keyword": _has_phrase, "regex": _has_match}.get(control.name)
            return self.value(control.name, text) in control.values if rule is None else rule(control, text.split())
        parts = [self.holds(part, text) for part in control.parts]
        return any(parts) if control.kind == "any" else not parts[0] if control.kind == "not" else all(parts)

    def value(self, label: str, text: str) -> str | None:
        """The value that a text has; None if it contradicts itself."""
        if self.corpus.is_grammar and label in grammar().attributes:
            member = grammar().parse(text.split())
            if member is not None:
                return member.fields[label]
        return self.telling[label].value(text.split())

    def kind(self, control: Control, split: str) -> str:
        """How success is judged, and how well that agrees with the labels of real text."""
        labels = sorted(_labels(control))
        if not labels:
            return "words counted and compared"
        rates = ", ".join(f"{label} {self._agreement(label, split):.1%}" for label in labels)
        return f"telling phrases of train; they agree with the labels of {split}: {rates}"

    def _agreement(self, label: str, split: str) -> float:
        of_split = self.corpus.splits[split]
        rows = of_split.evenly(AGREED)
        truth = [self.corpus.label_values[label][value] for value in of_split.labels[label][rows]]
        found = [self.telling[label].value(text.split()) for text in of_split.texts(rows)]
        return float(np.mean([one == other for one, other in zip(found, truth, strict=True)])) if truth else math.nan


def _telling(corpus: Corpus, label: str) -> Telling:
    if label not in corpus.label_values:
        there = ", ".join(sorted(corpus.label_values)) or "none"
        raise UserError(f"Success cannot be judged: the base's text has no label {label!r}; it has: {there}.")
    train = corpus.splits["train"]
    values = [corpus.label_values[label][value] for value in train.labels[label]]
    return learn([text.split() for text in train.texts()], values)


def _labels(control: Control) -> set[str]:
    return {leaf.name for leaf in control.leaves()} - set(RULES)


def _has_length(control: Control, words: Sequence[str]) -> bool:
    return str(len(words)) in control.values


def _has_phrase(control: Control, words: Sequence[str]) -> bool:
    return any(f" {phrase} " in f" {' '.join(words)} " for phrase in control.values)


def _has_match(control: Control, words: Sequence[str]) -> bool:
    return any(re.fullmatch(control.values[0], word) for word in words)
