"""Length buckets hold every text once, unclipped, in few shapes; samples do not depend on their batch."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from jtextdiff.inference.batched import BATCH_SIZES, LENGTH_MULTIPLE, SMALL_BATCH, length_buckets, map_batches
from jtextdiff.inference.model import Model
from jtextdiff.methods import d3pm
from jtextdiff.methods.autoregressive import Autoregressive
from jtextdiff.methods.components.types import TextSpec
from jtextdiff.methods.d3pm import D3PM
from jtextdiff.methods.masked import Masked
from jtextdiff.nets.transformer import Transformer

LONGEST = 76


@pytest.mark.parametrize("num", [1, 3, 8, 9, 40, 64, 65, 300])
def test_buckets_hold_every_text_once_and_are_wide_enough(num: int) -> None:
    lengths = np.random.default_rng(num).integers(1, LONGEST + 1, num)
    all_rows, shapes = [], set()
    for index, (number, rows, num_real, width) in enumerate(length_buckets(lengths, LONGEST)):
        assert number == index and len(rows) in BATCH_SIZES and num_real <= len(rows)
        assert (rows[num_real:] == rows[num_real - 1]).all() and (lengths[rows] <= width).all() and width <= LONGEST
        all_rows += rows[:num_real].tolist()
        shapes.add((len(rows), width))
    assert sorted(all_rows) == list(range(num)) and len({size for size, _ in shapes}) <= 2
    assert all(width % LENGTH_MULTIPLE == 0 or width == LONGEST for _, width in shapes)


@pytest.mark.parametrize("num", [1, SMALL_BATCH, 64])
def test_texts_of_one_length_that_fit_are_one_batch(num: int) -> None:
    assert len(list(length_buckets(np.full(num, LONGEST), LONGEST))) == 1


def test_a_batch_of_many_lengths_is_padded_less() -> None:
    lengths = np.random.default_rng(0).integers(10, 44, 64)
    padded = sum(len(bucket.rows) * bucket.width for bucket in length_buckets(lengths, LONGEST))
    assert padded < 1.4 * lengths.sum() and padded < 0.5 * 64 * LONGEST


def test_outputs_of_batches_are_in_the_order_of_their_rows() -> None:
    """Rows are numbers, tokens are cut to the width of the batch, and progress counts every row once."""
    lengths = np.random.default_rng(0).integers(1, 17, 150)
    inputs, done = (np.arange(150), np.tile(np.arange(16), (150, 1))), []

    def function(bucket: Any, rows: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
        numbers, tokens = rows
        assert tokens.shape == (len(bucket.rows), bucket.width)
        return {"number": numbers, "batch": np.full(len(numbers), bucket.number)}

    outputs = map_batches(function, inputs, lengths, longest=16, progress=done.append)
    np.testing.assert_array_equal(outputs["number"], np.arange(150))
    assert sum(done) == 150 and len(done) == len(set(outputs["batch"])) == 3
    assert lengths[outputs["batch"] == 0].max() <= lengths[outputs["batch"] == 2].min()


TEXT_SPEC = TextSpec(
    vocab_size=12, mask=12, pad=0, eos=1, unk=2, length=8, length_counts=(0, 0, 9, 9, 30, 40, 50, 3, 60)
)
TRUNK = Transformer(num_layers=1, width=16, num_heads=2)


def untrained(method: Any) -> Model:
    """A model whose words are digits."""
    encode = lambda texts: [np.asarray(list(map(int, text.split()))) for text in texts]
    tokenizer: Any = SimpleNamespace(pad=0, eos=1, unk=None, encode=encode)
    return Model(method=method, params=method.init(jax.random.key(0)), tokenizer=tokenizer, config=None, step=0)


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(Masked(text_spec=TEXT_SPEC, trunk=TRUNK), marks=pytest.mark.slow),
        pytest.param(
            D3PM(text_spec=TEXT_SPEC, trunk=TRUNK, num_steps=20, sampler=d3pm.Sampler(steps=7)), marks=pytest.mark.slow
        ),
        pytest.param(
            D3PM(text_spec=TEXT_SPEC, trunk=TRUNK, num_steps=20, kernel="uniform", sampler=d3pm.Sampler(steps=7)),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["masked", "absorbing", "uniform"],
)
def test_many_samples_are_those_of_few(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample is the same in any batch and at any width."""
    monkeypatch.setattr("jtextdiff.inference.batched.LENGTH_MULTIPLE", 2)
    model = untrained(method)
    many = model.draw(70)
    assert len({int((row != 0).sum()) for row in many.tokens}) > 3
    for num in (1, 3, 20):
        output = model.draw(num)
        np.testing.assert_array_equal(many.tokens[:num], output.tokens)
        np.testing.assert_array_equal(many.calls[:num], output.calls)
    assert model.sample(0) == []


@pytest.mark.parametrize(
    "method",
    [
        Autoregressive(text_spec=TEXT_SPEC, trunk=dataclasses.replace(TRUNK, causal=True)),
        Masked(text_spec=TEXT_SPEC, trunk=TRUNK, bound_points=500),
    ],
    ids=["exact", "bound"],
)
def test_many_likelihoods_are_those_of_few(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exact likelihood does not depend on the width of its batch, nor does the mean of a bound."""
    monkeypatch.setattr("jtextdiff.inference.batched.LENGTH_MULTIPLE", 2)
    model = untrained(method)
    texts = ["3 4", "5 6 7 8 9 3"] * 40
    many, few = np.reshape(model.nll(texts), (40, 2)), model.nll(texts[:2])
    np.testing.assert_allclose(many.mean(axis=0), few, rtol=1e-5 if method.bound == "exact" else 0.05)
