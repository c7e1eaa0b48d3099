"""Batches: a pure function of the step, each row once per epoch, padding separate from text."""

import numpy as np
import pytest

from jtextdiff.data.batches import batch_at, batches, lengths_from
from jtextdiff.data.cache import Split

BUCKETS = (8, 16, 24)
PAD = 0


def _split(lengths):
    """Row n is the token n + 10, repeated `lengths[n]` times; its label is n."""
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    rows = np.arange(len(lengths))
    tokens = np.repeat(rows + 10, lengths).astype(np.uint16)
    empty = np.zeros(0, np.uint8)
    return Split(
        tokens=tokens,
        offsets=offsets,
        labels={"row": rows.astype(np.int32)},
        utf8=empty,
        utf8_offsets=0 * offsets,
    )


LENGTHS = np.random.default_rng(0).integers(1, 25, size=203)


def _epoch(split, epoch, num, batch_size, **keywords):
    steps = range(epoch * num, (epoch + 1) * num)
    return [_at(split, step, batch_size=batch_size, **keywords) for step in steps]


def _at(split, step, *, batch_size=16, buckets=BUCKETS, seed=0):
    return batch_at(split, step, batch_size=batch_size, buckets=buckets, pad=PAD, seed=seed)


def _num_batches(lengths, batch_size):
    bucket_of_row = np.searchsorted(BUCKETS, lengths)
    return sum(int((bucket_of_row == bucket).sum()) // batch_size for bucket in range(len(BUCKETS)))


def _assert_equal(actual, expected):
    for name in ("tokens", "valid", "given"):
        np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name))
    np.testing.assert_array_equal(actual.labels["row"], expected.labels["row"])


def test_any_step_in_any_order_gives_the_same_rows():
    split, steps = _split(LENGTHS), list(range(60))
    forward = {step: _at(split, step) for step in steps}
    for step in np.random.default_rng(1).permutation(steps):
        _assert_equal(_at(_split(LENGTHS), int(step)), forward[int(step)])


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_an_epoch_takes_every_row_once_except_a_remainder(epoch):
    num = _num_batches(LENGTHS, 16)
    rows = np.concatenate([batch.labels["row"] for batch in _epoch(_split(LENGTHS), epoch, num, 16)])
    assert len(np.unique(rows)) == len(rows) == num * 16
    assert len(LENGTHS) - len(rows) < len(BUCKETS) * 16


def test_epochs_and_seeds_differ_and_drop_different_rows():
    split, num = _split(LENGTHS), _num_batches(LENGTHS, 16)
    first, second = (
        np.concatenate([batch.labels["row"] for batch in _epoch(split, epoch, num, 16)]) for epoch in (0, 1)
    )
    assert (first != second).any() and set(first.tolist()) != set(second.tolist())
    reseeded = np.concatenate([batch.labels["row"] for batch in _epoch(split, 0, num, 16, seed=1)])
    assert set(first.tolist()) != set(reseeded.tolist())


def test_the_order_of_lengths_differs_between_epochs_and_seeds():
    split, num = _split(LENGTHS), _num_batches(LENGTHS, 8)
    orders = [
        tuple(batch.tokens.shape[1] for batch in _epoch(split, epoch, num, 8, seed=seed))
        for epoch, seed in ((0, 0), (1, 0), (0, 1))
    ]
    assert len(set(orders)) == 3 and len({tuple(sorted(order)) for order in orders}) == 1


def test_rows_are_complete_in_their_bucket():
    split = _split(LENGTHS)
    for step in range(30):
        batch = _at(split, step)
        lengths = LENGTHS[batch.labels["row"]]
        length = batch.tokens.shape[1]
        assert length in BUCKETS and (np.searchsorted(BUCKETS, lengths) == BUCKETS.index(length)).all()
        np.testing.assert_array_equal(batch.valid, np.arange(length) < lengths[:, None])
        np.testing.assert_array_equal(batch.tokens == PAD, ~batch.valid)
        expected = np.broadcast_to(batch.labels["row"][:, None] + 10, batch.tokens.shape)
        np.testing.assert_array_equal(batch.tokens[batch.valid], expected[batch.valid])
        assert not batch.given.any() and batch.given.shape == batch.tokens.shape
        assert batch.tokens.dtype == np.int32


def test_a_bucket_smaller_than_a_batch_joins_the_next():
    split = _split([3] * 5 + [12] * 11 + [20] * 16)
    shapes = {_at(split, step).tokens.shape for step in range(2)}
    rows = np.concatenate([_at(split, step).labels["row"] for step in range(2)])
    assert shapes == {(16, 16), (16, 24)} and sorted(rows) == list(range(32))


def test_a_last_bucket_too_small_takes_remainders_before_it_repeats():
    split = _split([3] * 20 + [20] * 2)  # 16 short ones, then 2 long ones with the 4 short ones left over
    rows = [_at(split, step).labels["row"] for step in range(2)]
    assert set(np.concatenate(rows).tolist()) == set(range(22))
    tiny = _at(_split([3, 20, 5]), 0)
    assert tiny.tokens.shape == (16, 24) and set(tiny.labels["row"].tolist()) == {0, 1, 2}


def test_an_empty_last_bucket_makes_no_batch():
    split = _split([3] * 16)
    assert {_at(split, step).tokens.shape for step in range(4)} == {(16, 8)}
    assert _at(_split([3] * 5), 0).tokens.shape[0] == 16


def test_one_ordered_pass_takes_each_row_once():
    split = _split(LENGTHS)
    in_order = list(batches(split, batch_size=16, buckets=BUCKETS, pad=PAD))
    rows = np.concatenate([batch.labels["row"][:real] for batch, real in in_order])
    np.testing.assert_array_equal(rows, np.arange(203))
    last, real = in_order[-1]
    assert real == 203 % 16 and last.tokens.shape[0] == 16 and (last.labels["row"][real:] == 202).all()
    for batch, _ in in_order:
        np.testing.assert_array_equal(batch.valid.sum(1), LENGTHS[batch.labels["row"]])
        assert batch.tokens.shape[1] in BUCKETS


def test_a_limit_takes_evenly_spaced_rows():
    split = _split(LENGTHS)
    in_order = list(batches(split, batch_size=16, buckets=BUCKETS, pad=PAD, limit=50))
    rows = np.concatenate([batch.labels["row"][:real] for batch, real in in_order])
    assert len(rows) == 50 and set(np.diff(rows).tolist()) <= {4, 5} and rows[0] == 0
    unlimited = batches(split, batch_size=16, buckets=BUCKETS, pad=PAD, limit=1000)
    assert sum(real for _, real in unlimited) == 203


def test_a_row_longer_than_every_bucket_is_refused():
    with pytest.raises(ValueError, match="a text has 25 tokens, more than the last bucket"):
        _at(_split([25]), 0)


@pytest.mark.parametrize("num_steps", [1, 3, 60])
@pytest.mark.parametrize("start", [0, 5, 10, 30])
def test_lengths_are_listed_in_the_order_in_which_batches_need_them(start: int, num_steps: int) -> None:
    split = _split(LENGTHS)
    seen = dict.fromkeys(_at(split, step).tokens.shape[1] for step in range(start, start + num_steps))
    assert lengths_from(split, start, num_steps=num_steps, batch_size=16, buckets=BUCKETS, seed=0) == list(seen)
