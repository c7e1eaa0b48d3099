"""Scores of edits towards another label value.

Real texts are edited and compared with copies of them and with their reconstructions. Success is judged by the
grammar's derivations or an n-gram classifier, see `label_judges`; it is not used to choose edits or settings.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jtextdiff.cli.errors import UserError
from jtextdiff.cli.output import progress_bar, say
from jtextdiff.cli.tables import ScoreRow, format_value, output_width, score_table
from jtextdiff.control.controls import classifier
from jtextdiff.control.resolve import resolve
from jtextdiff.data.cache import evenly_spaced
from jtextdiff.data.corpus import Corpus
from jtextdiff.data.grammar.pcfg import Grammar
from jtextdiff.evaluation.label_judges import LabelJudge, derived_labels, grammar_knows, label_judge, likelihood_judge
from jtextdiff.evaluation.likelihood import check_judge, judge_nll, judged_texts
from jtextdiff.evaluation.score import Score, mean_score, score
from jtextdiff.inference.editing.edits import check_edit
from jtextdiff.inference.editing.flow_settings import FlowSettings, flow_as_json
from jtextdiff.inference.editing.latent import STOPS
from jtextdiff.inference.editing.types import Edit
from jtextdiff.inference.model import Model
from jtextdiff.inference.references import read_references
from jtextdiff.methods.method import Conditional, LatentVariableModel
from jtextdiff.metrics.bleu import corpus_bleu
from jtextdiff.run.corpus import label_values

STRENGTHS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
"""Times up to which texts are noised, for a frontier of edits by diffusion."""

MAX_DIRECTIONS = 4
"""Success is also given for each target if there are at most this many."""

INDICATORS = {"sentiment": "customer_rating"}
"""A label of the grammar, and the attribute that may express it and then changes with it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditTask:
    """Texts, the value of the label that each is to have, and reference edits if there are any."""

    label: str
    texts: list[str]
    targets: list[str]
    references: list[str] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditSettings:
    """Settings of the edits, and their judges."""

    flow: FlowSettings | None = None
    strength: float | None = None  # of edits by diffusion
    judge: Model | None = None
    judge_text: str | None = None
    value_judges: dict[str, Model] = dataclasses.field(default_factory=dict)  # of the texts of each value
    split: str = "valid"
    seed: int = 0


def edit_task(corpus: Corpus, split: str, label: str, num: int) -> EditTask:
    """Returns `num` evenly spaced texts that have a value of the label; each is to have the next value.

    The last value is followed by the first. Raises UserError for a label that the text does not have, or has only one
    value of.
    """
    values = [value for value in label_values(corpus, label, "--edits: the text") if value != "none"]
    texts_of = corpus.splits[split]
    if len(values) < 2:
        raise UserError(f"--edits: all texts have the same {label}: there is no other value to edit towards.")
    with_value = np.flatnonzero(np.asarray(texts_of.labels[label]) < len(values))
    rows = evenly_spaced(with_value, num)
    texts = [corpus.tokenizer.normalize_spacing(text) for text in texts_of.texts(rows)]
    targets = [values[(value + 1) % len(values)] for value in np.asarray(texts_of.labels[label][rows])]
    return EditTask(label=label, texts=texts, targets=targets)


def read_edit_task(file: str, model: Model, corpus: Corpus, label: str) -> EditTask:
    """Returns the texts and the edits of a file of --references. Raises UserError as `read_references` does."""
    texts, targets, references = map(
        list, zip(*read_references(file, "--references", model, corpus, label), strict=True)
    )
    return EditTask(label=label, texts=texts, targets=targets, references=references)


