"""Plays a trajectory in the terminal.

Without a terminal, a few of its frames are printed instead.
"""

import time
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jtextdiff.visualization.trajectory import (
    Flags,
    Trajectory,
    bands,
    curve_colour,
    evenly_spaced,
    printable,
    settled,
    settled_share,
    truncate,
)

FRAMES_PER_SECOND = 24
PRINTED_FRAMES = 5
NARROWEST_SLOT = 6  # terminal cells: changing words stay visible where the last word is a full stop


def play(trajectory: Trajectory, console: Console, seconds: float = 6.0) -> None:
    """Plays the trajectory in the terminal. Without a terminal, prints a few frames, one line per sentence.

    Settled words are bold and coloured, the others dim; energies follow the words. Raises ValueError for a malformed
    trajectory.
    """
    trajectory = printable(trajectory)
    if not console.is_terminal or console.is_dumb_terminal:
        _print_frames(trajectory, console)
        return
    flags, shares = settled(trajectory), settled_share(trajectory)
    frames = evenly_spaced(len(trajectory.times), max(2, round(seconds * FRAMES_PER_SECOND)))
    with Live(console=console, auto_refresh=False) as live:
        for f in frames:
            live.update(_screen(trajectory, f, flags, shares[f], console.width), refresh=True)
            time.sleep(seconds / len(frames))


def _print_frames(trajectory: Trajectory, console: Console) -> None:
    for f in evenly_spaced(len(trajectory.times), PRINTED_FRAMES):
        for s, frames in enumerate(trajectory.words):
            line = Text(f"t={trajectory.times[f]:.2f}  " + " ".join(filter(None, frames[f])))
            if trajectory.energies:
                line.append("   ").append_text(_energies(trajectory, s, f))
            console.print(line, soft_wrap=True)


def _screen(trajectory: Trajectory, f: int, flags: Flags, share: float, width: int) -> Group:
    """Returns frame `f` for rich: a head line with title, time and progress, then the sentences."""
    head = Table.grid(padding=(0, 3))
    head.add_row(
        Text(trajectory.title, style="bold"),
        Text(f"t={trajectory.times[f]:.2f}", style="dim"),
        ProgressBar(total=1.0, completed=share, width=24, complete_style="cyan", finished_style="cyan"),
    )
    parts: list[Text | Table] = [head, Text()]
    for s, (frames, flag) in enumerate(zip(trajectory.words, flags, strict=True)):
        parts += [_sentence(frames[f], frames[-1], flag[f], width)]
        parts += [_energies(trajectory, s, f), Text()] if trajectory.energies else [Text()]
    return Group(*parts)


def _energies(trajectory: Trajectory, s: int, f: int) -> Text:
    """Returns the energies of sentence `s` in frame `f`, each as its name and nats."""
    values = [(f"{curve.name} {curve.nats[s][f]:.2f}", curve_colour(c)) for c, curve in enumerate(trajectory.energies)]
    return Text("  ").join(Text(text, style=colour) for text, colour in values)


def _sentence(words: Sequence[str], last: Sequence[str], flag: Sequence[bool], width: int) -> Text:
    """Returns a sentence whose words are set in slots as wide as their last word, so that nothing moves."""
    if all(flag):
        return Text(" ".join(filter(None, words)), style="bold cyan")
    slots = [max(cell_len(word), NARROWEST_SLOT) for word in last]
    lines = []
    for band in bands([slot + 1 for slot in slots], width):
        line = Text(no_wrap=True)
        for word, is_settled, slot in zip(words[band], flag[band], slots[band], strict=True):
            line.append(set_cell_size(truncate(word, slot), slot), style="bold cyan" if is_settled else "dim")
            line.append(" ")
        lines.append(line)
    return Text("\n").join(lines)
