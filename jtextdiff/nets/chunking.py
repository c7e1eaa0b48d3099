"""Pieces: what is large at every position is made for some of them at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

PIECE = 2**23
"""Numbers that `by_pieces` makes at a time: 32 MiB of float32."""


def by_pieces(values: Callable[..., Any], size: int, *arrays: Array) -> Any:
    """values(*arrays) of arrays [b, l, …], a tree of [b, l, …], in equal pieces of the positions.

    `values` may make arrays of `size` numbers a position: a piece has PIECE of them at most, where b alone allows it,
    and of more than one piece each is made again for the gradient, so that none is kept.
    """
    num, length = arrays[0].shape[:2]
    fits = lambda parts: num * size * length <= PIECE * parts
    parts = next(parts for parts in range(1, length + 1) if length % parts == 0 and (fits(parts) or parts == length))
    if parts == 1:
        return values(*arrays)
    cut = [jnp.moveaxis(array.reshape(num, parts, -1, *array.shape[2:]), 1, 0) for array in arrays]
    found = jax.lax.map(jax.checkpoint(lambda piece: values(*piece)), cut)
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1).reshape(num, length, *leaf.shape[3:]), found)
