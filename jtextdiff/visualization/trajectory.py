"""Denoising trajectories: words and energies of a few texts at each step, from noise to text."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich.cells import cell_len, set_cell_size

Flags = tuple[tuple[tuple[bool, ...], ...], ...]
JOINERS = "\u200c\u200d"  # unprintable, but part of the spelling of Persian words and emoji
CURVE_COLOURS = ("#1f77b4", "#d95f02", "#1b9e77", "#b5479b", "#8a6d1f", "#7570b3")  # distinct on white and on black


class Curve(NamedTuple):
    """The energy of one control along a trajectory: −log p(control | x_t) in nats, at the time of each frame."""

    name: str
    nats: tuple[tuple[float, ...], ...]  # [sentence][frame]


class Trajectory(NamedTuple):
    """The states of a few sentences at each step from noise to text.

    Every sentence has one frame per time, and all its frames have the same number of positions. Two sentences may
    differ in length. A padded position holds "". A mask should have a short name, such as "·".
    """

    title: str
    times: tuple[float, ...]  # [frame], decreasing, the last 0.0
    words: tuple[tuple[tuple[str, ...], ...], ...]  # [sentence][frame][position]
    energies: tuple[Curve, ...] = ()
    guided: tuple[float, float] | None = None  # guidance acts between these times, the later first


def validate(trajectory: Trajectory) -> None:
    """Raises ValueError if there are no frames or sentences, or if words or energies are ragged."""
    if not trajectory.times or not trajectory.words:
        raise ValueError(
            "a trajectory needs at least one frame and one sentence; "
            f"got {len(trajectory.times)} frames, {len(trajectory.words)} sentences"
        )
    for index, frames in enumerate(trajectory.words):
        if len(frames) != len(trajectory.times):
            raise ValueError(
                f"sentence {index} has {len(frames)} frames for {len(trajectory.times)} times; give one per time"
            )
        if lengths := {len(frame) for frame in frames} - {len(frames[0])}:
            raise ValueError(
                f"sentence {index} has frames of {len(frames[0])} and of {min(lengths)} positions; "
                'fill the shorter with ""'
            )
    for curve in trajectory.energies:
        if [len(values) for values in curve.nats] != [len(trajectory.times)] * len(trajectory.words):
            raise ValueError(f"the energy of {curve.name!r} needs a value for each frame of each sentence")


def evenly_spaced(total: int, count: int) -> tuple[int, ...]:
    """Returns up to `count` evenly spaced indices of 0 … total - 1, both ends included. ValueError if count < 2."""
    if count < 2:
        raise ValueError(f"cannot keep both ends in {count} frames; give 2 or more")
    if total <= count:
        return tuple(range(total))
    return tuple((2 * i * (total - 1) + count - 1) // (2 * (count - 1)) for i in range(count))


def subsample(trajectory: Trajectory, num_frames: int) -> Trajectory:
    """Returns at most num_frames evenly spaced frames, the first and last included; ValueError if num_frames < 2.

    Whether a word is settled then depends on these frames alone.
    """
    validate(trajectory)
    indices = evenly_spaced(len(trajectory.times), num_frames)
    words = tuple(tuple(frames[f] for f in indices) for frames in trajectory.words)
    energies = tuple(
        Curve(name, tuple(tuple(values[f] for f in indices) for values in nats)) for name, nats in trajectory.energies
    )
    return trajectory._replace(times=tuple(trajectory.times[f] for f in indices), words=words, energies=energies)


def printable(trajectory: Trajectory) -> Trajectory:
    """Returns the trajectory without positions that are padding throughout, unprintable characters escaped.

    A newline becomes `\\n`. Terminal escapes and marks that change the reading direction are made harmless.
    """
    validate(trajectory)

    def without_padding(frames: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
        used = [any(column) for column in zip(*frames, strict=True)]
        return tuple(tuple(map(_printable, itertools.compress(frame, used))) for frame in frames)

    energies = tuple(Curve(_printable(name), nats) for name, nats in trajectory.energies)
    words = tuple(map(without_padding, trajectory.words))
    return trajectory._replace(title=_printable(trajectory.title), words=words, energies=energies)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c in JOINERS else repr(c)[1:-1] for c in text)


def settled_at(trajectory: Trajectory) -> tuple[tuple[int, ...], ...]:
    """Returns the first frame from which each word equals that of the last frame: [sentence][position]."""

    def first_frame(column: Sequence[str]) -> int:
        return next((f + 1 for f in reversed(range(len(column))) if column[f] != column[-1]), 0)

    return tuple(tuple(map(first_frame, zip(*frames, strict=True))) for frames in trajectory.words)


def settled(trajectory: Trajectory) -> Flags:
    """Returns whether each word equals the last frame's word from here on: [sentence][frame][position]."""
    frames = range(len(trajectory.times))
    return tuple(tuple(tuple(f >= s for s in starts) for f in frames) for starts in settled_at(trajectory))


def settled_share(trajectory: Trajectory) -> tuple[float, ...]:
    """Returns the share of settled positions over all sentences: [frame], in [0, 1], non-decreasing to 1."""
    starts = [start for sentence in settled_at(trajectory) for start in sentence]
    frames = range(len(trajectory.times))
    return tuple(sum(start <= f for start in starts) / len(starts) if starts else 1.0 for f in frames)


def curve_colour(index: int) -> str:
    """Returns the colour of the energy curve with this index; colours repeat after the last."""
    return CURVE_COLOURS[index % len(CURVE_COLOURS)]


def max_energy(trajectory: Trajectory) -> float:
    """Returns the top of the energy scale: the greatest finite energy in nats, and at least 1."""
    values = (value for curve in trajectory.energies for nats in curve.nats for value in nats)
    return max(itertools.chain([1.0], filter(math.isfinite, values)))


def log_height(nats: float, top: float) -> float:
    """Returns the height of an energy on the scale up to `top`, in [0, 1].

    It grows as log(1 + nats), since a missing keyword costs far more than a label.
    """
    return math.log1p(max(nats, 0.0)) / math.log1p(top)


def step_at(trajectory: Trajectory, time: float) -> float:
    """Returns the frame at which a time is reached, interpolated between two frames."""
    return float(np.interp(-time, [-t for t in trajectory.times], range(len(trajectory.times))))


def truncate(word: str, cells: int) -> str:
    """Returns the word in at most `cells` terminal cells, cut with an ellipsis if it is wider."""
    return word if cell_len(word) <= cells else set_cell_size(word, cells - 1) + "…"


def bands(widths: Sequence[int], limit: int) -> list[slice]:
    """Cuts columns into runs no wider than the limit; a column wider than that is a run of its own."""
    bands: list[slice] = []
    start = used = 0
    for column, width in enumerate(widths):
        if column > start and used + width > limit:
            bands.append(slice(start, column))
            start, used = column, 0
        used += width
    return [*bands, slice(start, len(widths))]
