"""The one seam to flax: a network as a value that makes a dictionary of parameters and reads with one."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Key

Params = dict[str, Any]
"""Nested dictionaries of arrays; all that leaves this floor."""


@dataclass(frozen=True)
class Net:
    """How to make a network's parameters, and how to read with them."""

    make: Callable[[nnx.Rngs], nnx.Module]

    def init(self, key: Key[Array, ""]) -> Params:
        """Fresh parameters as nested dictionaries with string keys."""
        state = nnx.state(self.make(nnx.Rngs(key)), nnx.Param)
        return _renamed(nnx.to_pure_dict(state), str)

    def bind(self, params: Params) -> Any:
        """The module over `params`: for use inside a traced function, where it costs nothing at run time."""
        graph, state = _skeleton(self)
        state = jax.tree.map(lambda leaf: leaf, state)  # a copy: replacing writes in place
        nnx.replace_by_pure_dict(state, _renamed(params, lambda name: int(name) if name.isdigit() else name))
        return nnx.merge(graph, state)


@functools.lru_cache(maxsize=32)
def _skeleton(net: Net) -> tuple[Any, Any]:
    """The module's graph and the shapes of its parameters; made once a network, since tracing it is slow."""
    return nnx.split(nnx.eval_shape(lambda: net.make(nnx.Rngs(0))), nnx.Param)


def _renamed(tree: Any, rename: Callable[[Any], Any]) -> Any:
    """The same tree with every key renamed: lists are numbered by int in nnx and by str on disk."""
    if not isinstance(tree, dict):
        return tree
    return {rename(name): _renamed(child, rename) for name, child in tree.items()}
