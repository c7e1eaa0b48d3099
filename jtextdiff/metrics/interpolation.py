"""Scores of several settings of one method, read off where another score has a given level."""

from collections.abc import Sequence
from itertools import pairwise

Point = tuple[float, float, float]
"""The score that is held equal, the score that is read off, and its standard error."""


def value_at(level: float, points: Sequence[Point]) -> tuple[float | None, float | None]:
    """Returns the score at a level of the other, linearly between the two neighbouring points, and its error.

    The error is interpolated as well, since the points are scores of the same texts or seeds, whose errors go together;
    that of the level is left out. (None, None) where the level is outside the points.
    """
    for (low, low_value, low_se), (high, high_value, high_se) in pairwise(sorted(points)):
        if low <= level <= high and low < high:
            share = (level - low) / (high - low)
            return low_value + share * (high_value - low_value), low_se + share * (high_se - low_se)
    return None, None
