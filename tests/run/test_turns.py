"""Turns hold every text once, none cut, in few shapes."""

import numpy as np
import pytest

from jtextdiff.run.turns import FEW, ROWS, WIDTH, turns

LONGEST = 76


@pytest.mark.parametrize("num", [1, 3, 8, 9, 40, 64, 65, 300])
def test_every_text_has_its_turn_and_its_width(num: int) -> None:
    lengths = np.random.default_rng(num).integers(1, LONGEST + 1, num)
    seen, shapes = [], set()
    for rows, real, width in turns(lengths, LONGEST):
        assert len(rows) in ROWS and real <= len(rows) and (rows[real:] == rows[real - 1]).all()
        assert (lengths[rows] <= width).all() and width <= LONGEST
        seen += rows[:real].tolist()
        shapes.add((len(rows), width))
    assert sorted(seen) == list(range(num))
    assert len({rows for rows, _ in shapes}) <= 2 and all(width % WIDTH == 0 or width == LONGEST for _, width in shapes)


@pytest.mark.parametrize("num", [1, FEW, 64])
def test_texts_of_one_length_that_fit_are_one_turn(num: int) -> None:
    assert len(list(turns(np.full(num, LONGEST), LONGEST))) == 1


def test_a_batch_of_many_lengths_is_padded_less() -> None:
    lengths = np.random.default_rng(0).integers(10, 44, 64)
    padded = sum(len(rows) * width for rows, _, width in turns(lengths, LONGEST))
    assert padded < 1.4 * lengths.sum() and padded < 0.5 * 64 * LONGEST
