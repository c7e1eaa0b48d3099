"""Batches: the rows of any training step, as a pure function of its number; and one ordered pass."""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jtextdiff.data.cache import Split


class Batch(NamedTuple):
    """Rows of tokens [b, l], EOS last, then PAD; `valid` [b, l] marks text and EOS.

    `given` [b, l] marks the positions a model is told, none here; `labels[control]` [b] are value ids. `progress` [b]
    is the share of the training that is done, in a training step; elsewhere None, which is all of it.
    """

    tokens: NDArray[np.int32]
    valid: NDArray[np.bool_]
    given: NDArray[np.bool_]
    labels: dict[str, NDArray[np.int32]]
    progress: NDArray[np.float32] | None = None


class _Plan(NamedTuple):
    """The batches of an epoch: rows [batches, b] and the length [batches] of each."""

    rows: NDArray[np.int64]
    lengths: NDArray[np.int64]


Mine = NDArray[np.int64] | slice
"""The rows of a batch that are read here; others are another host's."""

ALL = slice(None)


def batch_at(
    split: Split, step: int, *, batch_size: int, buckets: tuple[int, ...], pad: int, seed: int, mine: Mine = ALL
) -> Batch:
    """The batch of a training step, [batch_size, one of buckets], or those rows of it that are `mine`: the same
    whenever and however often asked.

    An epoch takes every row once, in batches of one bucket's rows, except the remainder that fills no batch.
    Buckets with fewer rows than a batch join the next larger one; a last one too small is filled from the
    other buckets' remainders, then by repeating rows. Raises ValueError for a row no bucket holds.
    """
    per_epoch = len(_plan(split, batch_size, buckets, seed, 0).lengths)
    epoch, place = divmod(step, per_epoch)
    plan = _plan(split, batch_size, buckets, seed, epoch)
    return _gather(split, plan.rows[place][mine], int(plan.lengths[place]), pad)


def batches(
    split: Split, *, batch_size: int, buckets: tuple[int, ...], pad: int, limit: int | None = None, mine: Mine = ALL
) -> Iterator[tuple[Batch, int]]:
    """(batch, number of real rows) over the split in its order, or over `limit` rows evenly taken from it; of each
    batch the rows that are `mine`.

    A batch is as long as the bucket of its longest row; the last is filled by repeating its last row.
    """
    chosen = split.evenly(len(split) if limit is None else limit)
    places = _bucket_of(split, buckets)
    for start in range(0, len(chosen), batch_size):
        rows = chosen[start : start + batch_size]
        filled = np.pad(rows, (0, batch_size - len(rows)), mode="edge")
        yield _gather(split, filled[mine], buckets[int(places[rows].max())], pad), len(rows)


@lru_cache(maxsize=8)
def _bucket_of(split: Split, buckets: tuple[int, ...]) -> NDArray[np.int64]:
    """The index of the bucket of each row [N]: the smallest that holds it."""
    lengths = np.diff(split.offsets)
    if lengths.max() > buckets[-1]:
        raise ValueError(f"a text has {lengths.max()} tokens, more than the last bucket of {buckets}")
    return np.searchsorted(buckets, lengths)


@lru_cache(maxsize=8)
def _plan(split: Split, batch_size: int, buckets: tuple[int, ...], seed: int, epoch: int) -> _Plan:
    places = _bucket_of(split, buckets)
    waiting = spare = np.empty(0, dtype=np.int64)
    rows, lengths = [], []
    for bucket, length in enumerate(buckets):
        members = np.concatenate((waiting, np.flatnonzero(places == bucket)))
        last = bucket == len(buckets) - 1
        if not last and len(members) < batch_size:
            waiting = members
            continue
        waiting = np.empty(0, dtype=np.int64)
        members = np.random.default_rng([seed, epoch, bucket]).permutation(members)
        if 0 < len(members) < batch_size:
            members = np.resize(np.concatenate((members, spare[: batch_size - len(members)])), batch_size)
        full = len(members) - len(members) % batch_size
        spare = np.concatenate((spare, members[full:]))
        rows.append(members[:full].reshape(-1, batch_size))
        lengths.append(np.full(full // batch_size, length))
    order = np.random.default_rng([seed, epoch, len(buckets)]).permutation(sum(map(len, rows)))
    return _Plan(np.concatenate(rows)[order], np.concatenate(lengths)[order])


def _gather(split: Split, rows: NDArray[np.int64], length: int, pad: int) -> Batch:
    starts = split.offsets[rows, None]
    at = starts + np.arange(length)
    valid = at < split.offsets[rows + 1, None]
    flat = np.asarray(split.tokens)  # a memmap's own indexing is slow
    tokens = np.where(valid, flat[np.where(valid, at, starts)], pad).astype(np.int32)
    labels = {name: values[rows] for name, values in split.labels.items()}
    return Batch(tokens, valid, np.zeros_like(valid), labels)
