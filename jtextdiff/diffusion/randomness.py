"""Random keys, one per sample, and stratified times.

Keys are derived from a root key and never carried from step to step. A sample's noise depends on its own key alone.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

Keys = Key[Array, "*rows"]
"""One key for a whole batch (training), or one key per row (sampling)."""


@jax.jit
def keys_for(key: Key[Array, ""], sample_ids: Int[Array, "b"]) -> Key[Array, "b"]:
    """Returns one key per sample, derived from its global number: the same in any batch and on any mesh."""
    return jax.vmap(lambda sample_id: jax.random.fold_in(key, sample_id))(sample_ids)


def fold_in(keys: Keys, data: int | Int[Array, ""]) -> Keys:
    """Derives the keys of one purpose or one step: `jax.random.fold_in`, row by row."""
    if keys.ndim == 0:
        return jax.random.fold_in(keys, data)
    return jax.vmap(lambda key: jax.random.fold_in(key, data))(keys)


def per_row(sampler: Callable[[Array, tuple[int, ...]], Array], keys: Keys, shape: tuple[int, ...]) -> Array:
    """Returns `sampler(key, shape)`; with one key per row, samples each row of `shape` from its own key."""
    if keys.ndim == 0:
        return sampler(keys, shape)
    return jax.vmap(lambda key: sampler(key, shape[1:]))(keys)


def stratified(key: Key[Array, ""], num: int) -> Array:
    """Returns times in (0, 1], [num]: one per stratum of equal width, in random order.

    Each time is uniform on its own, while the batch covers the interval evenly. This removes most of the variance of a
    mean over times (Kingma et al. 2021, appendix I.1, here with an independent jitter per row).
    """
    jitter, order = jax.random.split(key)
    strata = jax.random.permutation(order, num)
    return (strata + (1.0 - jax.random.uniform(jitter, (num,)))) / num  # never rounds to 0


def stratified_on_grid(key: Key[Array, ""], shape: tuple[int, ...], num_steps: int) -> Array:
    """Returns times of this shape on the grid 1/T, 2/T, …, 1 with T = `num_steps`, spread evenly over it."""
    return jnp.ceil(stratified(key, math.prod(shape)).reshape(shape) * num_steps) / num_steps
