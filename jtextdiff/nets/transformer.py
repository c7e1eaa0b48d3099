"""The transformer shared by all methods: hidden states in, hidden states out.

It is independent of tokens and of diffusion. BERT-like is `norm="post", causal=False, positions="learned"`; GPT-like is
`norm="pre", causal=True`. Time is added to the input (Diffusion-LM) or modulates each block (adaLN, Peebles & Xie
2023).
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from jtextdiff.nets.attention import Attention, Fuse, KVCache, Layout, one_text
from jtextdiff.nets.batch_sharding import shard_batch
from jtextdiff.nets.layers import ACTIVATIONS, FeedForward, TimeEmbedding, dropout, embedding, split_key
from jtextdiff.nets.value_fusion import ValueFusion

CHOICES = {
    "norm": ("pre", "post"),
    "positions": ("learned", "rotary", "learned+rotary", "relative", "xl"),
    "time": ("add", "adaln"),
    "init": ("lecun", "torch"),
    "activation": tuple(ACTIVATIONS),
}


@dataclass(frozen=True, kw_only=True)
class Transformer:
    """Settings of a transformer trunk."""

    num_layers: int = 4
    width: int = 128
    num_heads: int = 4
    expansion: int = 4  # feed-forward width over width
    activation: str = "gelu"  # of the feed-forward layers; "gelu_tanh" approximates it
    attention_bias: bool = True  # of the four dense layers of attention
    norm: str = "pre"
    norm_epsilon: float | None = None  # added to the variance in norms; None: 1e-6, or 1e-12 if they come after
    positions: str = "learned+rotary"  # absolute positions, and distances between positions; see nets/attention.py
    rotary_base: float = 1_000.0  # wavelengths in tokens run from 2π to nearly 2π times this
    time: str = "add"
    causal: bool = False
    dropout: float = 0.0
    time_features: int = 32  # width of the sinusoid
    init: str = "lecun"  # of the dense layers; "torch" also initialises embeddings from N(0, 1), as in the release
    max_length: int = 512  # rows of the learned positions; reach of the relative ones
    bfloat16: bool = False  # inputs and outputs of the blocks' dense layers; parameters and sums stay float32
    scan: bool = False  # the blocks are one compiled loop: faster to compile, slower to run
    remat: bool = False  # the gradient stores only the inputs of blocks and recomputes the rest: less memory, more time
    context_dim: int = 0  # of a vector per text and block that multiplies the values of attention; set by the method
    fusion_rank: int = 1  # rank of that product, see nets/value_fusion.py

    def __post_init__(self) -> None:
        for field in ("num_layers", "width", "num_heads", "expansion", "max_length", "time_features", "fusion_rank"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}.")
        if not 0 < self.epsilon < 1:
            raise ValueError(f"norm_epsilon must be above 0 and below 1, or None, got {self.norm_epsilon}.")
        if not 1 < self.rotary_base < math.inf:
            raise ValueError(f"rotary_base must be a number above 1, got {self.rotary_base}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}.")
        if self.time_features % 2:
            raise ValueError(f"time_features are cosines and sines in pairs: expected even, got {self.time_features}.")
        if self.width % self.num_heads:
            good = [n for n in range(1, 17) if self.width % n == 0]
            raise ValueError(
                f"width must divide into num_heads equal heads, got width={self.width}, "
                f"num_heads={self.num_heads}. Try num_heads in {good}."
            )
        if "rotary" in self.positions and self.width // self.num_heads % 2:
            raise ValueError(
                f"rotary positions rotate pairs of channels: width/num_heads must be even, got "
                f"{self.width}/{self.num_heads}. Choose another width or positions='learned'."
            )
        if self.positions == "xl" and self.width % 2:
            raise ValueError(f"positions='xl' have sinusoids of an even width, got width={self.width}.")
        for field, choices in CHOICES.items():
            if getattr(self, field) not in choices:
                raise ValueError(f"{field} must be one of {choices}, got {getattr(self, field)!r}.")

    @property
    def epsilon(self) -> float:
        """What the norms add to the variance."""
        if self.norm_epsilon is not None:
            return self.norm_epsilon
        return 1e-6 if self.norm == "pre" else 1e-12


class Block(nnx.Module):
    """Attention and feed-forward, each with a residual connection and a norm before (pre) or after (post) it."""

    def __init__(self, shape: Transformer, *, rngs: nnx.Rngs):
        width = shape.width
        self.pre, self.dropout = shape.norm == "pre", shape.dropout
        shared: dict[str, Any] = {"init": shape.init, "bfloat16": shape.bfloat16, "rngs": rngs}
        self.attention = Attention(
            width,
            shape.num_heads,
            positions=shape.positions,
            rotary_base=shape.rotary_base,
            reach=shape.max_length if shape.positions == "relative" else 0,
            bias=shape.attention_bias,
            dropout=shape.dropout,
            **shared,
        )
        hidden = shape.expansion * width
        self.mlp = FeedForward(width, hidden, activation=shape.activation, dropout=shape.dropout, **shared)
        self.norm_attention = nnx.LayerNorm(width, epsilon=shape.epsilon, rngs=rngs)
        self.norm_mlp = nnx.LayerNorm(width, epsilon=shape.epsilon, rngs=rngs)
        adaptive, zeros = shape.time == "adaln", nnx.initializers.zeros_init()
        self.modulation = nnx.Linear(width, 6 * width, kernel_init=zeros, rngs=rngs) if adaptive else None
        fused = functools.partial(ValueFusion, width, context_dim=shape.context_dim, rank=shape.fusion_rank, **shared)
        self.fusion = fused() if shape.context_dim else None

    def __call__(
        self,
        x: Float[Array, "b l w"],
        layout: Layout,
        time: Float[Array, "b #l w"] | None,
        key: Key[Array, ""] | None,
        context: Float[Array, "b c"] | None = None,
    ) -> Float[Array, "b l w"]:
        key_weights, key_attention, key_mlp = split_key(key, 3)

        def attend(normed: Array) -> tuple[Array, None]:
            return self.attention(normed, layout, key_weights, self._fuse(context)), None

        return self._apply(x, attend, time, key_attention, key_mlp)[0]

    def step(
        self,
        x: Float[Array, "b m w"],
        position: Array,
        cache: KVCache,
        context: Float[Array, "b c"] | None = None,
    ) -> tuple[Float[Array, "b m w"], KVCache]:
        """Returns m positions of a text, the first of them `position`, and the cache, given that of those before."""

        def attend(normed: Array) -> tuple[Array, KVCache]:
            return self.attention.step(normed, position, cache, self._fuse(context))

        return self._apply(x, attend, None, None, None)

    def _fuse(self, context: Float[Array, "b c"] | None) -> Fuse | None:
        return None if self.fusion is None or context is None else functools.partial(self.fusion, context=context)

    def _apply(
        self,
        x: Array,
        attend: Callable[[Array], tuple[Array, Any]],
        time: Array | None,
        key_attention: Any,
        key_mlp: Any,
    ) -> tuple[Array, Any]:
        """Applies attention and feed-forward; returns their output and the cache that `attend` returns."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self._modulate(time)
        normed = self.norm_attention(x) * (1 + scale_a) + shift_a if self.pre else x
        attended, cache = attend(normed)
        x = shard_batch(x + gate_a * dropout(attended, self.dropout, key_attention))
        x = x if self.pre else self.norm_attention(x)
        normed = self.norm_mlp(x) * (1 + scale_m) + shift_m if self.pre else x
        x = shard_batch(x + gate_m * self.mlp(normed, key_mlp))
        return (x if self.pre else self.norm_mlp(x)), cache

    def _modulate(self, time: Float[Array, "b #l w"] | None) -> tuple[Array | float, ...]:
        """Returns shift, scale and gate of both halves. Gates start at one, so a fresh block is a plain one."""
        if self.modulation is None or time is None:
            return 0.0, 0.0, 1.0, 0.0, 0.0, 1.0
        parts = jnp.split(self.modulation(jax.nn.silu(time)), 6, axis=-1)
        return parts[0], parts[1], 1 + parts[2], parts[3], parts[4], 1 + parts[5]


