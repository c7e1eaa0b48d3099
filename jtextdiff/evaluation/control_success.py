"""Success: whether texts are what a control asked for, by rules that have not seen the control's classifier."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import RULES, Control
from jtextdiff.data.corpus import Corpus
from jtextdiff.data.grammar.constituents import SYNTAX
from jtextdiff.data.grammar.restaurants import grammar
from jtextdiff.evaluation.label_judges import Values
from jtextdiff.evaluation.score import Score, beside, mean
from jtextdiff.evaluation.syntax_match import HOW, met
from jtextdiff.metrics.phrase_classifier import Telling, learn

KNOWN = 5_000
"""Training texts that samples are held against, given what was asked of them."""

AGREED = 500
"""Texts of the split on which a rule's agreement with their labels is looked at."""


def followed(
    rules: "Rules", controls: Sequence[Control | None], samples: Sequence[str], split: str
) -> dict[str, Score]:
    """What the samples that were asked for something are worth: `success`, and the grammar's `conditional_excess`."""
    asked = [(control, text) for control, text in zip(controls, samples, strict=True) if control is not None]
    wanted, texts = [control for control, _ in asked], [text for _, text in asked]
    scores = success(rules, wanted, texts, split)
    if not rules.corpus.is_grammar:
        return scores
    train = rules.corpus.splits["train"]
    return scores | conditional_excess(wanted, texts, train.texts(train.evenly(KNOWN)))


def success(rules: "Rules", controls: Sequence[Control], samples: Sequence[str], split: str) -> dict[str, Score]:
    """How far samples are all that was asked of each, and of each part; beside it the same of real text.

    A mean over the different controls, whose standard error it has if there are several.
    """
    wanted, splits = [control.as_sum() for control in controls], rules.corpus.splits
    real = {name: splits[name].texts(splits[name].evenly(AGREED)) for name in (split, "train")}
    first, one = wanted[0], len(set(wanted)) == 1
    asked = {"control_success": wanted}
    names = [part.name for part in first.parts]
    if len(names) > 1 and all([part.name for part in each.parts] == names for each in wanted):
        for place, part in enumerate(first.parts):
            name = str(part) if one else part.name if names.count(part.name) == 1 else f"{part.name} {place + 1}"
            asked[f"control_success[{name}]"] = [each.parts[place] for each in wanted]
    scores = {}
    for name, of_each in asked.items():
        met = [rules.met(part, text) for part, text in zip(of_each, samples, strict=True)]
        real_met = lambda texts, of_each=of_each: float(np.mean(_with_texts(rules, of_each, texts)))
        kind = rules.kind(of_each[0], split) + ("" if one else f"; of {len(set(wanted))} different targets")
        score = mean(met if one else _by_target(wanted, met), "share", kind)
        scores[name] = score | {"n": len(samples)} | beside(*(real_met(texts) for texts in real.values()))
    return scores


def conditional_excess(controls: Sequence[Control], samples: Sequence[str], real: Sequence[str]) -> dict[str, Score]:
    """Nats a text that samples are less likely than real texts are, under the grammar's own law given what was asked.

    In the mean over the targets, all of them labels that a text has one value of; of those samples that the grammar
    could have written and that have it, and of `real` texts that have it. Empty where that is too few.
    """
    fields = [_fields(control) for control in controls]
    if any(not of_one for of_one in fields):
        return {}
    known = [(member, text) for text in real if (member := grammar().parse(text.split())) is not None]
    apart, counted = [], 0
    for wanted in {tuple(sorted(of_one.items())): of_one for of_one in fields}.values():
        mine = [text for text, of_one in zip(samples, fields, strict=True) if of_one == wanted]
        theirs = [text for member, text in known if wanted.items() <= member.fields.items()]
        if not theirs:
            continue
        nats = [[-grammar().log_prob(text.split(), wanted) for text in texts] for texts in (mine, theirs)]
        good = [nat for nat in nats[0] if nat < math.inf]
        if good:
            apart.append(float(np.mean(good) - np.mean(nats[1])))
            counted += len(good)
    if len(apart) < 2:
        return {}
    kind = f"the grammar's law given the controls, of {counted} samples that it holds possible"
    return {"conditional_excess": mean(apart, "nats/text", kind) | {"n": len(apart)} | beside(0.0, None)}


