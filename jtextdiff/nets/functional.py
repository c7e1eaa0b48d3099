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
    """A network, defined by the function that constructs its module, the type of its parameters and its adapters.

    With a `lora_rank` r each kernel W of a block is W + A B with A of r columns, and A and B alone have gradients: a
    low-rank adaptation (Hu et al. 2021, arXiv:2106.09685) by the package qwix. B is zero at first.

    A layer with a bfloat16 parameter and a float32 input computes in float32: the type changes what is stored alone.
    """

    make: Callable[[nnx.Rngs], nnx.Module]
    param_dtype: str = "float32"
    lora_rank: int = 0

    def module(self, rngs: nnx.Rngs) -> nnx.Module:
        """Returns the module with fresh parameters."""
        return _adapted(self.make(rngs), self.lora_rank, rngs) if self.lora_rank else self.make(rngs)

    def init(self, key: Key[Array, ""]) -> Params:
        """Returns freshly initialised parameters."""
        state = nnx.state(self.module(nnx.Rngs(key)), nnx.Param)
        params = _with_keys(nnx.to_pure_dict(state), str)
        if self.param_dtype == "float32":
            return params
        return map_base(lambda leaf: leaf.astype(jnp.bfloat16), params)

    def bind(self, params: Params) -> Any:
        """Returns the module over `params`. Inside a traced function this is free at run time."""
        params = map_base(jax.lax.stop_gradient, params) if self.lora_rank else params
        graph, state = _skeleton(self)
        state = jax.tree.map(lambda leaf: leaf, state)  # a copy: replacing writes in place
        nnx.replace_by_pure_dict(state, _with_keys(params, lambda name: int(name) if name.isdigit() else name))
        return nnx.merge(graph, state)


def is_adapter(path: Any) -> bool:
    """Returns whether a leaf of parameters at this path is part of an adapter."""
    return "_lora_" in str(getattr(path[-1], "key", path[-1]))


def has_adapters(params: Params) -> bool:
    return any(is_adapter(path) for path, _ in jax.tree_util.tree_leaves_with_path(params))


def map_base(function: Callable[[Array], Array], params: Params) -> Params:
    """Applies a function to all parameters but those of adapters."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: leaf if is_adapter(path) else function(leaf), params)


def adapters_of(params: Params) -> Params:
    """Returns the parameters of adapters alone."""
    parts = {name: adapters_of(child) if isinstance(child, dict) else child for name, child in params.items()}
    return {name: part for name, part in parts.items() if (part if isinstance(part, dict) else "_lora_" in name)}


def with_adapters(params: Params, adapters: Params) -> Params:
    """Returns parameters with those of adapters beside them."""
    below = {name: with_adapters(params[name], part) for name, part in adapters.items() if isinstance(part, dict)}
    return {**params, **adapters, **below}


def merged(params: Params) -> Params:
    """Returns parameters without adapters, whose kernels are W + A B, in float32: bfloat16 could round A B away."""
    parts: dict[str, Any] = {name: merged(part) if isinstance(part, dict) else part for name, part in params.items()}
    tree = {name: part for name, part in parts.items() if "_lora_" not in name}
    if "kernel_lora_a" in params:
        tree["kernel"] = tree["kernel"].astype("float32") + params["kernel_lora_a"] @ params["kernel_lora_b"]
    return tree


def _adapted(module: Any, rank: int, rngs: nnx.Rngs) -> Any:
    """Returns a denoiser of tokens with adapters of the kernels of its blocks, whose outputs are all from `hidden`.

    They are made where a call with a time reads kernels; a denoiser that is not conditioned on the time ignores it.
    """
    import qwix  # pyright: ignore[reportMissingImports]

    adapters = qwix.LoraProvider(module_path=".*blocks.*", rank=rank, alpha=float(rank))
    tokens, t = jnp.zeros((1, 2), jnp.int32), jnp.zeros(1)
    return qwix.apply_lora_to_model(module, adapters, tokens, t, methods=("hidden",), rngs=rngs)


@functools.lru_cache(maxsize=32)
def _skeleton(net: Net) -> tuple[Any, Any]:
    """Returns the module's graph and the shapes of its parameters. Cached per network, since tracing it is slow."""
    return nnx.split(nnx.eval_shape(lambda: net.module(nnx.Rngs(0))), nnx.Param)


def _with_keys(tree: Any, convert: Callable[[Any], Any]) -> Any:
    """Returns the tree with every key converted: lists are numbered by int in nnx and by str on disk."""
    if not isinstance(tree, dict):
        return tree
    return {convert(name): _with_keys(child, convert) for name, child in tree.items()}
