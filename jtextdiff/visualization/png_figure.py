"""PNG of a trajectory: a grid of words for each sentence, time downwards, energies on the right."""

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.cells import cell_len

from jtextdiff.visualization.trajectory import (
    Trajectory,
    bands,
    curve_colour,
    evenly_spaced,
    log_height,
    max_energy,
    printable,
    settled,
    step_at,
    truncate,
)

DRAWN_FRAMES = 10
LONGEST_DRAWN_WORD = 18  # cells, as is every width below
LONGEST_DRAWN_NAME = 28
WIDEST_BAND = 132
LABEL_CELLS = 9
PANEL_CELLS = 26  # a panel of energies
GAP_CELLS = 3  # before and after it
VALUE_CELLS = 16  # for "12.34 → 0.56"
CELL_INCHES = 0.08  # a narrow character of DejaVu Sans at 9 pt is 0.62 em wide
ROW_INCHES = 0.23
DOTS_PER_INCH = 160
MAX_DOTS = 60_000  # Agg refuses pictures of more than 2 ** 16 dots a side
INK, TINT, NOISE, FAINT = "#1d4e79", "#e6eef6", "#a3a6ab", "#7d8288"
GUIDED, RULE = "#f1ecdf", "#d9dbde"

CJK_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "WenQuanYi Micro Hei",
             "WenQuanYi Zen Hei", "PingFang HK", "Microsoft YaHei", "SimHei", "Arial Unicode MS")  # fmt: skip


def draw_png(trajectory: Trajectory, path: str | Path) -> None:
    """Draws the trajectory as a PNG: one grid per sentence, time downwards, positions across, settled words coloured.

    Energies are plotted on the right of the grid, row by row. Long sentences are cut into bands. Raises ValueError for
    a malformed trajectory and OSError if the path is not writable.
    """
    trajectory = printable(trajectory)
    rows = evenly_spaced(len(trajectory.times), DRAWN_FRAMES)
    figure = Figure()
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.axis("off")
    widths = [_widths([frames[f] for f in rows]) for frames in trajectory.words]
    cuts = [_even_bands(columns, WIDEST_BAND) for columns in widths]
    band_widths = [sum(columns[band]) for columns, cut in zip(widths, cuts, strict=True) for band in cut]
    edge = LABEL_CELLS + max(band_widths)
    y = 3
    for s, (frames, flags) in enumerate(zip(trajectory.words, settled(trajectory), strict=True)):
        end = y + len(trajectory.energies) + 2 if trajectory.energies else y
        if trajectory.energies:
            _draw_energies(axes, edge + GAP_CELLS, y, trajectory, s, rows)
        for band in cuts[s]:
            for y_row, f in enumerate(rows, start=y):
                label = f"t={trajectory.times[f]:.2f}"
                axes.text(LABEL_CELLS - 1.5, y_row, label, size=7.5, color=FAINT, ha="right", va="center")
                _draw_row(axes, y_row, frames[f][band], flags[f][band], widths[s][band])
            y += len(rows) + 1
        y = max(y, end) + 1
    width = max(40, edge + 2 + _energy_cells(trajectory))
    _write(axes, 2, 1.3, truncate(trajectory.title, round(width / 1.6)), size=13, color=INK)
    _save(figure, axes, width, y, path)


def _save(figure: Figure, axes: Axes, width: int, depth: int, path: str | Path) -> None:
    """Writes the figure, `width` cells wide and `depth` rows high."""
    axes.set(xlim=(0, width), ylim=(depth, 0))
    figure.set_size_inches(width * CELL_INCHES, depth * ROW_INCHES)
    figure.set_dpi(min(DOTS_PER_INCH, MAX_DOTS / (depth * ROW_INCHES)))
    with warnings.catch_warnings():
        # A script that no installed font covers is drawn as boxes: a poorer picture, not a failure.
        warnings.simplefilter("ignore", UserWarning)
        FigureCanvasAgg(figure).print_png(str(path))


def _even_bands(widths: Sequence[int], limit: int) -> list[slice]:
    """Cuts columns into as few bands as the limit allows, with the widest band as narrow as possible."""
    fewest = len(bands(widths, limit))
    return next(cut for narrower in range(limit + 1) if len(cut := bands(widths, narrower)) <= fewest)


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """Returns the cells of each column of words, with a margin of 2."""
    return [min(LONGEST_DRAWN_WORD, max(map(cell_len, column))) + 2 for column in zip(*rows, strict=True)]


