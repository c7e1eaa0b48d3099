"""A film of denoising as a PNG: a grid of words for each sentence, time downwards, with its energies beside it."""

import math
import warnings
from collections.abc import Sequence
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
    Film,
    bands,
    curve_colour,
    fit,
    height,
    most_nats,
    presentable,
    settled,
    spread,
    step_at,
)

DRAWN_FRAMES = 10
LONGEST_DRAWN_WORD = 18  # cells
LONGEST_DRAWN_NAME = 28
WIDEST_BAND = 132  # cells
LABEL_CELLS = 9
PANEL_CELLS = 26  # of a panel of energies
GAP_CELLS = 3  # before and behind it
VALUE_CELLS = 16  # for "12.34 → 0.56"
CELL_INCHES = 0.08  # a narrow character of DejaVu Sans at 9 pt is 0.62 em wide
ROW_INCHES = 0.23
DOTS_PER_INCH = 160
MOST_DOTS = 60_000  # Agg refuses pictures of more than 2 ** 16 dots a side
INK, TINT, NOISE, FAINT = "#1d4e79", "#e6eef6", "#a3a6ab", "#7d8288"
GUIDED, RULE = "#f1ecdf", "#d9dbde"

CJK_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "WenQuanYi Micro Hei",
             "WenQuanYi Zen Hei", "PingFang HK", "Microsoft YaHei", "SimHei", "Arial Unicode MS")  # fmt: skip


def _even_bands(widths: Sequence[int], limit: int) -> list[slice]:
    """As few bands as the limit allows, the widest as narrow as can be."""
    fewest = len(bands(widths, limit))
    return next(b for narrow in range(limit + 1) if len(b := bands(widths, narrow)) <= fewest)


def draw(film: Film, path: str | Path) -> None:
    """Draws the film as a PNG: a grid a sentence, time downwards, positions across, settled words in colour.

    Energies fall beside the grid, row for row. Long sentences are cut into bands. ValueError for a malformed film,
    OSError if the path is not writable.
    """
    film = presentable(film)
    rows = spread(len(film.times), DRAWN_FRAMES)
    figure = Figure()
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.axis("off")
    widths = [_widths([frames[f] for f in rows]) for frames in film.words]
    cuts = [_even_bands(each, WIDEST_BAND) for each in widths]
    edge = LABEL_CELLS + max(sum(each[band]) for each, cut in zip(widths, cuts, strict=True) for band in cut)
    y = 3
    for s, (frames, flag) in enumerate(zip(film.words, settled(film), strict=True)):
        end = y + len(film.energies) + 2 if film.energies else y
        if film.energies:
            _draw_energies(axes, edge + GAP_CELLS, y, film, s, rows)
        for band in cuts[s]:
            for y_row, f in enumerate(rows, start=y):
                label = f"t={film.times[f]:.2f}"
                axes.text(LABEL_CELLS - 1.5, y_row, label, size=7.5, color=FAINT, ha="right", va="center")
                _draw_row(axes, y_row, frames[f][band], flag[f][band], widths[s][band])
            y += len(rows) + 1
        y = max(y, end) + 1
    width = max(40, edge + 2 + _cells_of_energies(film))
    _write(axes, 2, 1.3, fit(film.title, round(width / 1.6)), size=13, color=INK)
    axes.set(xlim=(0, width), ylim=(y, 0))
    figure.set_size_inches(width * CELL_INCHES, y * ROW_INCHES)
    figure.set_dpi(min(DOTS_PER_INCH, MOST_DOTS / (y * ROW_INCHES)))
    with warnings.catch_warnings():
        # A script that no installed font can write is drawn as boxes: a poorer picture, not a failure.
        warnings.simplefilter("ignore", UserWarning)
        FigureCanvasAgg(figure).print_png(str(path))


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """The cells of each column of words, with some room."""
    return [min(LONGEST_DRAWN_WORD, max(map(cell_len, column))) + 2 for column in zip(*rows, strict=True)]


def _draw_row(axes: Axes, y: int, words: Sequence[str], flag: Sequence[bool], widths: Sequence[int]) -> None:
    """One frame of one band, each word centred in its column."""
    x = LABEL_CELLS
    for word, is_settled, width in zip(words, flag, widths, strict=True):
        if word and is_settled:
            axes.add_patch(Rectangle((x, y - 0.5), width, 1.0, color=TINT, linewidth=0))
        colour = INK if is_settled else NOISE
        _write(axes, x + width / 2, y, fit(word, width - 2), size=9, color=colour, ha="center")
        x += width


def _cells_of_energies(film: Film) -> int:
    """How wide a panel of energies is with what is written beside it."""
    return GAP_CELLS + PANEL_CELLS + GAP_CELLS + _name_cells(film) + VALUE_CELLS if film.energies else 0


def _name_cells(film: Film) -> int:
    return max(cell_len(fit(curve.name, LONGEST_DRAWN_NAME)) for curve in film.energies) + 2


def _draw_energies(axes: Axes, x: float, y: float, film: Film, s: int, rows: Sequence[int]) -> None:
    """A sentence's energies, 0 nats at x, at the height of the frames whose first row is at y; and their names."""
    depth = lambda frames: y + np.interp(frames, rows, np.arange(len(rows)))
    top, bottom, most = y - 0.5, y + len(rows) - 0.5, most_nats(film)
    right = x + PANEL_CELLS + GAP_CELLS
    if film.guided:
        start, end = (depth(step_at(film, time)) for time in film.guided)
        axes.add_patch(Rectangle((x, start), PANEL_CELLS, end - start, color=GUIDED, linewidth=0))
        y_key = y + len(film.energies) + 1
        axes.add_patch(Rectangle((right, y_key - 0.35), 2.4, 0.7, color=GUIDED, linewidth=0))
        _write(axes, right + 3.4, y_key, "guided", size=7.5, color=FAINT)
    for tick in (0, *(10**k for k in range(1 + int(math.log10(most))))):
        at = x + PANEL_CELLS * height(tick, most)
        axes.plot([at, at], [top, bottom], color=RULE, linewidth=0.8)
        axes.text(at, bottom + 0.45, f"{tick:,}", size=7, color=FAINT, ha="center", va="center")
    _write(axes, right, y, "−log p(control | x_t), nats", size=7.5, color=FAINT)
    for c, curve in enumerate(film.energies):
        values, colour = curve.nats[s], curve_colour(c)
        across = [x + PANEL_CELLS * height(value, most) if math.isfinite(value) else math.nan for value in values]
        down = depth(range(len(values)))
        axes.plot(across, down, color=colour, linewidth=1.6, solid_capstyle="round")
        axes.plot(across[-1:], down[-1:], color=colour, marker="o", markersize=4)
        _write(axes, right, y + 1 + c, fit(curve.name, LONGEST_DRAWN_NAME), size=9, color=colour)
        told = f"{values[0]:.2f} → {values[-1]:.2f}"
        _write(axes, right + _name_cells(film), y + 1 + c, told, size=9, color=INK)


def _write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Text as it stands: `$` is no mathematics here, and Chinese falls back on whatever font is installed."""
    installed = font_manager.fontManager.get_font_names()
    family = ["DejaVu Sans", *(font for font in CJK_FONTS if font in installed)]
    axes.text(x, y, text, va="center_baseline", family=family, parse_math=False, **style)
