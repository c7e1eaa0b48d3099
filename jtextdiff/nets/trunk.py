"""The trunk of a transformer: positions, time embedding, blocks and final norm, with a KV cache.

Hidden states in, hidden states out; `nets/transformer.py` has its settings and its blocks.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from jtextdiff.nets.attention import KVCache, Layout, one_text
from jtextdiff.nets.batch_sharding import shard_batch
from jtextdiff.nets.layers import TimeEmbedding, dropout, embedding, norm_layer, split_key
from jtextdiff.nets.transformer import Block, Transformer


class Trunk(nnx.Module):
    """Positions, time embedding, blocks and final norm."""

    def __init__(self, shape: Transformer, *, timed: bool, rngs: nnx.Rngs):
        self.shape = shape
        learned = "learned" in shape.positions
        self.positions = embedding(shape.max_length, shape.width, init=shape.init, rngs=rngs) if learned else None
        modulated = shape.time == "dit"
        hidden = shape.time_width if modulated else 4 * shape.time_features
        time = functools.partial(TimeEmbedding, shape.condition_width, shape.time_features, hidden)
        self.time = time(init=shape.init, rngs=rngs) if timed else None
        norm = functools.partial(norm_layer, shape.width, **shape.norms, rngs=rngs)
        self.norm = norm()
        self.blocks = nnx.List([Block(shape, number, rngs=rngs) for number in range(shape.num_layers)])
        self.input_norm = norm() if shape.input_norm else None
        zeros = nnx.initializers.zeros_init()
        modulation = functools.partial(nnx.Linear, shape.condition_width, 2 * shape.width, kernel_init=zeros, rngs=rngs)
        self.modulation = modulation() if timed and modulated else None

    def __call__(
        self,
        x: Float[Array, "b l w"],
        t: Float[Array, "b #l"] | None = None,
        *,
        valid: Bool[Array, "b l"] | None = None,
        layout: Layout | None = None,
        key: Key[Array, ""] | None = None,
        contexts: Float[Array, "n b c"] | None = None,
    ) -> Float[Array, "b l w"]:
        """Returns the hidden states.

        t is one per text or per token, in the unit of the method; `contexts` are those of the blocks. No position
        attends to one that is not `valid`. A `layout` replaces `valid` and `causal`.
        """
        return self.states(x, t, valid=valid, layout=layout, key=key, contexts=contexts, blocks=())[0]

    def states(
        self,
        x: Float[Array, "b l w"],
        t: Float[Array, "b #l"] | None = None,
        *,
        valid: Bool[Array, "b l"] | None = None,
        layout: Layout | None = None,
        key: Key[Array, ""] | None = None,
        contexts: Float[Array, "n b c"] | None = None,
        blocks: Sequence[int],
    ) -> tuple[Float[Array, "b l w"], list[Float[Array, "b l w"]]]:
        """Returns the hidden states, and those after each of the numbered `blocks`, before any final norm."""
        if self.positions is not None:
            x = x + self.positions.embedding[...][slice(x.shape[1]) if layout is None else layout.positions]
        time = None if self.time is None or t is None else shard_batch(self.time(t))
        if time is not None and self.shape.time == "add":
            x = x + time
        keys = split_key(key, len(self.blocks) + 1)
        x = self._normed_input(x)
        x = dropout(x, self.shape.dropout, keys[-1])
        layout = layout or one_text(x.shape[1], causal=self.shape.causal, valid=valid)
        x = shard_batch(x)
        if self.shape.scan or self.shape.remat:
            x, states = self._scan(x, layout, time, keys[:-1], contexts, bool(blocks))
        else:
            states = []
            for block, block_key, context in zip(self.blocks, keys[:-1], self._per_block(contexts), strict=True):
                x = block(x, layout, time, block_key, context)
                states.append(x)
        return self._normed_output(x, time), [states[number] for number in blocks]

    def init_cache(self, num: int, length: int) -> list[KVCache]:
        """Returns the cache of `step`, one per layer, before the first position of `num` texts."""
        dtype = jnp.bfloat16 if self.shape.bfloat16 else None
        zeros = jnp.zeros((num, self.shape.kv_heads, length, self.shape.head_size), dtype)
        return [(zeros, zeros) for _ in self.blocks]

    def step(
        self,
        x: Float[Array, "b m w"],
        position: Array,
        cache: list[KVCache],
        contexts: Float[Array, "n b c"] | None = None,
    ) -> tuple[Float[Array, "b m w"], list[KVCache]]:
        """Returns what `__call__` returns at m positions that attend to each other, given the cache of those before."""
        if self.positions is not None:
            x = x + jax.lax.dynamic_slice_in_dim(self.positions.embedding[...], position, x.shape[1])
        x = self._normed_input(x)
        new_cache = []
        for block, block_cache, context in zip(self.blocks, cache, self._per_block(contexts), strict=True):
            x, block_cache = block.step(x, position, block_cache, context)
            new_cache.append(block_cache)
        return self._normed_output(x, None), new_cache

    def _normed_input(self, x: Float[Array, "b l w"]) -> Float[Array, "b l w"]:
        if self.shape.norm == "post":
            return self.norm(x)
        return x if self.input_norm is None else self.input_norm(x)

    def _normed_output(self, x: Float[Array, "b l w"], time: Float[Array, "b #l c"] | None) -> Float[Array, "b l w"]:
        if self.shape.norm == "post":
            return x
        x = self.norm(x)
        if self.modulation is None or time is None:
            return x
        shift, scale = jnp.split(self.modulation(jax.nn.silu(time)), 2, axis=-1)
        return x * (1 + scale) + shift

    def _per_block(self, contexts: Float[Array, "n b c"] | None) -> Sequence[Array | None]:
        return [None] * len(self.blocks) if contexts is None else list(contexts)

    def _scan(
        self, x: Array, layout: Layout, time: Array | None, keys: list[Any], contexts: Array | None, keep: bool
    ) -> tuple[Array, list[Array]]:
        """Applies the blocks in scans over equal ones, in which the compiler cannot store what `remat` recomputes.

        Returns the last states and, to `keep` them, those after each block.
        """
        parts = [(*nnx.split(block), number) for number, block in enumerate(self.blocks)]
        kept: list[Array] = []
        for graph, run in itertools.groupby(parts, key=lambda part: part[0]):
            states, numbers = zip(*(part[1:] for part in run), strict=True)
            span = slice(numbers[0], numbers[-1] + 1)
            stacked = jax.tree_util.tree_map_with_path(
                lambda path, *layers: jnp.stack([self._cast_kernel(path, layer) for layer in layers]), *states
            )

            def layer(x: Array, inputs: tuple[Any, Any, Any], graph: Any = graph) -> tuple[Array, Array | None]:
                block_state, block_key, context = inputs
                x = nnx.merge(graph, block_state)(x, layout, time, block_key, context)
                return x, x if keep else None

            stacked_keys = None if keys[0] is None else jnp.stack(keys[span])
            inputs = stacked, stacked_keys, None if contexts is None else contexts[span]
            x, after = jax.lax.scan(jax.checkpoint(layer) if self.shape.remat else layer, x, inputs)
            kept += [] if after is None else list(after)
        return x, kept

    def _cast_kernel(self, path: Any, leaf: Array) -> Array:
        """Casts a block's parameter to the type in which its matrix product uses it."""
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        half = self.shape.bfloat16 and "kernel" in name and "modulation" not in name
        return leaf.astype(jnp.bfloat16) if half else leaf
