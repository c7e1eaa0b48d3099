"""The transformer shared by every method: hidden states in, hidden states out.

It knows neither tokens nor diffusion. BERT-like is `norm="post", causal=False, positions="learned"`;
GPT-like is `norm="pre", causal=True`. Time is added to the input (Diffusion-LM) or modulates each block
(adaLN, Peebles & Xie 2023).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from jtextdiff.nets.batch_sharding import by_rows
from jtextdiff.nets.layers import Attention, FeedForward, Kept, TimeEmbedding, dropout, split_key, table

CHOICES = {
    "norm": ("pre", "post"),
    "positions": ("learned", "rotary", "learned+rotary", "relative"),
    "time": ("add", "adaln"),
    "init": ("lecun", "torch"),
}


@dataclass(frozen=True, kw_only=True)
class Transformer:
    """Shape of the trunk."""

    num_layers: int = 4
    width: int = 128
    num_heads: int = 4
    expansion: int = 4  # feed-forward width over width
    norm: str = "pre"
    positions: str = "learned+rotary"  # where a word stands, and how far it is from another
    time: str = "add"
    causal: bool = False
    dropout: float = 0.0
    time_features: int = 32  # width of the sinusoid
    init: str = "lecun"  # initial law of the dense layers; "torch" also draws tables from N(0, 1), as released
    max_length: int = 512  # rows of the learned positions; reach of the relative ones
    bfloat16: bool = False  # what dense layers of the blocks take and give is bfloat16; parameters and sums are float32
    remat: bool = False  # a gradient keeps a block's input alone and computes the rest again: less memory, more time

    def __post_init__(self) -> None:
        for field in ("num_layers", "width", "num_heads", "expansion", "max_length", "time_features"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}.")
        if self.time_features % 2:
            raise ValueError(f"time_features are cosines and sines in pairs: expected even, got {self.time_features}.")
        if self.width % self.num_heads:
            good = [n for n in (2, 4, 6, 8, 12, 16) if self.width % n == 0]
            raise ValueError(
                f"width must divide into num_heads equal heads, got width={self.width}, "
                f"num_heads={self.num_heads}. Try num_heads in {good}."
            )
        if "rotary" in self.positions and self.width // self.num_heads % 2:
            raise ValueError(
                f"rotary positions turn channels in pairs: width/num_heads must be even, got "
                f"{self.width}/{self.num_heads}. Choose another width or positions='learned'."
            )
        for field, choices in CHOICES.items():
            if getattr(self, field) not in choices:
                raise ValueError(f"{field} must be one of {choices}, got {getattr(self, field)!r}.")


class Block(nnx.Module):
    """Attention and feed-forward, each with a residual and a norm before (pre) or after (post) it."""

    def __init__(self, shape: Transformer, *, rngs: nnx.Rngs):
        width = shape.width
        self.pre, self.dropout = shape.norm == "pre", shape.dropout
        self.attention = Attention(
            width,
            shape.num_heads,
            positions=shape.positions,
            reach=shape.max_length if shape.positions == "relative" else 0,
            dropout=shape.dropout,
            init=shape.init,
            bfloat16=shape.bfloat16,
            rngs=rngs,
        )
        hidden, like = shape.expansion * width, {"dropout": shape.dropout, "init": shape.init}
        self.mlp = FeedForward(width, hidden, **like, bfloat16=shape.bfloat16, rngs=rngs)
        self.norm_attention = nnx.LayerNorm(width, epsilon=1e-6 if self.pre else 1e-12, rngs=rngs)
        self.norm_mlp = nnx.LayerNorm(width, epsilon=1e-6 if self.pre else 1e-12, rngs=rngs)
        adaptive, zeros = shape.time == "adaln", nnx.initializers.zeros_init()
        self.modulation = nnx.Linear(width, 6 * width, kernel_init=zeros, rngs=rngs) if adaptive else None

    def __call__(
        self,
        x: Float[Array, "b l w"],
        seen: Bool[Array, "#b 1 #l l"],
        time: Float[Array, "b #l w"] | None,
        key: Key[Array, ""] | None,
    ) -> Float[Array, "b l w"]:
        key_weights, key_attention, key_mlp = split_key(key, 3)
        attend = lambda inner: (self.attention(inner, seen, key_weights), None)
        return self._through(x, attend, time, key_attention, key_mlp)[0]

    def step(self, x: Float[Array, "b 1 w"], position: Array, kept: Kept) -> tuple[Float[Array, "b 1 w"], Kept]:
        """One position of a causal text, with what is kept of those before it."""
        return self._through(x, lambda inner: self.attention.step(inner, position, kept), None, None, None)

    def _through(
        self,
        x: Array,
        attend: Callable[[Array], tuple[Array, Any]],
        time: Array | None,
        key_attention: Any,
        key_mlp: Any,
    ) -> tuple[Array, Any]:
        """Both halves, and whatever `attend` hands on beside what it has attended to."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self._modulate(time)
        inner = self.norm_attention(x) * (1 + scale_a) + shift_a if self.pre else x
        attended, kept = attend(inner)
        x = by_rows(x + gate_a * dropout(attended, self.dropout, key_attention))
        x = x if self.pre else self.norm_attention(x)
        inner = self.norm_mlp(x) * (1 + scale_m) + shift_m if self.pre else x
        x = by_rows(x + gate_m * self.mlp(inner, key_mlp))
        return (x if self.pre else self.norm_mlp(x)), kept

    def _modulate(self, time: Float[Array, "b #l w"] | None) -> tuple[Array | float, ...]:
        """Shift, scale and gate of both halves; gates open at one, so that a fresh block is a plain one."""
        if self.modulation is None or time is None:
            return 0.0, 0.0, 1.0, 0.0, 0.0, 1.0
        parts = jnp.split(self.modulation(jax.nn.silu(time)), 6, axis=-1)
        return parts[0], parts[1], 1 + parts[2], parts[3], parts[4], 1 + parts[5]