def _fields(control: Control) -> dict[str, str]:
    """What a control asks of the grammar's attributes; empty if it asks for anything else."""
    parts = control.as_sum().parts
    plain = all(part.kind == "is" and part.name in grammar().attributes and len(part.values) == 1 for part in parts)
    return {part.name: part.values[0] for part in parts} if plain else {}


def _by_target(controls: Sequence[Control], met: Sequence[float]) -> list[float]:
    """The mean of each of the different controls."""
    of: dict[Control, list[float]] = defaultdict(list)
    for control, value in zip(controls, met, strict=True):
        of[control].append(value)
    return [float(np.mean(values)) for values in of.values()]


def _with_texts(rules: "Rules", controls: Sequence[Control], texts: Sequence[str]) -> list[float]:
    """How far texts that were not asked are what the controls ask for, each text with one of them in turn."""
    different = list(dict.fromkeys(controls))
    return [rules.met(different[place % len(different)], text) for place, text in enumerate(texts)]


class Rules:
    """What a label's value is in a text: of the grammar's members by their derivation, of others by telling phrases, or
    by the verdict that `judged` finds for a label, with how it is found."""

    def __init__(
        self,
        corpus: Corpus,
        controls: Sequence[Control],
        judged: Callable[[str], tuple[Values, str]] | None = None,
    ):
        """Raises UserError for a control of a label that the text does not have."""
        self.syntax = SYNTAX if corpus.is_grammar else ()
        names = sorted(set().union(*map(_labels, controls)) - {*self.syntax})
        self.corpus, self.telling = corpus, {} if judged else {name: _telling(corpus, name) for name in names}
        self.verdicts = {name: judged(name) for name in names} if judged else {}

    def met(self, control: Control, text: str) -> float:
        """How far a text is what a control asks for, 0 to 1: all of it as far as the part that is met least."""
        if control.kind == "is":
            words = text.split()
            if control.name in self.syntax:
                return met(control.name, control.values[0], words)
            rule = {"length": _has_length, "keyword": _has_phrase, "regex": _has_match}.get(control.name)
            return float(self.value(control.name, text) in control.values if rule is None else rule(control, words))
        parts = [self.met(part, text) for part in control.parts]
        return max(parts) if control.kind == "any" else 1 - parts[0] if control.kind == "not" else min(parts)

    def value(self, label: str, text: str) -> str | None:
        """The value that a text has; None if it contradicts itself."""
        if label in self.verdicts:
            return self.verdicts[label][0]([text])[0]
        if self.corpus.is_grammar and label in grammar().attributes:
            member = grammar().parse(text.split())
            if member is not None:
                return member.fields[label]
        return self.telling[label].value(text.split())

    def kind(self, control: Control, split: str) -> str:
        """How success is judged, and how well that agrees with the labels of real text."""
        labels = sorted(_labels(control) - {*self.syntax})
        syntax = any(leaf.name in self.syntax for leaf in control.leaves())
        if not labels:
            return HOW if syntax else "words counted and compared"
        if self.verdicts:
            return "; ".join(f"{label} by {self.verdicts[label][1]}" for label in labels) + f"; {HOW}" * syntax
        rates = ", ".join(f"{label} {self._agreement(label, split):.1%}" for label in labels)
        return f"telling phrases of train; they agree with the labels of {split}: {rates}" + f"; {HOW}" * syntax

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
    return {leaf.name for leaf in control.leaves()} - {*RULES}


def _has_length(control: Control, words: Sequence[str]) -> bool:
    return str(len(words)) in control.values


def _has_phrase(control: Control, words: Sequence[str]) -> bool:
    return any(f" {phrase} " in f" {' '.join(words)} " for phrase in control.values)


def _has_match(control: Control, words: Sequence[str]) -> bool:
    return any(re.fullmatch(control.values[0], word) for word in words)