def evaluate_edits(
    model: Model, corpus: Corpus, task: EditTask, points: dict[str, EditSettings]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Scores edits by several settings, each with a progress bar and a table, and yields them with their settings.

    The texts themselves (copy) and their reconstructions without a control are scored once, and are in all results. The
    settings differ in how edits are made alone.
    """
    common = next(iter(points.values()))
    for target in dict.fromkeys(task.targets):  # errors in the controls come before any measurement
        conditioning = resolve(classifier(task.label, target), model)
        for settings in points.values():
            check_edit(model.method, conditioning, settings.strength, flow=settings.flow)
    if common.judge is not None:
        check_judge(common.judge, task.texts)
    judge = label_judge(corpus, task.label, common.judge_text, model, common.split)
    say(f"{task.label} is judged by {judge.how}.")
    grammar = corpus.grammar if grammar_knows(corpus, task.label) else None
    judges = {"judge": judge, "grammar": grammar, "text_judge": common.judge}
    if common.value_judges:
        judges["second"] = likelihood_judge(common.value_judges, corpus, task.label, common.split)
    score_texts = functools.partial(edit_scores, task=task, **judges)
    unedited = {"copy": task.texts, "reconstruction": model.edit(task.texts, seed=common.seed)}
    before = {name: score_texts(texts) for name, texts in unedited.items()}
    about = {"method": type(model.method).__name__, "step": model.step}
    about |= {"split": common.split, "seed": common.seed, "label": task.label, "num": len(task.texts)}
    for name, settings in points.items():
        with progress_bar() as bar:
            progress = bar.add_task(f"editing {name}".strip(), total=len(task.texts))
            edits = run_edits(model, task, settings, functools.partial(bar.advance, progress))
        rows = {**before, "edit": score_texts([edit.text for edit in edits]) | _short_of_target(edits)}
        say("\n".join(edit_table(task, rows, output_width(sys.stderr))))
        how = {"flow": flow_as_json(settings.flow)}
        how |= {} if settings.strength is None else {"strength": settings.strength}
        yield name, about | how | {"rows": rows}


def frontier_points(model: Model, label: str, settings: EditSettings) -> dict[str, EditSettings]:
    """Returns settings from those that change texts least to those that change them most, by name.

    In latent space these are probabilities at which latents stop, with diffusion strengths. A model that is conditioned
    on the label has a single point.
    """
    if isinstance(model.method, Conditional) and model.method.condition == label:
        return {"": settings}
    if isinstance(model.method, LatentVariableModel):
        flow = settings.flow or FlowSettings()
        return {
            f"{stop:g}": dataclasses.replace(settings, flow=flow._replace(target_probability=stop)) for stop in STOPS
        }
    return {f"{strength:g}": dataclasses.replace(settings, strength=strength) for strength in STRENGTHS}


def _short_of_target(edits: list[Edit]) -> dict[str, Score]:
    """Returns the shares of edits that end below the target, and of those that were skipped, if there are any."""
    scores = {}
    short = [float(not edit.reached and not edit.skipped_because) for edit in edits]
    if any(short):
        scores["not_reached"] = mean_score(short, "share", "end below the target probability")
    if reasons := dict.fromkeys(edit.skipped_because for edit in edits if edit.skipped_because):
        skipped = [float(bool(edit.skipped_because)) for edit in edits]
        scores["left"] = mean_score(skipped, "share", f"skipped, equal to the source: {'; '.join(reasons)}")
    return scores


def run_edits(model: Model, task: EditTask, settings: EditSettings, progress: Callable[[int], None]) -> list[Edit]:
    """Edits the texts, those with the same target together."""
    edits: dict[int, Edit] = {}
    for target in dict.fromkeys(task.targets):
        rows = [row for row, of_row in enumerate(task.targets) if of_row == target]
        texts, control = [task.texts[row] for row in rows], classifier(task.label, target)
        with_target = model.edit_texts(
            texts,
            control=control,
            strength=settings.strength,
            flow=settings.flow,
            seed=settings.seed,
            ids=rows,
            progress=progress,
        )
        edits |= dict(zip(rows, with_target, strict=True))
    return [edits[row] for row in range(len(task.texts))]


def edit_scores(
    texts: Sequence[str],
    task: EditTask,
    judge: LabelJudge,
    grammar: Grammar | None,
    text_judge: Model | None,
    second: LabelJudge | None = None,
) -> dict[str, Score]:
    """Scores one text per text of the task: success, similarity to its source, and what the judges say."""
    n = len(texts)
    successes = _successes(judge, texts, task)
    copies = [float(text == source) for text, source in zip(texts, task.texts, strict=True)]
    scores = {
        "success": mean_score(successes, "share", judge.how),
        "source_bleu": score(100 * corpus_bleu(texts, task.texts), "0 to 100", None, n, "corpus BLEU-4"),
        "copies": mean_score(copies, "share", "word for word"),
    }
    if second is not None:
        scores["success_by_models"] = mean_score(_successes(second, texts, task), "share", second.how)
    targets = dict.fromkeys(task.targets)
    for target in targets if 1 < len(targets) <= MAX_DIRECTIONS else ():
        of_target = [success for success, other in zip(successes, task.targets, strict=True) if other == target]
        if len(of_target) > 1:
            scores[f"success_to_{target}"] = mean_score(of_target, "share", f"of texts that are to be {target}")
    if task.references is not None:
        bleu = 100 * corpus_bleu(texts, task.references)
        scores["reference_bleu"] = score(bleu, "0 to 100", None, n, "corpus BLEU-4 with others' edits")
    if grammar is not None:
        scores |= _grammar_scores(texts, task, grammar)
    if text_judge is not None:
        judged = judged_texts(text_judge, texts)
        rate, se = judge_nll(text_judge, judged)
        perplexity = float(np.exp(rate))
        scores["perplexity"] = score(perplexity, "per token", perplexity * se, len(judged), "judge")
    return scores


def _successes(judge: LabelJudge, texts: Sequence[str], task: EditTask) -> list[float]:
    """1 for each text that has the value that it is to have, else 0."""
    return [float(value == target) for value, target in zip(judge.label_of(texts), task.targets, strict=True)]


def _grammar_scores(texts: Sequence[str], task: EditTask, grammar: Grammar) -> dict[str, Score]:
    """Returns the share of sentences of the grammar, and of those that keep every other attribute of their source."""
    labels = [_other_labels(grammar, text, task.label) for text in texts]
    source_labels = [_other_labels(grammar, source, task.label) for source in task.texts]
    members = [float(of_text is not None) for of_text in labels]
    unchanged = [
        float(of_text == of_source)
        for of_text, of_source in zip(labels, source_labels, strict=True)
        if of_text is not None
    ]
    scores = {"members": mean_score(members, "share", "of the grammar")}
    if len(unchanged) > 1:
        exception = f" except {INDICATORS[task.label]}" if task.label in INDICATORS else ""
        scores["kept"] = mean_score(unchanged, "share", f"of members: all other attributes{exception} are unchanged")
    return scores


def _other_labels(grammar: Grammar, text: str, label: str) -> dict[str, str] | None:
    """The labels of a sentence of the grammar, without one and the attribute that expresses it."""
    labels = derived_labels(grammar, text)
    if labels is None:
        return None
    return {name: value for name, value in labels.items() if name not in (label, INDICATORS.get(label))}


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
