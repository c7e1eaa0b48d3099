"""Maps a function over chunks of positions to bound memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

CHUNK_SIZE = 2**23
"""Numbers that `map_chunks` computes at a time: 32 MiB of float32."""


def map_chunks(function: Callable[..., Any], size: int, *arrays: Array) -> Any:
    """Returns function(*arrays) of arrays [b, l, …], a tree of [b, l, …], computed in equal chunks of the positions.

    `function` may create arrays of `size` numbers per position: a chunk has at most CHUNK_SIZE of them, if b alone
    allows it. With more than one chunk, each is recomputed for the gradient, so that none is stored.
    """
    num, length = arrays[0].shape[:2]

    def fits(num_chunks: int) -> bool:
        return num * size * length <= CHUNK_SIZE * num_chunks or num_chunks == length

    num_chunks = next(n for n in range(1, length + 1) if length % n == 0 and fits(n))
    if num_chunks == 1:
        return function(*arrays)
    chunks = [jnp.moveaxis(array.reshape(num, num_chunks, -1, *array.shape[2:]), 1, 0) for array in arrays]
    results = jax.lax.map(jax.checkpoint(lambda chunk: function(*chunk)), chunks)
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1).reshape(num, length, *leaf.shape[3:]), results)
