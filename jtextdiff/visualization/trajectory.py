"""Films of denoising: sentences on their way from noise (t = 1) to text (t = 0), and the energies that they follow."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich.cells import cell_len, set_cell_size

Flags = tuple[tuple[tuple[bool, ...], ...], ...]
JOINERS = "\u200c\u200d"  # unprintable, but part of how Persian words and emoji are spelt
CURVE_COLOURS = ("#1f77b4", "#d95f02", "#1b9e77", "#b5479b", "#8a6d1f", "#7570b3")  # told apart on white and on black


class Curve(NamedTuple):
    """The energy of one control on the way: −log p(control | x_t) in nats, at each frame's own time."""

    name: str
    nats: tuple[tuple[float, ...], ...]  # [sentence][frame]


class Film(NamedTuple):
    """The states of a few sentences on the way from noise to text.

    Every sentence has one frame a time, and all its frames have equally many positions; two sentences may
    differ in length. A padded position holds "". A mask is best called something short, such as "·".
    """

    title: str
    times: tuple[float, ...]  # [frame], falling, the last 0.0
    words: tuple[tuple[tuple[str, ...], ...], ...]  # [sentence][frame][position]
    energies: tuple[Curve, ...] = ()
    guided: tuple[float, float] | None = None  # the times between which the energies were followed, the later first


def check(film: Film) -> None:
    """Raises ValueError for a film without frames or sentences, or with ragged ones, of words or of energies."""
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
    for curve in film.energies:
        if [len(values) for values in curve.nats] != [len(film.times)] * len(film.words):
            raise ValueError(f"the energy of {curve.name!r} needs a value for each frame of each sentence")


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
    energies = tuple(
        Curve(name, tuple(tuple(values[f] for f in kept) for values in nats)) for name, nats in film.energies
    )
    return film._replace(times=tuple(film.times[f] for f in kept), words=words, energies=energies)


def presentable(film: Film) -> Film:
    """The film without positions that are padding throughout, unprintable characters written as escapes.

    A newline becomes `\\n`; terminal escapes and marks that turn the reading direction are disarmed.
    """
    check(film)

    def shown(frames: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
        used = [any(column) for column in zip(*frames, strict=True)]
        return tuple(tuple(map(_printable, itertools.compress(frame, used))) for frame in frames)

    energies = tuple(Curve(_printable(name), nats) for name, nats in film.energies)
    return film._replace(title=_printable(film.title), words=tuple(map(shown, film.words)), energies=energies)


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


def curve_colour(index: int) -> str:
    """The colour of a film's curves, one after another; after the last the first comes again."""
    return CURVE_COLOURS[index % len(CURVE_COLOURS)]


def most_nats(film: Film) -> float:
    """The top of the scale for a film's energies: the greatest that is a number, in nats, and at least 1."""
    every = (value for curve in film.energies for values in curve.nats for value in values)
    return max(itertools.chain([1.0], filter(math.isfinite, every)))


def height(nats: float, most: float) -> float:
    """Where an energy stands on that scale, in [0, 1]: log(1 + nats), as a keyword that is missing costs far more
    than a label."""
    return math.log1p(max(nats, 0.0)) / math.log1p(most)


def step_at(film: Film, time: float) -> float:
    """The frame, or the place between two, at which a time is reached."""
    return float(np.interp(-time, [-t for t in film.times], range(len(film.times))))


def fit(word: str, cells: int) -> str:
    """The word in at most so many terminal cells, cut with an ellipsis where it is wider."""
    return word if cell_len(word) <= cells else set_cell_size(word, cells - 1) + "…"


def bands(widths: Sequence[int], limit: int) -> list[slice]:
    """Cuts columns into runs no wider than the limit; a column wider than that stands alone."""
    bands: list[slice] = []
    start = used = 0
    for column, width in enumerate(widths):
        if column > start and used + width > limit:
            bands.append(slice(start, column))
            start, used = column, 0
        used += width
    return [*bands, slice(start, len(widths))]
