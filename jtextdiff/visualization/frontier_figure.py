"""Draws frontiers: a score of several methods against the entropy of their samples, a curve for each."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jtextdiff.metrics.interpolation import Point


def draw_frontiers(
    curves: Mapping[str, Sequence[Point]], metric: str, path: Path, *, real_entropy: float, real: float | None
) -> None:
    """Draws a curve through the points (entropy, score, error) of each method, and real text as lines.

    `real` is the score of real text, if it has one. Raises OSError if the path is not writable.
    """
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        if not points:
            continue
        entropy, value, error = zip(*sorted(points), strict=True)
        axes.errorbar(entropy, value, error, marker="o", ms=4, capsize=2, label=name)
    axes.axvline(real_entropy, color="0.5", ls="--", lw=1, label="real text")
    if real is not None:
        axes.axhline(real, color="0.5", ls="--", lw=1)
    axes.set(xlabel="unigram entropy of the samples, nats", ylabel=metric.replace("_", " "))
    axes.legend()
    FigureCanvasAgg(figure).print_png(str(path))
