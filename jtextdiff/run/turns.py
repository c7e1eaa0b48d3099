"""Turns: many texts in few shapes, so that few programs are compiled and little is padded."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

ROWS = (1, 8, 64)
"""Batches are padded to one of these, so that few programs are compiled; more samples run in turns."""

WIDTH = 16
"""Where there are many, texts are padded to a multiple of this and not to the longest length."""


def turns(lengths: Int[np.ndarray, "n"], longest: int) -> Iterator[tuple[Int[np.ndarray, "m"], int, int]]:
    """(rows, how many of them are real, width) of each turn: rows of like lengths, repeated up to one of ROWS."""
    widths = np.minimum(-(-lengths // WIDTH) * WIDTH, longest)
    for width in np.unique(widths):
        (like,) = np.nonzero(widths == width)
        for start in range(0, len(like), ROWS[-1]):
            rows = like[start : start + ROWS[-1]]
            size = next(size for size in ROWS if size >= len(rows))
            yield np.concatenate([rows, np.repeat(rows[-1:], size - len(rows))]), len(rows), int(width)
