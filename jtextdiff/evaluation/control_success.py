"""Success of controls, judged without their own classifiers."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jtextdiff.control.controls import TRAINING_FREE, Control
from jtextdiff.control.syntax_match import HOW, syntax_match
from jtextdiff.data.corpus import Corpus
from jtextdiff.data.grammar.constituents import SYNTAX_CONTROLS
from jtextdiff.data.grammar.pcfg import Grammar
from jtextdiff.evaluation.label_judges import LabelJudge, derived_labels
from jtextdiff.evaluation.score import Score, mean_score, reference
from jtextdiff.metrics.units import units

GAP_TEXTS = 5_000
"""Training texts with which samples are compared, given their controls."""

REFERENCE_TEXTS = 500
"""Real texts of each split that are scored for comparison."""


@dataclass(frozen=True)
class ControlChecker:
    """Checks texts against controls: labels by their judges, syntax by the grammar, the rest by words and tokens."""

    corpus: Corpus
    judges: Mapping[str, LabelJudge]  # of each label that a control names

    def satisfied(self, control: Control, text: str) -> float:
        """Returns how far a text satisfies a control, 0 to 1; of several parts, the least satisfied one counts."""
        if control.kind == "is":
            return self._leaf_satisfied(control, text)
        parts = [self.satisfied(part, text) for part in control.parts]
        if control.kind == "any":
            return max(parts)
        return 1 - parts[0] if control.kind == "not" else min(parts)

    def how(self, control: Control) -> str:
        """Returns how success is judged, and how well the judges agree with the labels of real text."""
        names = {leaf.name for leaf in control.leaves()}
        parts = [f"{name} by {self.judges[name].how}" for name in sorted(names & self.judges.keys())]
        if names & {*syntax_controls(self.corpus)}:
            parts.append(HOW)
        return "; ".join(parts) or "words and tokens counted and compared"

    def _leaf_satisfied(self, control: Control, text: str) -> float:
        if control.name in syntax_controls(self.corpus) and self.corpus.grammar is not None:
            return syntax_match(self.corpus.grammar, control.name, control.values[0], units(text))
        if control.name == "length":
            return float(str(len(self.corpus.tokenizer.pieces(text))) in control.values)
        if control.name == "keyword":
            return float(any(_spaced(units(phrase)) in _spaced(units(text)) for phrase in control.values))
        if control.name == "regex":
            pieces = self.corpus.tokenizer.pieces(text)
            return float(any(piece and re.fullmatch(control.values[0], piece) for piece in pieces))
        return float(self.judges[control.name].label_of([text])[0] in control.values)


def _spaced(words: Sequence[str]) -> str:
    """Words with a space before and after each, so that a phrase begins and ends where words do."""
    return f" {' '.join(words)} "


def control_checker(
    corpus: Corpus, controls: Iterable[Control], judge_for: Callable[[str], LabelJudge]
) -> ControlChecker:
    """Returns a checker of these controls; `judge_for` makes the judge of a label, or raises UserError."""
    names = {leaf.name for control in controls for leaf in control.leaves()}
    labels = sorted(names - {*TRAINING_FREE, *syntax_controls(corpus)})
    return ControlChecker(corpus, {label: judge_for(label) for label in labels})


def syntax_controls(corpus: Corpus) -> tuple[str, ...]:
    """Returns the names of controls that the grammar checks; elsewhere a label may have such a name."""
    return () if corpus.grammar is None else SYNTAX_CONTROLS


def control_scores(
    checker: ControlChecker, controls: Sequence[Control | None], samples: Sequence[str], split: str
) -> dict[str, Score]:
    """Returns the scores of those samples that have a control: `control_success`, and the grammar's likelihood gap."""
    pairs = [(control, text) for control, text in zip(controls, samples, strict=True) if control is not None]
    targets, texts = [control for control, _ in pairs], [text for _, text in pairs]
    scores = success(checker, targets, texts, split)
    if checker.corpus.grammar is None:
        return scores
    train = checker.corpus.splits["train"]
    real = train.texts(train.evenly_spaced(GAP_TEXTS))
    return scores | conditional_nll_gap(checker.corpus.grammar, targets, texts, real)


