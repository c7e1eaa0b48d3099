"""Flax networks as values: `init` returns nested dictionaries of parameters, `bind` a module over them.

This is the only interface to flax.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Key

Params = dict[str, Any]
"""Nested dictionaries of arrays, with string keys."""


@dataclass(frozen=True)
class Net:
    """A network, defined by the function that constructs its module, and the type of its parameters.

    A layer with a bfloat16 parameter and a float32 input computes in float32: the type changes what is stored alone.
    """

    make: Callable[[nnx.Rngs], nnx.Module]
    param_dtype: str = "float32"

    def init(self, key: Key[Array, ""]) -> Params:
        """Returns freshly initialised parameters."""
        state = nnx.state(self.make(nnx.Rngs(key)), nnx.Param)
        params = _with_keys(nnx.to_pure_dict(state), str)
        half = self.param_dtype == "bfloat16"
        return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params) if half else params

    def bind(self, params: Params) -> Any:
        """Returns the module over `params`. Inside a traced function this is free at run time."""
        graph, state = _skeleton(self)
        state = jax.tree.map(lambda leaf: leaf, state)  # a copy: replacing writes in place
        nnx.replace_by_pure_dict(state, _with_keys(params, lambda name: int(name) if name.isdigit() else name))
        return nnx.merge(graph, state)


@functools.lru_cache(maxsize=32)
def _skeleton(net: Net) -> tuple[Any, Any]:
    """Returns the module's graph and the shapes of its parameters. Cached per network, since tracing it is slow."""
    return nnx.split(nnx.eval_shape(lambda: net.make(nnx.Rngs(0))), nnx.Param)


def _with_keys(tree: Any, convert: Callable[[Any], Any]) -> Any:
    """Returns the tree with every key converted: lists are numbered by int in nnx and by str on disk."""
    if not isinstance(tree, dict):
        return tree
    return {convert(name): _with_keys(child, convert) for name, child in tree.items()}
