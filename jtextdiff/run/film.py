"""Films of denoising: sentences on their way from noise (t = 1) to text (t = 0), in a terminal or a PNG."""

import itertools
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

Flags = tuple[tuple[tuple[bool, ...], ...], ...]

FRAMES_PER_SECOND = 24
PRINTED_FRAMES = 5
DRAWN_FRAMES = 10
NARROWEST_SLOT = 6  # terminal cells: room to see that something is going on where a full stop will stand
LONGEST_DRAWN_WORD = 18  # cells
WIDEST_BAND = 132  # cells
LABEL_CELLS = 9
CELL_INCHES = 0.08  # a narrow character of DejaVu Sans at 9 pt is 0.62 em wide
ROW_INCHES = 0.23
DOTS_PER_INCH = 160
MOST_DOTS = 60_000  # Agg refuses pictures of more than 2 ** 16 dots a side
JOINERS = "\u200c\u200d"  # unprintable, but part of how Persian words and emoji are spelt
INK, TINT, NOISE, FAINT = "#1d4e79", "#e6eef6", "#a3a6ab", "#7d8288"
CJK_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "WenQuanYi Micro Hei",
             "WenQuanYi Zen Hei", "PingFang HK", "Microsoft YaHei", "SimHei", "Arial Unicode MS")  # fmt: skip


class Film(NamedTuple):
    """The states of a few sentences on the way from noise to text.

    Every sentence has one frame a time, and all its frames have equally many positions; two sentences may
    differ in length. A padded position holds "". A mask is best called something short, such as "·".
    """

    title: str
    times: tuple[float, ...]  # [frame], falling, the last 0.0
    words: tuple[tuple[tuple[str, ...], ...], ...]  # [sentence][frame][position]


def check(film: Film) -> None:
    """Raises ValueError for a film without frames or sentences, or with ragged ones."""
    if not film.times or not film.words:
        raise ValueError(
            f"a film needs a frame and a sentence; got {len(film.times)} frames, {len(film.words)} sentences"
        )
    for index, frames in enumerate(film.words):
        if len(frames) != len(film.times):
            raise ValueError(f"sentence {index} has {len(frames)} frames for {len(film.times)} times; give one a time")
        if lengths := {len(frame) for frame in frames} - {len(frames[0])}:
            raise ValueError(
                f"sentence {index} has frames of {len(frames[0])} and of {min(lengths)} positions; "
                'fill the shorter with ""'
            )


