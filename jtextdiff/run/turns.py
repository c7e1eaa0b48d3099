"""Turns: many texts in few shapes, so that few programs are compiled and little is padded."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

ROWS = (1, 8, 16, 64)
"""Batches are padded to one of these, so that few programs are compiled; more texts than the last run in turns."""

FEW = ROWS[1]
"""So many texts or fewer run in one turn at the longest length: their lengths need not be known."""

WIDTH = 8
"""More are sorted by length and padded to a multiple of this, and not to the longest length."""


def turns(
    lengths: Int[np.ndarray, "n"], longest: int, shards: int = 1
) -> Iterator[tuple[Int[np.ndarray, "m"], int, int]]:
    """(rows, how many of them are real, width) of each turn: rows of like lengths, repeated up to one of ROWS for each
    of the `shards` into which they are divided."""
    order, varied = np.argsort(lengths, kind="stable"), len(np.unique(lengths)) > 1
    sizes = [rows * shards for rows in ROWS]
    # A batch that would fit into one turn is cut in smaller ones only for what it saves in padding.
    most = sizes[-2] if varied and len(lengths) <= sizes[-1] else sizes[-1]
    for start in range(0, len(order), most):
        rows = order[start : start + most]
        size = next(size for size in sizes if size >= len(rows))
        width = min(-(-int(lengths[rows[-1]]) // WIDTH) * WIDTH, longest)
        yield np.concatenate([rows, np.repeat(rows[-1:], size - len(rows))]), len(rows), width
