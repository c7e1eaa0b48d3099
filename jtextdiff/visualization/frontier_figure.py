"""Draws frontiers: a score of several methods against another that it is traded for, a curve for each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jtextdiff.metrics.interpolation import Point


class Axis(NamedTuple):
    """The name of a score, and its value for the texts that all methods are compared with, if there is one."""

    label: str
    reference: float | None = None


def draw_frontiers(
    curves: Mapping[str, Sequence[Point]], x_axis: Axis, y_axis: Axis, path: Path, *, reference: str
) -> None:
    """Draws a curve through the points (x, y, error of y) of each method, and the `reference` texts as lines.

    Raises OSError if the path is not writable.
    """
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        if not points:
            continue
        x, y, error = zip(*sorted(points), strict=True)
        axes.errorbar(x, y, error, marker="o", ms=4, capsize=2, label=name)
    line = {"color": "0.5", "ls": "--", "lw": 1}
    if x_axis.reference is not None:
        axes.axvline(x_axis.reference, **line)
    if y_axis.reference is not None:
        axes.axhline(y_axis.reference, **line, label=reference)
    axes.set(xlabel=x_axis.label, ylabel=y_axis.label)
    axes.legend()
    FigureCanvasAgg(figure).print_png(str(path))