def spread(total: int, count: int) -> tuple[int, ...]:
    """Up to `count` even-spaced indices of 0 … total - 1, both ends among them; ValueError if count < 2."""
    if count < 2:
        raise ValueError(f"cannot keep both ends in {count} frames; ask for 2 or more")
    if total <= count:
        return tuple(range(total))
    return tuple((2 * i * (total - 1) + count - 1) // (2 * (count - 1)) for i in range(count))


def thin(film: Film, num_frames: int) -> Film:
    """The film in at most num_frames evenly spaced frames, first and last kept; ValueError if num_frames < 2.

    Whether a word is settled is then judged by the kept frames alone.
    """
    check(film)
    kept = spread(len(film.times), num_frames)
    words = tuple(tuple(frames[f] for f in kept) for frames in film.words)
    return film._replace(times=tuple(film.times[f] for f in kept), words=words)


def presentable(film: Film) -> Film:
    """The film without positions that are padding throughout, unprintable characters written as escapes.

    A newline becomes `\\n`; terminal escapes and marks that turn the reading direction are disarmed.
    """
    check(film)

    def shown(frames: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
        used = [any(column) for column in zip(*frames, strict=True)]
        return tuple(tuple(map(_printable, itertools.compress(frame, used))) for frame in frames)

    return Film(_printable(film.title), film.times, tuple(map(shown, film.words)))


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c in JOINERS else repr(c)[1:-1] for c in text)


def settled_at(film: Film) -> tuple[tuple[int, ...], ...]:
    """The first frame from which each word stays what it is in the last: [sentence][position]."""

    def since(column: Sequence[str]) -> int:
        return next((f + 1 for f in reversed(range(len(column))) if column[f] != column[-1]), 0)

    return tuple(tuple(map(since, zip(*frames, strict=True))) for frames in film.words)


def settled(film: Film) -> Flags:
    """Whether each word equals the last frame's word from here on: [sentence][frame][position]."""
    frames = range(len(film.times))
    return tuple(tuple(tuple(f >= s for s in starts) for f in frames) for starts in settled_at(film))


def settled_share(film: Film) -> tuple[float, ...]:
    """The share of positions that are settled, over all sentences: [frame], in [0, 1], rising to 1."""
    starts = [start for sentence in settled_at(film) for start in sentence]
    return tuple(sum(start <= f for start in starts) / len(starts) if starts else 1.0 for f in range(len(film.times)))


def play(film: Film, console: Console, seconds: float = 6.0) -> None:
    """Plays the film in the terminal; elsewhere prints a few of its frames, a sentence a line.

    Settled words are bold and coloured, the others dim. ValueError for a malformed film.
    """
    film = presentable(film)
    flags, shares = settled(film), settled_share(film)
    if not console.is_terminal or console.is_dumb_terminal:
        for f in spread(len(film.times), PRINTED_FRAMES):
            for frames in film.words:
                line = Text(f"t={film.times[f]:.2f}  " + " ".join(filter(None, frames[f])))
                console.print(line, soft_wrap=True)
        return
    shown = spread(len(film.times), max(2, round(seconds * FRAMES_PER_SECOND)))
    with Live(console=console, auto_refresh=False) as live:
        for f in shown:
            live.update(_screen(film, f, flags, shares[f], console.width), refresh=True)
            time.sleep(seconds / len(shown))


def _screen(film: Film, f: int, flags: Flags, share: float, width: int) -> Group:
    """One frame as rich sees it: a head line with time and progress, then the sentences."""
    head = Table.grid(padding=(0, 3))
    head.add_row(
        Text(film.title, style="bold"),
        Text(f"t={film.times[f]:.2f}", style="dim"),
        ProgressBar(total=1.0, completed=share, width=24, complete_style="cyan", finished_style="cyan"),
    )
    parts: list[Text | Table] = [head, Text()]
    for frames, flag in zip(film.words, flags, strict=True):
        parts += [_sentence(frames[f], frames[-1], flag[f], width), Text()]
    return Group(*parts)


def _sentence(words: Sequence[str], last: Sequence[str], flag: Sequence[bool], width: int) -> Text:
    """A sentence whose words stand in slots as wide as the word to come, so that nothing jumps."""
    if all(flag):
        return Text(" ".join(filter(None, words)), style="bold cyan")
    slots = [max(cell_len(word), NARROWEST_SLOT) for word in last]
    lines = []
    for band in _bands([slot + 1 for slot in slots], width):
        line = Text(no_wrap=True)
        for word, is_settled, slot in zip(words[band], flag[band], slots[band], strict=True):
            line.append(set_cell_size(_fit(word, slot), slot), style="bold cyan" if is_settled else "dim")
            line.append(" ")
        lines.append(line)
    return Text("\n").join(lines)


def _fit(word: str, cells: int) -> str:
    return word if cell_len(word) <= cells else set_cell_size(word, cells - 1) + "…"


def _bands(widths: Sequence[int], limit: int) -> list[slice]:
    """Cuts columns into runs no wider than the limit; a column wider than that stands alone."""
    bands: list[slice] = []
    start = used = 0
    for column, width in enumerate(widths):
        if column > start and used + width > limit:
            bands.append(slice(start, column))
            start, used = column, 0
        used += width
    return [*bands, slice(start, len(widths))]


def _even_bands(widths: Sequence[int], limit: int) -> list[slice]:
    """As few bands as the limit allows, the widest as narrow as can be."""
    fewest = len(_bands(widths, limit))
    return next(b for narrow in range(limit + 1) if len(b := _bands(widths, narrow)) <= fewest)


def draw(film: Film, path: str | Path) -> None:
    """Draws the film as a PNG: a grid a sentence, time downwards, positions across, settled words in colour.

    Long sentences are cut into bands. ValueError for a malformed film, OSError if the path is not writable.
    """
    film = presentable(film)
    rows = spread(len(film.times), DRAWN_FRAMES)
    figure = Figure()
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.axis("off")
    width, y = 40, 3
    for frames, flag in zip(film.words, settled(film), strict=True):
        columns = zip(*(frames[f] for f in rows), strict=True)
        widths = [min(LONGEST_DRAWN_WORD, max(map(cell_len, column))) + 2 for column in columns]
        for band in _even_bands(widths, WIDEST_BAND):
            width = max(width, LABEL_CELLS + sum(widths[band]) + 2)
            for y_row, f in enumerate(rows, start=y):
                label = f"t={film.times[f]:.2f}"
                axes.text(LABEL_CELLS - 1.5, y_row, label, size=7.5, color=FAINT, ha="right", va="center")
                _draw_row(axes, y_row, frames[f][band], flag[f][band], widths[band])
            y += len(rows) + 1
        y += 1
    _write(axes, 2, 1.3, _fit(film.title, round(width / 1.6)), size=13, color=INK)
    axes.set(xlim=(0, width), ylim=(y, 0))
    figure.set_size_inches(width * CELL_INCHES, y * ROW_INCHES)
    figure.set_dpi(min(DOTS_PER_INCH, MOST_DOTS / (y * ROW_INCHES)))
    with warnings.catch_warnings():
        # A script that no installed font can write is drawn as boxes: a poorer picture, not a failure.
        warnings.simplefilter("ignore", UserWarning)
        FigureCanvasAgg(figure).print_png(str(path))


def _draw_row(axes: Axes, y: int, words: Sequence[str], flag: Sequence[bool], widths: Sequence[int]) -> None:
    """One frame of one band, each word centred in its column."""
    x = LABEL_CELLS
    for word, is_settled, width in zip(words, flag, widths, strict=True):
        if word and is_settled:
            axes.add_patch(Rectangle((x, y - 0.5), width, 1.0, color=TINT, linewidth=0))
        colour = INK if is_settled else NOISE
        _write(axes, x + width / 2, y, _fit(word, width - 2), size=9, color=colour, ha="center")
        x += width


def _write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Text as it stands: `$` is no mathematics here, and Chinese falls back on whatever font is installed."""
    installed = font_manager.fontManager.get_font_names()
    family = ["DejaVu Sans", *(font for font in CJK_FONTS if font in installed)]
    axes.text(x, y, text, va="center_baseline", family=family, parse_math=False, **style)
