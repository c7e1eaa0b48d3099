"""Training batches as a pure function of their index, and one pass over a split in order."""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jtextdiff.data.cache import Split


class Batch(NamedTuple):
    """Rows of tokens [b, l], EOS last, then PAD; `valid` [b, l] marks text and EOS.

    `given` [b, l] marks the positions that a sample is conditioned on, none here; `labels[control]` [b] are value ids.
    `progress` [b] is the share of the training steps that are done, in a training step; elsewhere None, meaning all.
    """

    tokens: NDArray[np.int32]
    valid: NDArray[np.bool_]
    given: NDArray[np.bool_]
    labels: dict[str, NDArray[np.int32]]
    progress: NDArray[np.float32] | None = None


class _EpochPlan(NamedTuple):
    """The batches of an epoch: rows [batches, b] and the length [batches] of each."""

    rows: NDArray[np.int64]
    lengths: NDArray[np.int64]


LocalRows = NDArray[np.int64] | slice
"""The rows of a batch that this host reads; other hosts read the others."""

ALL_ROWS = slice(None)


def batch_at(
    split: Split,
    step: int,
    *,
    batch_size: int,
    buckets: tuple[int, ...],
    pad: int,
    seed: int,
    local_rows: LocalRows = ALL_ROWS,
) -> Batch:
    """Returns the batch of a training step, [batch_size, one of buckets], or its `local_rows`.

    The result depends on the arguments alone, not on earlier calls. An epoch takes every row once, in batches of one
    bucket's rows, except the remainder that fills no batch. Buckets with fewer rows than a batch join the next larger
    one. If the last bucket has fewer rows than a batch, it is filled from the remainders of others, then by repeating
    rows. Raises ValueError for a row no bucket holds.
    """
    per_epoch = len(_plan_epoch(split, batch_size, buckets, seed, 0).lengths)
    epoch, index = divmod(step, per_epoch)
    plan = _plan_epoch(split, batch_size, buckets, seed, epoch)
    return _gather(split, plan.rows[index][local_rows], int(plan.lengths[index]), pad)


def lengths_from(
    split: Split, step: int, *, num_steps: int, batch_size: int, buckets: tuple[int, ...], seed: int
) -> list[int]:
    """Returns the lengths of the batches of `num_steps` training steps from `step` on, each once, in order of need."""
    epoch, index = divmod(step, len(_plan_epoch(split, batch_size, buckets, seed, 0).lengths))
    # The batches of every epoch have the same lengths, so that two epochs contain those of all.
    epoch_lengths, next_lengths = (_plan_epoch(split, batch_size, buckets, seed, epoch + i).lengths for i in range(2))
    return list(dict.fromkeys(np.concatenate((epoch_lengths[index:], next_lengths))[:num_steps].tolist()))


def batches(
    split: Split,
    *,
    batch_size: int,
    buckets: tuple[int, ...],
    pad: int,
    limit: int | None = None,
    local_rows: LocalRows = ALL_ROWS,
) -> Iterator[tuple[Batch, int]]:
    """Yields (the `local_rows` of a batch, number of real rows) over the split in its order, or over `limit` evenly
    spaced rows of it.

    A batch is as long as the bucket of its longest row. The last batch is filled by repeating its last row.
    """
    order = split.evenly_spaced(len(split) if limit is None else limit)
    bucket_of_row = _bucket_of_row(split, buckets)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        padded = np.pad(rows, (0, batch_size - len(rows)), mode="edge")
        yield _gather(split, padded[local_rows], buckets[int(bucket_of_row[rows].max())], pad), len(rows)


@lru_cache(maxsize=8)
def _bucket_of_row(split: Split, buckets: tuple[int, ...]) -> NDArray[np.int64]:
    """Returns the index of the bucket of each row [N]: the smallest that holds it."""
    lengths = np.diff(split.offsets)
    if lengths.max() > buckets[-1]:
        raise ValueError(f"a text has {lengths.max()} tokens, more than the last bucket of {buckets}")
    return np.searchsorted(buckets, lengths)


@lru_cache(maxsize=8)
def _plan_epoch(split: Split, batch_size: int, buckets: tuple[int, ...], seed: int, epoch: int) -> _EpochPlan:
    bucket_of_row = _bucket_of_row(split, buckets)
    carried = remainder = np.empty(0, dtype=np.int64)  # to the next larger bucket; of the full batches so far
    rows, lengths = [], []
    for bucket, length in enumerate(buckets):
        members = np.concatenate((carried, np.flatnonzero(bucket_of_row == bucket)))
        is_last = bucket == len(buckets) - 1
        if not is_last and len(members) < batch_size:
            carried = members
            continue
        carried = np.empty(0, dtype=np.int64)
        members = np.random.default_rng([seed, epoch, bucket]).permutation(members)
        if 0 < len(members) < batch_size:
            members = np.resize(np.concatenate((members, remainder[: batch_size - len(members)])), batch_size)
        full = len(members) - len(members) % batch_size
        remainder = np.concatenate((remainder, members[full:]))
        rows.append(members[:full].reshape(-1, batch_size))
        lengths.append(np.full(full // batch_size, length))
    order = np.random.default_rng([seed, epoch, len(buckets)]).permutation(sum(map(len, rows)))
    return _EpochPlan(np.concatenate(rows)[order], np.concatenate(lengths)[order])


def _gather(split: Split, rows: NDArray[np.int64], length: int, pad: int) -> Batch:
    starts = split.offsets[rows, None]
    positions = starts + np.arange(length)
    valid = positions < split.offsets[rows + 1, None]
    flat = np.asarray(split.tokens)  # a memmap's own indexing is slow
    tokens = np.where(valid, flat[np.where(valid, positions, starts)], pad).astype(np.int32)
    labels = {name: values[rows] for name, values in split.labels.items()}
    return Batch(tokens, valid, np.zeros_like(valid), labels)
