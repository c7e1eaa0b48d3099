"""Several scores of edits in one table, and their success where they are equally close to their sources."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jtextdiff.cli.errors import UserError
from jtextdiff.cli.tables import format_value, markdown_table
from jtextdiff.evaluation.comparison import is_score, methods_of
from jtextdiff.metrics.interpolation import Point, value_at

EDIT_METRICS = ("success", "source_bleu", "perplexity", "copies")
"""The columns by default, of those that there are."""

CONDITIONS = ("label", "split", "num")
BEFORE = ("copy", "reconstruction")
"""Rows of a file besides the edits."""

EditScores = dict[str, Any]
"""What jtextdiff.evaluate --edits has written."""


def has_edits(result: Any) -> bool:
    """Returns whether the contents of a file are scores of edits."""
    rows = result.get("rows") if isinstance(result, dict) else None
    return (
        isinstance(rows, dict)
        and rows.keys() >= {*BEFORE, "edit"}
        and all(isinstance(scores, dict) and all(map(is_score, scores.values())) for scores in rows.values())
        and all(_has_numbers(scores, ("success", "source_bleu")) for scores in rows.values())
        and {"label", "split", "num"} <= result.keys()
    )


def _has_numbers(scores: dict[str, Any], names: Sequence[str]) -> bool:
    return all(name in scores and scores[name]["value"] is not None for name in names)


def compare_edits(results: dict[Path, EditScores], metrics: Sequence[str] | None, levels: Sequence[float]) -> list[str]:
    """Returns a Markdown table with a row per file, and one of the success at these levels of BLEU with the source.

    Files METHOD.SETTING.json are points of one method: between neighbouring ones, its success is interpolated
    linearly. Raises UserError for a metric that no file has, and for scores that cannot be compared.
    """
    available = dict.fromkeys(name for result in results.values() for name in result["rows"]["edit"])
    metrics = metrics or [name for name in EDIT_METRICS if name in available]
    for name in metrics:
        if name not in available:
            raise UserError(f"No file has the metric {name!r}. There are: {', '.join(available)}.")
    _check_conditions([*results.values()])
    lines = _table(results, metrics)
    return [*lines, "", *_at_equal_bleu(results, levels)] if levels else lines


def _check_conditions(results: Sequence[EditScores]) -> None:
    conditions = [{field: result.get(field) for field in CONDITIONS} for result in results]
    for result, of_result in zip(results, conditions, strict=True):
        of_result["judge of success"] = result["rows"]["edit"]["success"].get("kind")
        # Copies of the same texts have the same scores by the same judges.
        copies = result["rows"]["copy"]
        of_result["texts"] = {name: copies[name]["value"] for name in ("success", "copies") if name in copies}
    for field in conditions[0]:
        if len(values := {str(of_result[field]) for of_result in conditions}) > 1:
            raise UserError(f"The scores differ in {field} ({', '.join(sorted(values))}) and cannot share a table.")


def _table(results: dict[Path, EditScores], metrics: Sequence[str]) -> list[str]:
    """A row for the texts themselves, for the reconstructions of each model, and for each file of edits."""
    first, names = next(iter(results.values())), methods_of(results)
    copies = {name: score for result in results.values() for name, score in result["rows"]["copy"].items()}
    rows = [["copy", *_cells(copies, metrics)]]
    seen = set()
    for file, result in results.items():
        if (cells := tuple(_cells(result["rows"]["reconstruction"], metrics))) not in seen:
            rows.append([f"reconstruction ({names[file]})", *cells])
            seen.add(cells)
    rows += [[file.stem, *_cells(result["rows"]["edit"], metrics)] for file, result in results.items()]
    return markdown_table([f"{first['num']} texts", *metrics], rows)


def _cells(scores: dict[str, Any], metrics: Sequence[str]) -> list[str]:
    return [format_value(scores[name]["value"], scores[name]["se"]) if name in scores else "" for name in metrics]


def edit_frontiers(results: dict[Path, EditScores]) -> dict[str, list[Point]]:
    """Returns the points (BLEU with the source, success, error) of each method's files METHOD.SETTING.json."""
    methods: dict[str, list[Point]] = {}
    names = methods_of(results)
    for file, result in results.items():
        bleu, success = (result["rows"]["edit"][name] for name in ("source_bleu", "success"))
        methods.setdefault(names[file], []).append((bleu["value"], success["value"], success["se"] or 0.0))
    return methods


def _at_equal_bleu(results: dict[Path, EditScores], levels: Sequence[float]) -> list[str]:
    curves = edit_frontiers(results)
    rows = [[name, *(format_value(*value_at(level, points)) for level in levels)] for name, points in curves.items()]
    return markdown_table(["success at source_bleu", *(f"{level:g}" for level in levels)], rows)
