"""Parameters that are drawn by NumPy: nothing is compiled for them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def random_params(init: Callable[[Any], Any], spread: float = 0.2) -> Any:
    """Returns parameters of the shapes of `init`, far from the initial ones: none is zero."""
    random = np.random.default_rng(0)

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        std = spread + (leaf.shape[0] ** -0.5 if leaf.ndim > 1 else 0.0)
        return jnp.asarray((path[-1].key == "scale") + std * random.normal(size=leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(init, jax.random.key(0)))
