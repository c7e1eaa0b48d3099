"""Turns hold every text once, none cut, in few shapes."""

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from jtextdiff.inference.batched import FEW, ROWS, WIDTH, turns
from jtextdiff.inference.model import Model
from jtextdiff.methods.components.types import Language
from jtextdiff.methods.d3pm import D3PM, Ancestral
from jtextdiff.methods.masked import Masked
from jtextdiff.nets.transformer import Transformer

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


LANGUAGE = Language(
    vocab_size=12, mask=12, pad=0, eos=1, unk=2, length=8, length_counts=(0, 0, 9, 9, 30, 40, 50, 3, 60)
)
TRUNK = Transformer(num_layers=1, width=16, num_heads=2)


@pytest.mark.parametrize(
    "method",
    [
        Masked(language=LANGUAGE, trunk=TRUNK),
        D3PM(language=LANGUAGE, trunk=TRUNK, num_steps=20, sampler=Ancestral(steps=7)),
        D3PM(language=LANGUAGE, trunk=TRUNK, num_steps=20, kernel="uniform", sampler=Ancestral(steps=7)),
    ],
    ids=["masked", "absorbing", "uniform"],
)
def test_many_samples_are_those_of_few(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever turn and width a text is drawn in, it is the same text."""
    monkeypatch.setattr("jtextdiff.inference.batched.WIDTH", 2)
    tokenizer: Any = SimpleNamespace(pad=0)
    model = Model(method=method, params=method.init(jax.random.key(0)), tokenizer=tokenizer, config=None, step=0)
    many = model.draw(70)
    assert len({int((row != 0).sum()) for row in many.tokens}) > 3
    for few in (1, 3, 20):
        drawn = model.draw(few)
        np.testing.assert_array_equal(many.tokens[:few], drawn.tokens)
        np.testing.assert_array_equal(many.calls[:few], drawn.calls)
