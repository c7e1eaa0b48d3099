"""A Markdown table of several score files."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jtextdiff.cli.errors import UserError
from jtextdiff.cli.tables import format_value, markdown_table, wrap
from jtextdiff.data.lines import parse_json
from jtextdiff.metrics.interpolation import Point, value_at

FIELDS = {"metrics", "sampler", "steps", "nfe", "num_samples", "split"}
"""Fields that a file of scores must have."""

DEFAULT_METRICS = (
    "nll",
    "nll_in_order",
    "excess_nll",
    "control_success",
    "perplexity_ratio",
    "members",
    "unigram_entropy",
    "distinct_bigrams",
    "diversity_guard",
)

CONDITIONS = ("text", "split", "num_samples", "judge", "tokenizer")
"""Fields that must agree for scores to share a table."""

RECIPE = ("method", "sampler", "steps", "settings", "control", "targets", "chosen")
"""Fields in which the runs of one recipe agree."""

FRONTIER_METRICS = ("perplexity_ratio", "members")
"""Scores that a temperature trades for entropy."""

MAX_NAME = 20
"""Longer names of recipes are numbered in a narrow table."""

Scores = dict[str, Any]
"""What jtextdiff.evaluate has written."""

Column = tuple[str, list[str]]
"""The name of a recipe, or of real text, and its cell for each metric."""


def compare(results: dict[Path, Scores], metrics: Sequence[str] | None, width: int) -> list[str]:
    """Returns the lines of a Markdown table of these metrics, by default those of DEFAULT_METRICS that there are.

    A row per recipe; a column per recipe, in several tables if need be, where that is wider than `width`. Raises
    UserError for a metric that no file has, and for scores that cannot be compared.
    """
    for file, result in results.items():
        _check_scores(file, result)
    recipes = group_by_recipe(results)
    available = {name for result in results.values() for name in result["metrics"]}
    metrics = metrics or [name for name in DEFAULT_METRICS if name in available]
    for name in metrics:
        if name not in available:
            raise UserError(f"No file has the metric {name!r}. There are: {', '.join(sorted(available))}.")
    for field in CONDITIONS:
        if len(values := {str(result.get(field)) for result in results.values()}) > 1:
            raise UserError(f"The scores differ in {field} ({', '.join(sorted(values))}) and cannot share a table.")
    lines = table(recipes, metrics)
    return lines if max(map(len, lines)) <= width else narrow_tables(recipes, metrics, width)


def methods_of(files: Iterable[Path]) -> dict[Path, str]:
    """Returns the METHOD of each file METHOD.SETTING.json; a setting may hold a dot, as in masked.0.8.json.

    Files of several directories have the directory in the names of their methods.
    """
    files = [*files]
    shared = len({file.parent for file in files}) == 1
    names = {file: file.stem.partition(".")[0] for file in files}
    return {file: name if shared else str(file.with_name(name)) for file, name in names.items()}


def frontier_metric(results: dict[Path, Scores]) -> str:
    """Returns the score of a frontier: the first of FRONTIER_METRICS that all files have.

    Raises UserError if they have none.
    """
    for metric in FRONTIER_METRICS:
        if all({metric, "unigram_entropy"} <= result["metrics"].keys() for result in results.values()):
            return metric
    raise UserError(f"--frontier needs unigram_entropy and one of {', '.join(FRONTIER_METRICS)} in every file.")


def frontiers(results: dict[Path, Scores], metric: str) -> dict[str, list[Point]]:
    """Returns the points (entropy, score, error) of each method's files METHOD.SETTING.json, where they are known."""
    names = methods_of(results)
    curves: dict[str, list[Point]] = {name: [] for name in names.values()}
    for file, result in results.items():
        entropy, score = result["metrics"]["unigram_entropy"], result["metrics"][metric]
        if entropy["value"] is not None and score["value"] is not None:
            curves[names[file]].append((entropy["value"], score["value"], score["se"] or 0.0))
    return curves


def at_real_entropy(results: dict[Path, Scores], real_entropy: float) -> list[str]:
    """Returns a table of each method's scores at the entropy of real text, interpolated between its settings."""
    shared = [name for name in FRONTIER_METRICS if all(name in result["metrics"] for result in results.values())]
    columns = [frontiers(results, metric) for metric in shared]
    rows = [[name, *(format_value(*value_at(real_entropy, curves[name])) for curves in columns)] for name in columns[0]]
    return markdown_table([f"at the entropy of real text, {real_entropy:.4g} nats", *shared], rows)


def read_scores(file: Path) -> Any:
    """Reads a file of scores. Raises UserError if it cannot be read."""
    try:
        return parse_json(file.read_text(encoding="utf-8"), str(file))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as scores: {error}") from None


def _check_scores(file: Path, result: Any) -> None:
    """Raises UserError unless the contents of a file are scores of samples."""
    metrics = result.get("metrics") if isinstance(result, dict) else None
    valid = (
        isinstance(metrics, dict)
        and result.keys() >= FIELDS
        and all(is_score(metric, ("value", "se", "real_valid")) for metric in metrics.values())
    )
    if not valid or result["nfe"] is None or not _is_number(result["nfe"]):
        raise UserError(f"{file} holds no scores of jtextdiff.evaluate.")


def is_score(part: Any, numbers: Sequence[str] = ("value", "se")) -> bool:
    """Returns whether a part of a file is a score with these numbers, each of which may be None."""
    return (
        isinstance(part, dict)
        and part.keys() >= {"unit", *numbers}
        and isinstance(part["unit"], str)
        and all(_is_number(part[name]) for name in numbers)
    )


