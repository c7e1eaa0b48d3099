"""A film of denoising in the terminal: played, or a few of its frames printed where there is no terminal."""

import time
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jtextdiff.visualization.trajectory import (
    Film,
    Flags,
    bands,
    curve_colour,
    fit,
    presentable,
    settled,
    settled_share,
    spread,
)

FRAMES_PER_SECOND = 24
PRINTED_FRAMES = 5
NARROWEST_SLOT = 6  # terminal cells: room to see that something is going on where a full stop will stand


def play(film: Film, console: Console, seconds: float = 6.0) -> None:
    """Plays the film in the terminal; elsewhere prints a few of its frames, a sentence a line.

    Settled words are bold and coloured, the others dim; energies stand beside them. ValueError for a malformed film.
    """
    film = presentable(film)
    flags, shares = settled(film), settled_share(film)
    if not console.is_terminal or console.is_dumb_terminal:
        for f in spread(len(film.times), PRINTED_FRAMES):
            for s, frames in enumerate(film.words):
                line = Text(f"t={film.times[f]:.2f}  " + " ".join(filter(None, frames[f])))
                if film.energies:
                    line.append("   ").append_text(_energies(film, s, f))
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
    for s, (frames, flag) in enumerate(zip(film.words, flags, strict=True)):
        parts += [_sentence(frames[f], frames[-1], flag[f], width)]
        parts += [_energies(film, s, f), Text()] if film.energies else [Text()]
    return Group(*parts)


def _energies(film: Film, s: int, f: int) -> Text:
    """The energies of a sentence in a frame, nats, each behind its name."""
    values = [(f"{curve.name} {curve.nats[s][f]:.2f}", curve_colour(c)) for c, curve in enumerate(film.energies)]
    return Text("  ").join(Text(text, style=colour) for text, colour in values)


def _sentence(words: Sequence[str], last: Sequence[str], flag: Sequence[bool], width: int) -> Text:
    """A sentence whose words stand in slots as wide as the word to come, so that nothing jumps."""
    if all(flag):
        return Text(" ".join(filter(None, words)), style="bold cyan")
    slots = [max(cell_len(word), NARROWEST_SLOT) for word in last]
    lines = []
    for band in bands([slot + 1 for slot in slots], width):
        line = Text(no_wrap=True)
        for word, is_settled, slot in zip(words[band], flag[band], slots[band], strict=True):
            line.append(set_cell_size(fit(word, slot), slot), style="bold cyan" if is_settled else "dim")
            line.append(" ")
        lines.append(line)
    return Text("\n").join(lines)
