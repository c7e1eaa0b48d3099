"""Randomness: keys are derived, never carried, and a sample's noise depends on its own key alone."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

Keys = Key[Array, "*rows"]
"""One key for a whole batch (training), or one key a row (sampling)."""


def keys_for(key: Key[Array, ""], sample_ids: Int[Array, "b"]) -> Key[Array, "b"]:
    """One key a sample, from its global number: the same whatever the batch or the mesh it is drawn in."""
    return jax.vmap(lambda sample_id: jax.random.fold_in(key, sample_id))(sample_ids)


def fold(keys: Keys, data: int | Int[Array, ""]) -> Keys:
    """Derives the keys of one purpose or one step: `fold_in`, row by row."""
    if keys.ndim == 0:
        return jax.random.fold_in(keys, data)
    return jax.vmap(lambda key: jax.random.fold_in(key, data))(keys)


def draw(sampler: Callable[[Array, tuple[int, ...]], Array], keys: Keys, shape: tuple[int, ...]) -> Array:
    """`sampler(key, shape)`; with a key a row, every row of `shape` is drawn from its own key."""
    if keys.ndim == 0:
        return sampler(keys, shape)
    return jax.vmap(lambda key: sampler(key, shape[1:]))(keys)


def stratified(key: Key[Array, ""], num: int) -> Array:
    """Times in (0, 1], [num]: one a stratum of equal width, in random order.

    Every row is uniform on its own, while the batch covers the interval evenly, which takes most of the
    variance out of a mean over times (Kingma et al. 2021, appendix I.1, with a jitter of its own per row).
    """
    jitter, order = jax.random.split(key)
    strata = jax.random.permutation(order, num)
    return (strata + (1.0 - jax.random.uniform(jitter, (num,)))) / num  # never rounds to 0


def on_grid(key: Key[Array, ""], shape: tuple[int, ...], num_steps: int) -> Array:
    """Times of this shape among 1/T, 2/T, …, 1, spread evenly over all of it."""
    return jnp.ceil(stratified(key, math.prod(shape)).reshape(shape) * num_steps) / num_steps