class Trunk(nnx.Module):
    """Positions, time embedding, blocks and final norm."""

    def __init__(self, shape: Transformer, *, timed: bool, rngs: nnx.Rngs):
        self.shape = shape
        learned = "learned" in shape.positions
        self.positions = embedding(shape.max_length, shape.width, init=shape.init, rngs=rngs) if learned else None
        self.time = TimeEmbedding(shape.width, shape.time_features, init=shape.init, rngs=rngs) if timed else None
        self.norm = nnx.LayerNorm(shape.width, epsilon=shape.epsilon, rngs=rngs)
        self.blocks = nnx.List([Block(shape, rngs=rngs) for _ in range(shape.num_layers)])

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

        t is in [0, 1000], one per text or per token; `contexts` are those of the blocks. No position attends to
        one that is not `valid`. A `layout` replaces `valid` and `causal`.
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
        if self.shape.norm == "post":
            x = self.norm(x)
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
        return (self.norm(x) if self.shape.norm == "pre" else x), [states[number] for number in blocks]

    def init_cache(self, num: int, length: int) -> list[KVCache]:
        """Returns the cache of `step`, one per layer, before the first position of `num` texts."""
        heads = self.shape.num_heads
        dtype = jnp.bfloat16 if self.shape.bfloat16 else None
        zeros = jnp.zeros((num, heads, length, self.shape.width // heads), dtype)
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
        if self.shape.norm == "post":
            x = self.norm(x)
        new_cache = []
        for block, block_cache, context in zip(self.blocks, cache, self._per_block(contexts), strict=True):
            x, block_cache = block.step(x, position, block_cache, context)
            new_cache.append(block_cache)
        return (self.norm(x) if self.shape.norm == "pre" else x), new_cache

    def _per_block(self, contexts: Float[Array, "n b c"] | None) -> Sequence[Array | None]:
        return [None] * len(self.blocks) if contexts is None else list(contexts)

    def _scan(
        self, x: Array, layout: Layout, time: Array | None, keys: list[Any], contexts: Array | None, keep: bool
    ) -> tuple[Array, Any]:
        """Applies the blocks in a scan over layers, in which the compiler cannot store what `remat` recomputes.

        Returns the last states and, to `keep` them, those after each block.
        """
        graphs, states = zip(*(nnx.split(block) for block in self.blocks), strict=True)
        stacked = jax.tree_util.tree_map_with_path(
            lambda path, *layers: jnp.stack([self._cast_kernel(path, layer) for layer in layers]), *states
        )

        def layer(x: Array, inputs: tuple[Any, Any, Any]) -> tuple[Array, Array | None]:
            block_state, block_key, context = inputs
            x = nnx.merge(graphs[0], block_state)(x, layout, time, block_key, context)
            return x, x if keep else None

        stacked_keys = None if keys[0] is None else jnp.stack(keys)
        inputs = stacked, stacked_keys, contexts
        return jax.lax.scan(jax.checkpoint(layer) if self.shape.remat else layer, x, inputs)

    def _cast_kernel(self, path: Any, leaf: Array) -> Array:
        """Casts a block's parameter to the type in which its matrix product uses it."""
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        half = self.shape.bfloat16 and "kernel" in name and "modulation" not in name
        return leaf.astype(jnp.bfloat16) if half else leaf
