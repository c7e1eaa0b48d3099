"""Score tables as aligned text and Markdown that fit the terminal."""

import os
import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TextIO

WIDTH_IN_A_PIPE = 80
MIN_WIDTH = 60
"""Columns are not squeezed below this; a narrower terminal wraps the lines itself."""

MAX_PROSE_WIDTH = 100
MIN_LAST_COLUMN = 16
GAP = "  "


class ScoreRow(NamedTuple):
    """One line of a score table; `unit` and `kind` describe the values."""

    name: str
    cells: Sequence[str]
    unit: str
    kind: str


def output_width(stream: TextIO) -> int:
    """Returns the columns of the terminal behind a stream: $COLUMNS if it is set, 80 in a pipe or a file."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or WIDTH_IN_A_PIPE
    except (OSError, ValueError, AttributeError):
        return WIDTH_IN_A_PIPE


def format_value(value: float | None, se: float | None = None) -> str:
    """Returns a value with 4 digits, ± its standard error with 2 if there is one; "" for None."""
    if value is None:
        return ""
    # Rounded first, so that an error of 220 is not written as 2.2e+02.
    return f"{value:.4g}" + ("" if se is None else f" ± {float(f'{se:.2g}'):.4g}")


def score_table(title: str, columns: Sequence[str], rows: Iterable[ScoreRow], width: int) -> list[str]:
    """Returns the lines of a table, a score a line, with footnotes that explain how scores were obtained."""
    rows = list(rows)
    notes = list(dict.fromkeys(row.kind for row in rows if row.kind))
    cells = [
        [row.name, *row.cells, f"{row.unit} [{notes.index(row.kind) + 1}]" if row.kind else row.unit] for row in rows
    ]
    lines = [*wrap(title, width), "", *text_table(["score", *columns, "unit"], cells, width), ""]
    for number, note in enumerate(notes, start=1):
        lines += wrap(note, min(width, MAX_PROSE_WIDTH), first=f"[{number}] ")
    return lines


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Returns the lines of a table with columns as wide as their cells.

    The last column and the header are wrapped between words. A first cell that is too long has a line of its own.
    """
    width = max(width, MIN_WIDTH)
    widths = [max(map(len, [*head.split(), *cells])) for head, *cells in zip(header, *rows, strict=True)]
    widths[0] = max(len(header[0]), *(len(row[0]) for row in rows if len(row[0]) <= _first_column(widths, width)), 0)
    widths[-1] = max(width - sum(widths[:-1]) - len(GAP) * (len(widths) - 1), 1)
    lines = _header(header, widths)
    for first, *middle, last in rows:
        if len(first) > widths[0]:
            lines += wrap(first, width)
            first = ""
        last_lines = wrap(last, widths[-1]) or [""]
        lines.append(_aligned([first, *middle, last_lines[0]], widths))
        lines += [_aligned([""] * (len(widths) - 1) + [line], widths) for line in last_lines[1:]]
    return lines


def _first_column(widths: Sequence[int], width: int) -> int:
    """The width that the other columns leave to the first, when the last has at least MIN_LAST_COLUMN."""
    return width - sum(widths[1:-1]) - min(widths[-1], MIN_LAST_COLUMN) - len(GAP) * (len(widths) - 1)


def _header(header: Sequence[str], widths: Sequence[int]) -> list[str]:
    """The names of the columns, bottom-aligned where some take several lines."""
    cells = [wrap(name, width) for name, width in zip(header, widths, strict=True)]
    height = max(map(len, cells))
    cells = [[""] * (height - len(lines)) + lines for lines in cells]
    return [_aligned(line, widths) for line in zip(*cells, strict=True)]


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return GAP.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def wrap(text: str, width: int, first: str = "") -> list[str]:
    """Returns the lines of a text, broken between words only; `first` starts the first line and indents the others."""
    return textwrap.wrap(
        text,
        max(width, 1),
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a Markdown table with aligned columns."""
    columns = zip(header, *rows, strict=True)
    widths = [max(3, *map(len, column)) for column in columns]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (header, *rows)]
    bar = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    first, *others = [f"| {' | '.join(line)} |" for line in lines]
    return [first, bar, *others]
