"""Scores of edits: success, what they keep of their sources, fluency; and the table of them."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from jtextdiff.cli.tables import ScoreRow, format_value, score_table
from jtextdiff.data.grammar.pcfg import Grammar
from jtextdiff.evaluation.editing.tasks import EditTask
from jtextdiff.evaluation.label_judges import LabelJudge, derived_labels
from jtextdiff.evaluation.likelihood import judge_nll, judged_texts
from jtextdiff.evaluation.score import Score, mean_score, score
from jtextdiff.inference.model import Model
from jtextdiff.metrics.bleu import corpus_bleu

MAX_DIRECTIONS = 4
"""Success is also given for each target if there are at most this many."""

INDICATORS = {"sentiment": "customer_rating"}
"""A label of the grammar, and the attribute that may express it and then changes with it."""


class EditJudges(NamedTuple):
    """Who judges edits: each label, and where there are any, all other attributes, the text, and one label again."""

    of_labels: Sequence[LabelJudge]
    grammar: Grammar | None = None
    text_judge: Model | None = None
    second: LabelJudge | None = None


def edit_scores(texts: Sequence[str], task: EditTask, judges: EditJudges) -> dict[str, Score]:
    """Scores one text per text of the task: success, similarity to its source, and what the judges say.

    Of several labels, success is that of all of them at once.
    """
    n = len(texts)
    of_labels = [_has_target(judge, texts, task, at) for at, judge in enumerate(judges.of_labels)]
    copies = [float(text == source) for text, source in zip(texts, task.texts, strict=True)]
    how = "; ".join(dict.fromkeys(judge.how for judge in judges.of_labels))
    successes = functools.reduce(np.logical_and, of_labels)
    scores = {
        "success": _share(successes, how),
        "source_bleu": score(100 * corpus_bleu(texts, task.texts), "0 to 100", None, n, "corpus BLEU-4"),
        "copies": mean_score(copies, "share", "word for word"),
    }
    if judges.second is not None:
        scores["success_by_models"] = _share(_has_target(judges.second, texts, task, 0), judges.second.how)
    if len(task.labels) > 1:
        named = zip(task.labels, of_labels, judges.of_labels, strict=True)
        scores |= {f"success_of_{label}": _share(of_label, judge.how) for label, of_label, judge in named}
    else:
        scores |= _of_directions(successes, task)
    if task.references is not None:
        bleu = 100 * corpus_bleu(texts, task.references)
        scores["reference_bleu"] = score(bleu, "0 to 100", None, n, "corpus BLEU-4 with others' edits")
    if judges.grammar is not None:
        scores |= _grammar_scores(texts, task, judges.grammar)
    if judges.text_judge is not None:
        judged = judged_texts(judges.text_judge, texts)
        rate, se = judge_nll(judges.text_judge, judged)
        perplexity = float(np.exp(rate))
        scores["perplexity"] = score(perplexity, "per token", perplexity * se, len(judged), "judge")
    return scores


def _has_target(judge: LabelJudge, texts: Sequence[str], task: EditTask, at: int) -> Bool[np.ndarray, "n"]:
    """Which texts have the value that they are to have of one of the labels."""
    targets = [target[at] for target in task.targets]
    return np.asarray([value == target for value, target in zip(judge.label_of(texts), targets, strict=True)])


def _share(successes: Bool[np.ndarray, "n"], how: str) -> Score:
    return mean_score(successes.astype(float).tolist(), "share", how)


def _of_directions(successes: Bool[np.ndarray, "n"], task: EditTask) -> dict[str, Score]:
    """Success for each value that texts are to have, unless there are many."""
    targets = dict.fromkeys(value for (value,) in task.targets)
    scores = {}
    for target in targets if 1 < len(targets) <= MAX_DIRECTIONS else ():
        of_target = successes[[value == target for (value,) in task.targets]]
        if len(of_target) > 1:
            scores[f"success_to_{target}"] = _share(of_target, f"of texts that are to be {target}")
    return scores


def _grammar_scores(texts: Sequence[str], task: EditTask, grammar: Grammar) -> dict[str, Score]:
    """Returns the share of sentences of the grammar, and of those that keep every other attribute of their source."""
    labels = [_other_labels(grammar, text, task.labels) for text in texts]
    source_labels = [_other_labels(grammar, source, task.labels) for source in task.texts]
    members = [float(of_text is not None) for of_text in labels]
    unchanged = [
        float(of_text == of_source)
        for of_text, of_source in zip(labels, source_labels, strict=True)
        if of_text is not None
    ]
    scores = {"members": mean_score(members, "share", "of the grammar")}
    if len(unchanged) > 1:
        indicators = [INDICATORS[label] for label in task.labels if label in INDICATORS]
        exception = f" except {', '.join(indicators)}" if indicators else ""
        scores["kept"] = mean_score(unchanged, "share", f"of members: all other attributes{exception} are unchanged")
    return scores


def _other_labels(grammar: Grammar, text: str, changed: Sequence[str]) -> dict[str, str] | None:
    """The labels of a sentence of the grammar, without those that change and the attributes that express them."""
    labels = derived_labels(grammar, text)
    if labels is None:
        return None
    left_out = {*changed, *(INDICATORS[label] for label in changed if label in INDICATORS)}
    return {name: value for name, value in labels.items() if name not in left_out}


def edit_table(task: EditTask, rows: dict[str, dict[str, Score]], width: int) -> list[str]:
    """Returns the lines of a table with a row per score and a column per row of scores."""
    title = f"{len(task.texts)} texts, {task.label} to be changed (copy: the texts; reconstruction: without a control)"
    names = dict.fromkeys(name for scores in rows.values() for name in scores)
    lines = []
    for name in names:
        cells = [
            format_value(scores[name]["value"], scores[name]["se"]) if name in scores else ""
            for scores in rows.values()
        ]
        first = next(scores[name] for scores in rows.values() if name in scores)
        lines.append(ScoreRow(name, cells, first["unit"], first["kind"]))
    return score_table(title, [*rows], lines, width)
