"""Jitted method functions over any number of texts, in padded batches."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from jtextdiff.devices.sharding import batch_sharding, num_shards, on_mesh, replicated

BATCH_SIZES = (1, 8, 16, 64)
"""A batch is padded to one of these sizes, so that few programs are compiled. More texts run in several batches."""

SMALL_BATCH = BATCH_SIZES[1]
"""Up to this many texts run in one batch at the longest length, so that their lengths need not be computed."""

LENGTH_MULTIPLE = 8
"""More texts are sorted by length and padded to a multiple of this, instead of the longest length."""


class LengthBucket(NamedTuple):
    """One padded batch: rows of similar lengths."""

    number: int  # of the batch, from 0
    rows: Int[np.ndarray, "m"]  # the last row is repeated until the batch has its size
    num_real: int  # rows before the repetitions
    width: int  # positions


def length_buckets(lengths: Int[np.ndarray, "n"], longest: int, shards: int = 1) -> Iterator[LengthBucket]:
    """Groups rows by length into batches of `BATCH_SIZES` times `shards` rows, no wider than `longest`."""
    order, varied = np.argsort(lengths, kind="stable"), len(np.unique(lengths)) > 1
    sizes = [size * shards for size in BATCH_SIZES]
    # Rows that fit into one batch are split into smaller ones only where that saves padding.
    largest = sizes[-2] if varied and len(lengths) <= sizes[-1] else sizes[-1]
    for number, start in enumerate(range(0, len(order), largest)):
        rows = order[start : start + largest]
        size = next(size for size in sizes if size >= len(rows))
        width = min(-(-int(lengths[rows[-1]]) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, longest)
        padded = np.concatenate([rows, np.repeat(rows[-1:], size - len(rows))])
        yield LengthBucket(number, padded, len(rows), width)


def map_batches(
    function: Callable[[LengthBucket, Any], Any],
    inputs: Any,
    lengths: Int[np.ndarray, "n"],
    *,
    longest: int,
    shards: int = 1,
    progress: Callable[[int], None] = lambda num_done: None,
) -> Any:
    """Calls `function(bucket, inputs of its rows)` per length bucket and returns its outputs in the order of the rows.

    `inputs` is a pytree of arrays with one row per text; an axis of positions, if there is one, is the second. The
    outputs, in plain containers, become NumPy arrays with one row per text. `progress` receives the number of texts in
    each finished batch. There must be at least one text.
    """
    inputs, outputs = jax.tree.map(_on_host, inputs), None
    for bucket in length_buckets(lengths, longest, shards):
        output = jax.device_get(function(bucket, jax.tree.map(functools.partial(_take, bucket), inputs)))
        if outputs is None:
            outputs = jax.tree.map(lambda leaf: np.zeros((len(lengths), *leaf.shape[1:]), leaf.dtype), output)
        jax.tree.map(functools.partial(_put, bucket), outputs, output)
        progress(bucket.num_real)
    return outputs


def _on_host(leaf: Any) -> Any:
    """NumPy takes rows without a program for each operation; keys have no form in NumPy."""
    return leaf if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else np.asarray(leaf)


def _take(bucket: LengthBucket, leaf: Any) -> Any:
    """The rows of a bucket; of an array with positions, its first `width`."""
    return leaf[bucket.rows, : bucket.width] if leaf.ndim > 1 else leaf[bucket.rows]


def _put(bucket: LengthBucket, leaf: np.ndarray, rows: np.ndarray) -> None:
    """Writes the real rows of a bucket to their places."""
    leaf[bucket.rows[: bucket.num_real]] = rows[: bucket.num_real]


@functools.lru_cache(maxsize=32)
def jitted(method: Any, name: str, mesh: Mesh | None = None, **static: Any) -> Any:
    """Returns a method's function compiled once per batch shape. A method is a hashable value without parameters.

    On a mesh, the rows of all arguments after the parameters are divided over its devices where their number allows
    it; the result is whole on each device.
    """
    function = functools.partial(getattr(method, name), **static)
    if mesh is None:
        return jax.jit(function)
    row_sharding, shards = batch_sharding(mesh), num_shards(mesh)

    def divide(leaf: Any) -> Any:
        divisible = jnp.ndim(leaf) and leaf.shape[0] % shards == 0
        return jax.lax.with_sharding_constraint(leaf, row_sharding) if divisible else leaf

    def on_rows(params: Any, *arguments: Any, **keywords: Any) -> Any:
        return function(params, *jax.tree.map(divide, arguments), **keywords)

    return jax.jit(on_mesh(on_rows, mesh), out_shardings=replicated(mesh))