class Trunk(nnx.Module):
    """Positions, time, blocks, final norm."""

    def __init__(self, shape: Transformer, *, timed: bool, rngs: nnx.Rngs):
        self.shape = shape
        learned = "learned" in shape.positions
        self.positions = table(shape.max_length, shape.width, init=shape.init, rngs=rngs) if learned else None
        self.time = TimeEmbedding(shape.width, shape.time_features, init=shape.init, rngs=rngs) if timed else None
        self.norm = nnx.LayerNorm(shape.width, epsilon=1e-6 if shape.norm == "pre" else 1e-12, rngs=rngs)
        self.blocks = nnx.List([Block(shape, rngs=rngs) for _ in range(shape.num_layers)])

    def __call__(
        self,
        x: Float[Array, "b l w"],
        t: Float[Array, "b #l"] | None = None,
        *,
        valid: Bool[Array, "b l"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "b l w"]:
        """Positions where `valid` is False are seen by nobody; t in [0, 1000], of each text or of each word."""
        if self.positions is not None:
            x = x + self.positions.embedding[...][: x.shape[1]]
        time = None if self.time is None or t is None else by_rows(self.time(t))
        if time is not None and self.shape.time == "add":
            x = x + time
        keys = split_key(key, len(self.blocks) + 1)
        if self.shape.norm == "post":
            x = self.norm(x)
        x = dropout(x, self.shape.dropout, keys[-1])
        seen = self._seen(x.shape[1], valid)
        x = by_rows(x)
        if self.shape.remat:
            x = self._again(x, seen, time, keys[:-1])
        else:
            for block, block_key in zip(self.blocks, keys[:-1], strict=True):
                x = block(x, seen, time, block_key)
        return self.norm(x) if self.shape.norm == "pre" else x

    def _again(self, x: Array, seen: Array, time: Array | None, keys: list[Any]) -> Array:
        """All blocks, in a scan over layers: a compiler must not keep for the gradient what is computed again there."""
        graphs, states = zip(*(nnx.split(block) for block in self.blocks), strict=True)
        stacked = jax.tree_util.tree_map_with_path(
            lambda path, *layers: jnp.stack([self._lean(path, layer) for layer in layers]), *states
        )

        def layer(x: Array, inputs: tuple[Any, Any]) -> tuple[Array, None]:
            return nnx.merge(graphs[0], inputs[0])(x, seen, time, inputs[1]), None

        every_key = None if keys[0] is None else jnp.stack(keys)
        return jax.lax.scan(jax.checkpoint(layer), x, (stacked, every_key))[0]

    def _lean(self, path: Any, leaf: Array) -> Array:
        """A block's parameter as its products take it."""
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        half = self.shape.bfloat16 and "kernel" in name and "modulation" not in name
        return leaf.astype(jnp.bfloat16) if half else leaf

    def empty(self, num: int, length: int) -> list[Kept]:
        """What `step` keeps of each layer, before the first position of `num` texts."""
        heads = self.shape.num_heads
        dtype = jnp.bfloat16 if self.shape.bfloat16 else None
        blank = jnp.zeros((num, heads, length, self.shape.width // heads), dtype)
        return [(blank, blank) for _ in self.blocks]

    def step(
        self, x: Float[Array, "b 1 w"], position: Array, kept: list[Kept]
    ) -> tuple[Float[Array, "b 1 w"], list[Kept]]:
        """What `__call__` answers at one position of a causal text, given what is kept of those before it."""
        if self.positions is not None:
            x = x + self.positions.embedding[...][position]
        if self.shape.norm == "post":
            x = self.norm(x)
        later = []
        for block, of_block in zip(self.blocks, kept, strict=True):
            x, of_block = block.step(x, position, of_block)
            later.append(of_block)
        return (self.norm(x) if self.shape.norm == "pre" else x), later

    def _seen(self, length: int, valid: Bool[Array, "b l"] | None) -> Bool[Array, "#b 1 #l l"]:
        """Which key positions each query position may look at."""
        ones = jnp.ones((1, 1, length, length), bool)
        seen = jnp.tril(ones) if self.shape.causal else ones
        return seen if valid is None else seen & rearrange(valid, "b l -> b 1 1 l")