def _draw_row(axes: Axes, y: int, words: Sequence[str], flags: Sequence[bool], widths: Sequence[int]) -> None:
    """Draws one frame of one band, each word centred in its column."""
    x = LABEL_CELLS
    for word, is_settled, width in zip(words, flags, widths, strict=True):
        if word and is_settled:
            axes.add_patch(Rectangle((x, y - 0.5), width, 1.0, color=TINT, linewidth=0))
        colour = INK if is_settled else NOISE
        _write(axes, x + width / 2, y, truncate(word, width - 2), size=9, color=colour, ha="center")
        x += width


def _energy_cells(trajectory: Trajectory) -> int:
    """Returns the width of a panel of energies with its names and values; 0 without energies."""
    if not trajectory.energies:
        return 0
    return GAP_CELLS + PANEL_CELLS + GAP_CELLS + _name_cells(trajectory) + VALUE_CELLS


def _name_cells(trajectory: Trajectory) -> int:
    return max(cell_len(truncate(curve.name, LONGEST_DRAWN_NAME)) for curve in trajectory.energies) + 2


def _draw_energies(axes: Axes, x: float, y: float, trajectory: Trajectory, s: int, rows: Sequence[int]) -> None:
    """Draws the energies of sentence `s` and their names: 0 nats at x, row by row from the first frame at y."""

    def row_of(frames: Any) -> Any:
        return y + np.interp(frames, rows, np.arange(len(rows)))

    top = max_energy(trajectory)
    right = x + PANEL_CELLS + GAP_CELLS
    if trajectory.guided:
        _draw_guided(axes, x, y, trajectory, row_of)
    _draw_scale(axes, x, (y - 0.5, y + len(rows) - 0.5), top)
    _write(axes, right, y, "−log p(control | x_t), nats", size=7.5, color=FAINT)
    for c, curve in enumerate(trajectory.energies):
        values, colour = curve.nats[s], curve_colour(c)
        across = [x + PANEL_CELLS * log_height(nats, top) if math.isfinite(nats) else math.nan for nats in values]
        down = row_of(range(len(values)))
        axes.plot(across, down, color=colour, linewidth=1.6, solid_capstyle="round")
        axes.plot(across[-1:], down[-1:], color=colour, marker="o", markersize=4)
        _write(axes, right, y + 1 + c, truncate(curve.name, LONGEST_DRAWN_NAME), size=9, color=colour)
        change = f"{values[0]:.2f} → {values[-1]:.2f}"
        _write(axes, right + _name_cells(trajectory), y + 1 + c, change, size=9, color=INK)


def _draw_guided(axes: Axes, x: float, y: float, trajectory: Trajectory, row_of: Callable[[float], float]) -> None:
    """Shades the times at which guidance acts, and draws the key below the names of the energies."""
    start, end = (row_of(step_at(trajectory, time)) for time in trajectory.guided or ())
    axes.add_patch(Rectangle((x, start), PANEL_CELLS, end - start, color=GUIDED, linewidth=0))
    right, y_key = x + PANEL_CELLS + GAP_CELLS, y + len(trajectory.energies) + 1
    axes.add_patch(Rectangle((right, y_key - 0.35), 2.4, 0.7, color=GUIDED, linewidth=0))
    _write(axes, right + 3.4, y_key, "guided", size=7.5, color=FAINT)


def _draw_scale(axes: Axes, x: float, ends: tuple[float, float], top: float) -> None:
    """Draws the vertical rules at 0 and at the powers of ten up to `top` nats, between the rows `ends`."""
    for tick in (0, *(10**k for k in range(1 + int(math.log10(top))))):
        x_tick = x + PANEL_CELLS * log_height(tick, top)
        axes.plot([x_tick, x_tick], ends, color=RULE, linewidth=0.8)
        axes.text(x_tick, ends[1] + 0.45, f"{tick:,}", size=7, color=FAINT, ha="center", va="center")


def _write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Draws text literally: `$` starts no formula, and Chinese falls back on an installed font."""
    installed = font_manager.fontManager.get_font_names()
    family = ["DejaVu Sans", *(font for font in CJK_FONTS if font in installed)]
    axes.text(x, y, text, va="center_baseline", family=family, parse_math=False, **style)
