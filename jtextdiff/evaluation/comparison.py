"""A Markdown table of several score files."""

import json
import statistics
from pathlib import Path
from typing import Any

from jtextdiff.cli.errors import UserError

NEEDED = {"metrics", "sampler", "steps", "nfe", "num_samples", "split"}
ALIKE = ("method", "sampler", "steps", "settings", "control", "targets", "chosen")
"""What runs of one recipe have in common."""

OF_METRIC = {"value", "unit", "se", "real_valid"}


def grouped(results: dict[Path, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The results of each row by its name: seeds of one recipe together; longer names where short ones are alike."""
    rows: dict[tuple[str, ...], list[Path]] = {}
    for file, result in results.items():
        name, dot, seed = file.stem.rpartition(".")
        recipe = name if dot and seed.isdecimal() else file.stem
        key = (str(file.with_name(recipe)), *(str(result.get(field)) for field in ALIKE))
        rows.setdefault(key, []).append(file)
    short = [Path(name).name if len(files) > 1 else files[0].stem for (name, *_), files in rows.items()]
    long = [name if len(files) > 1 else str(files[0]) for (name, *_), files in rows.items()]
    names = [one if short.count(one) == 1 else other for one, other in zip(short, long, strict=True)]
    return {name: [results[file] for file in files] for name, files in zip(names, rows.values(), strict=True)}


def table(rows: dict[str, list[dict[str, Any]]], names: list[str]) -> list[str]:
    """The lines of a Markdown table: a row a name, a column a metric, real text first."""
    every = [result for results in rows.values() for result in results]
    units = {name: row["unit"] for result in every for name, row in result["metrics"].items()}
    real = {
        name: {result["metrics"][name]["real_valid"] for result in every if name in result["metrics"]} for name in names
    }
    # A model's likelihood of real text is its own: only what all agree on is the text's.
    alike = {name: values.pop() if len(values) == 1 else None for name, values in real.items()}
    columns = " | ".join(f"{name} ({units[name]})" for name in names)
    lines = [
        f"| {every[0]['num_samples']} samples | sampler | calls | {columns} |",
        "|---" * (len(names) + 3) + "|",
        f"| real {every[0]['split']} text | | | {' | '.join(_shown(alike[name]) for name in names)} |",
    ]
    for name, results in rows.items():
        scores = [[result["metrics"][column] for result in results if column in result["metrics"]] for column in names]
        sampler = _sampler(results[0])
        calls = _shown(statistics.fmean(result["nfe"] for result in results))
        lines.append(f"| {name} | {sampler} | {calls} | {' | '.join(map(_cell, scores))} |")
    return lines


def read(file: Path) -> dict[str, Any]:
    """The scores in a file. Raises UserError if it holds none."""
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as scores: {error}") from None
    metrics = result.get("metrics") if isinstance(result, dict) else None
    sound = isinstance(metrics, dict) and all(
        isinstance(row, dict) and row.keys() >= OF_METRIC for row in metrics.values()
    )
    if not sound or not result.keys() >= NEEDED:
        raise UserError(f"{file} holds no scores of jtextdiff.evaluate.")
    return result


def _sampler(result: dict[str, Any]) -> str:
    """A sampler's name, its steps if it takes so many, and its settings that are not the default."""
    settings = (f"{name} {value}" for name, value in (result.get("settings") or {}).items())
    steps = [] if result["steps"] is None else [str(result["steps"])]
    return ", ".join([" ".join([result["sampler"], *steps]), *settings])


def _cell(scores: list[dict[str, Any]]) -> str:
    """Mean ± standard deviation over runs; of a single run, its value ± standard error."""
    if not scores:
        return ""
    values = [score["value"] for score in scores]
    spread = statistics.stdev(values) if len(values) > 1 else scores[0]["se"]
    runs = f" ({len(values)} runs)" if len(values) > 1 else ""
    return _shown(statistics.fmean(values)) + ("" if spread is None else f" ± {spread:.2g}") + runs


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