def _is_number(value: Any) -> bool:
    """Returns whether a value is a number that a float can hold, or None."""
    return value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**1000)


def group_by_recipe(results: dict[Path, Scores]) -> dict[str, list[Scores]]:
    """Groups the seeds of one recipe, NAME.0.json, NAME.1.json, …; a recipe has its path where names are equal."""
    files_of: dict[tuple[str, ...], list[Path]] = {}
    for file, result in results.items():
        name, dot, seed = file.stem.rpartition(".")
        recipe = name if dot and seed.isdecimal() else file.stem
        key = (str(file.with_name(recipe)), *(str(result.get(field)) for field in RECIPE))
        files_of.setdefault(key, []).append(file)
    names = [Path(path).name if len(files) > 1 else files[0].stem for (path, *_), files in files_of.items()]
    paths = [path if len(files) > 1 else str(files[0]) for (path, *_), files in files_of.items()]
    unique = [name if names.count(name) == 1 else path for name, path in zip(names, paths, strict=True)]
    return {name: [results[file] for file in files] for name, files in zip(unique, files_of.values(), strict=True)}


def table(recipes: dict[str, list[Scores]], metrics: Sequence[str]) -> list[str]:
    """Returns a table with a row per recipe and a column per metric, real text first."""
    first = next(iter(recipes.values()))[0]
    header = [f"{first['num_samples']} samples", "sampler", "calls", *_with_units(recipes, metrics)]
    rows = [[f"real {first['split']} text", "", "", *_of_real_text(recipes, metrics)]]
    for name, results in recipes.items():
        rows.append([name, _sampler(results[0]), _calls(results), *(_cell(results, metric) for metric in metrics)])
    return markdown_table(header, rows)


def narrow_tables(recipes: dict[str, list[Scores]], metrics: Sequence[str], width: int) -> list[str]:
    """Returns a list of the recipes, and tables with a row per metric and as many of the recipes as fit."""
    first = next(iter(recipes.values()))[0]
    names = [*recipes]
    if any(len(name) > MAX_NAME for name in names):
        names = [f"({number})" for number in range(1, len(names) + 1)]
    lines = wrap(f"{first['num_samples']} samples of each:", width) + [""]
    for name, (recipe, results) in zip(names, recipes.items(), strict=True):
        title = recipe if name == recipe else f"{name} {recipe}"
        lines += wrap(f"{title}: {_sampler(results[0])}, {_calls(results)} calls", width, first="- ")
    columns = [(f"real {first['split']}", _of_real_text(recipes, metrics))]
    columns += [
        (name, [_cell(results, metric) for metric in metrics])
        for name, results in zip(names, recipes.values(), strict=True)
    ]
    return [*lines, *_transposed_tables(_with_units(recipes, metrics), columns, width)]


def _transposed_tables(metrics: Sequence[str], columns: Sequence[Column], width: int) -> list[str]:
    """Tables of as many columns as fit, at least one each, with a blank line before each."""
    lines: list[str] = []
    fitting: list[Column] = []
    for column in columns:
        if fitting and len(_transposed(metrics, [*fitting, column])[0]) > width:
            lines += ["", *_transposed(metrics, fitting)]
            fitting = []
        fitting.append(column)
    return [*lines, "", *_transposed(metrics, fitting)]


def _transposed(metrics: Sequence[str], columns: Sequence[Column]) -> list[str]:
    rows = zip(metrics, *(cells for _, cells in columns), strict=True)
    return markdown_table(["metric", *(name for name, _ in columns)], [[*row] for row in rows])


def _with_units(recipes: dict[str, list[Scores]], metrics: Sequence[str]) -> list[str]:
    """The names of the metrics with their units."""
    results = [result for of_recipe in recipes.values() for result in of_recipe]
    units = {name: metric["unit"] for result in results for name, metric in result["metrics"].items()}
    return [f"{name} ({units[name]})" for name in metrics]


def _of_real_text(recipes: dict[str, list[Scores]], metrics: Sequence[str]) -> list[str]:
    """The values of real text, blank where files differ: a likelihood of real text is that of one model."""
    results = [result for of_recipe in recipes.values() for result in of_recipe]
    cells = []
    for name in metrics:
        values = {result["metrics"][name]["real_valid"] for result in results if name in result["metrics"]}
        cells.append(format_value(values.pop()) if len(values) == 1 else "")
    return cells


def _sampler(result: Scores) -> str:
    """A sampler's name, its number of steps if it has one, and its settings that are not the default."""
    settings = (f"{name} {value}" for name, value in (result.get("settings") or {}).items())
    steps = [] if result["steps"] is None else [str(result["steps"])]
    return ", ".join([" ".join([result["sampler"], *steps]), *settings])


def _calls(results: list[Scores]) -> str:
    """The network calls per sample."""
    return format_value(statistics.fmean(result["nfe"] for result in results))


def _cell(results: list[Scores], metric: str) -> str:
    """Mean ± standard deviation over runs; of a single run, its value ± standard error; blank without the metric."""
    scores = [result["metrics"][metric] for result in results if metric in result["metrics"]]
    scores = [score for score in scores if score["value"] is not None]
    if len(scores) < 2:
        return format_value(scores[0]["value"], scores[0]["se"]) if scores else ""
    values = [score["value"] for score in scores]
    return f"{format_value(statistics.fmean(values), statistics.stdev(values))} ({len(values)} runs)"