def success(
    checker: ControlChecker, controls: Sequence[Control], samples: Sequence[str], split: str
) -> dict[str, Score]:
    """Returns how far samples satisfy their controls as a whole and in each part, compared with real text.

    If the controls differ, the mean and its standard error are over the different controls.
    """
    sums, splits = [control.as_sum() for control in controls], checker.corpus.splits
    real = {name: splits[name].texts(splits[name].evenly_spaced(REFERENCE_TEXTS)) for name in (split, "train")}
    num_different = len(set(sums))
    scores = {}
    for name, targets in {"control_success": sums, **_targets_by_part(sums)}.items():
        satisfied = [checker.satisfied(target, text) for target, text in zip(targets, samples, strict=True)]
        of_real = {name: _success_of_real_text(checker, targets, texts) for name, texts in real.items()}
        kind = checker.how(targets[0])
        if num_different > 1:
            satisfied, kind = _means_by_control(sums, satisfied), f"{kind}; of {num_different} different targets"
        scores[name] = (
            mean_score(satisfied, "share", kind) | {"n": len(samples)} | reference(of_real[split], of_real["train"])
        )
    return scores


def _targets_by_part(sums: Sequence[Control]) -> dict[str, list[Control]]:
    """The parts at each place by a name; empty unless all controls have several parts with the same names."""
    names = [part.name for part in sums[0].parts]
    if len(names) < 2 or any([part.name for part in control.parts] != names for control in sums):
        return {}
    targets = {}
    for place, part in enumerate(sums[0].parts):
        name = part.name if names.count(part.name) == 1 else f"{part.name} {place + 1}"
        if len(set(sums)) == 1:
            name = str(part)
        targets[f"control_success[{name}]"] = [control.parts[place] for control in sums]
    return targets


def _success_of_real_text(checker: ControlChecker, controls: Sequence[Control], texts: Sequence[str]) -> float:
    """Returns how far real texts satisfy the different controls, which are assigned to the texts cyclically."""
    different = list(dict.fromkeys(controls))
    values = [checker.satisfied(different[place % len(different)], text) for place, text in enumerate(texts)]
    return float(np.mean(values))


def _means_by_control(controls: Sequence[Control], values: Sequence[float]) -> list[float]:
    """The mean value of each of the different controls."""
    values_of: dict[Control, list[float]] = defaultdict(list)
    for control, value in zip(controls, values, strict=True):
        values_of[control].append(value)
    return [float(np.mean(of_control)) for of_control in values_of.values()]


def conditional_nll_gap(
    grammar: Grammar, controls: Sequence[Control], samples: Sequence[str], real: Sequence[str]
) -> dict[str, Score]:
    """Returns the NLL of samples minus that of real texts, nats per text, by p(text | controls) of the grammar.

    The mean over controls, all of which must require single values of the grammar's labels. Only samples that the
    grammar can derive count, and `real` texts with the same labels. Empty with fewer than two such controls.
    """
    targets = [_labels_in(grammar, control) for control in controls]
    if not all(targets):
        return {}
    parsed = [(labels, text) for text in real if (labels := derived_labels(grammar, text)) is not None]
    gaps, num_possible = [], 0
    for target in {tuple(sorted(labels.items())): labels for labels in targets}.values():
        with_target = [text for text, labels in zip(samples, targets, strict=True) if labels == target]
        real_with_target = [text for labels, text in parsed if target.items() <= labels.items()]
        if not real_with_target:
            continue
        nll, real_nll = (
            [-grammar.log_prob(text.split(), target) for text in texts] for texts in (with_target, real_with_target)
        )
        possible = [nats for nats in nll if nats < math.inf]
        if possible:
            gaps.append(float(np.mean(possible) - np.mean(real_nll)))
            num_possible += len(possible)
    if len(gaps) < 2:
        return {}
    kind = f"the grammar's probability given the controls, of {num_possible} samples that it can derive"
    return {"conditional_excess": mean_score(gaps, "nats/text", kind) | {"n": len(gaps)} | reference(0.0, None)}


def _labels_in(grammar: Grammar, control: Control) -> dict[str, str]:
    """The grammar's labels that a control sets to one value; empty if it has any other part."""
    parts = control.as_sum().parts
    plain = all(part.kind == "is" and part.name in grammar.attributes and len(part.values) == 1 for part in parts)
    return {part.name: part.values[0] for part in parts} if plain else {}
