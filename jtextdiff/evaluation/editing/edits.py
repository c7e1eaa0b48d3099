"""Editing real texts towards other values of labels, and scoring the edits.

Real texts are edited and compared with copies of them and with their reconstructions. Success is judged by the
grammar's derivations or an n-gram classifier, see `label_judges`; it is not used to choose edits or settings.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

from jtextdiff.cli.output import progress_bar, say
from jtextdiff.cli.tables import output_width
from jtextdiff.control.resolve import resolve
from jtextdiff.data.corpus import Corpus
from jtextdiff.evaluation.editing.scores import EditJudges, edit_scores, edit_table
from jtextdiff.evaluation.editing.tasks import EditTask
from jtextdiff.evaluation.label_judges import grammar_knows, label_judge, likelihood_judge
from jtextdiff.evaluation.likelihood import check_judge
from jtextdiff.evaluation.score import Score, mean_score
from jtextdiff.inference.editing.edits import check_edit
from jtextdiff.inference.editing.flow_settings import FlowSettings, flow_as_json
from jtextdiff.inference.editing.types import Edit
from jtextdiff.inference.model import Model


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


def evaluate_edits(
    model: Model, corpus: Corpus, task: EditTask, points: dict[str, EditSettings]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Scores edits by several settings, each with a progress bar and a table, and yields them with their settings.

    The texts themselves (copy) and their reconstructions without a control are scored once, and are in all results. The
    settings differ in how edits are made alone.
    """
    common = next(iter(points.values()))
    for target in dict.fromkeys(task.targets):  # errors in the controls come before any measurement
        conditioning = resolve(task.control(target), model)
        for settings in points.values():
            check_edit(model.method, conditioning, settings.strength, flow=settings.flow)
    score_texts = functools.partial(edit_scores, task=task, judges=edit_judges(model, corpus, task, common))
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


def edit_judges(model: Model, corpus: Corpus, task: EditTask, settings: EditSettings) -> EditJudges:
    """Returns the judges of a task, and says how each label is judged."""
    if settings.judge is not None:
        check_judge(settings.judge, task.texts)
    of_labels = [label_judge(corpus, label, settings.judge_text, model, settings.split) for label in task.labels]
    for label, judge in zip(task.labels, of_labels, strict=True):
        say(f"{label} is judged by {judge.how}.")
    second = None
    if settings.value_judges:
        second = likelihood_judge(settings.value_judges, corpus, task.label, settings.split)
    grammar = corpus.grammar if all(grammar_knows(corpus, label) for label in task.labels) else None
    return EditJudges(of_labels, grammar=grammar, text_judge=settings.judge, second=second)


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
        texts, control = [task.texts[row] for row in rows], task.control(target)
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
