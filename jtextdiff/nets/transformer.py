"""The transformer shared by all methods: its settings and its blocks; `nets/trunk.py` has the whole.

It is independent of tokens and of diffusion. BERT-like is `norm="post", causal=False, positions="learned"`; GPT-like is
`norm="pre", causal=True`; Llama-like is `normalization="rms", positions="rotary", activation="silu", gated=True`, no
biases. Time is added to the input (Diffusion-LM) or modulates each block ("adaln", Peebles & Xie 2023), and with "dit"
the final norm as well, by a vector of its own width (Lou et al. 2024).
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from jtextdiff.nets.attention import Attention, Fuse, KVCache, Layout
from jtextdiff.nets.batch_sharding import shard_batch
from jtextdiff.nets.layers import ACTIVATIONS, NORMS, FeedForward, ValueFusion, dropout, norm_layer, split_key

CHOICES = {
    "norm": ("pre", "post"),
    "normalization": tuple(NORMS),
    "positions": ("learned", "rotary", "learned+rotary", "relative", "xl"),
    "time": ("add", "adaln", "dit"),
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
    mlp_width: int | None = None  # feed-forward width; None: `expansion` times the width
    activation: str = "gelu"  # of the feed-forward layers; "gelu_tanh" approximates it; "silu"
    gated: bool = False  # a third feed-forward layer multiplies the second: SwiGLU with activation="silu"
    mlp_bias: bool = True  # of the feed-forward layers
    num_kv_heads: int | None = None  # heads of keys and values, each read by several queries; None: num_heads
    head_width: int | None = None  # None: width/num_heads
    qk_norm: bool = False  # queries and keys of each head are normed, before they are rotated
    attention_bias: bool = True  # of the dense layers of attention: queries, keys, values and output
    attention_out_bias: bool | None = None  # of the output alone; None: as attention_bias
    norm: str = "pre"
    normalization: str = "layer"  # LayerNorm, or "rms"
    norm_bias: bool = True  # of LayerNorm
    input_norm: bool = False  # the input is normed, in place of the first block's input of attention (ModernBERT)
    norm_epsilon: float | None = None  # added to the variance in norms; None: 1e-6, or 1e-12 if they come after
    positions: str = "learned+rotary"  # absolute positions, and distances between positions; see nets/attention.py
    rotary_base: float = 1_000.0  # wavelengths in tokens run from 2π to nearly 2π times this
    window: int | None = None  # tokens on each side that local blocks attend to; None: no block is local
    full_every: int = 1  # with a window, the blocks 0, n, 2n, … attend to all tokens
    window_rotary_base: float | None = None  # rotary_base of local blocks; None: the same
    time: str = "add"
    time_width: int = 128  # channels of the vector that modulates, with time="dit"
    causal: bool = False
    dropout: float = 0.0
    time_features: int = 32  # width of the sinusoid
    init: str = "lecun"  # of the dense layers; "torch" also initialises embeddings from N(0, 1), as in the release
    max_length: int = 512  # rows of the learned positions; reach of the relative ones
    bfloat16: bool = False  # inputs and outputs of the blocks' dense layers; parameters and sums stay float32
    scan: bool = False  # the blocks are one compiled loop: faster to compile, slower to run
    remat: bool = False  # the gradient stores only the inputs of blocks and recomputes the rest: less memory, more time
    context_dim: int = 0  # of a vector per text and block that multiplies the values of attention; set by the method
    fusion_rank: int = 1  # rank of that product, see nets/layers.py

    def __post_init__(self) -> None:
        sizes = ("num_layers", "width", "num_heads", "expansion", "full_every", "max_length", "time_features")
        for field in (*sizes, "time_width", "fusion_rank"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}.")
        for field in ("mlp_width", "num_kv_heads", "head_width", "window"):
            if (value := getattr(self, field)) is not None and value < 1:
                raise ValueError(f"{field} must be at least 1, or None, got {value}.")
        if not 0 < self.epsilon < 1:
            raise ValueError(f"norm_epsilon must be above 0 and below 1, or None, got {self.norm_epsilon}.")
        for field in ("rotary_base", "window_rotary_base"):
            if (value := getattr(self, field)) is not None and not 1 < value < math.inf:
                raise ValueError(f"{field} must be a number above 1, got {value}.")
        if self.input_norm and self.norm == "post":
            raise ValueError("input_norm must be False with norm='post', which norms the input already.")
        if self.time == "dit" and self.norm == "post":
            raise ValueError("time='dit' modulates norms before the layers: norm must be 'pre', got 'post'.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}.")
        if self.time_features % 2:
            raise ValueError(f"time_features are cosines and sines in pairs: expected even, got {self.time_features}.")
        self._check_heads()
        if self.positions == "xl" and self.width % 2:
            raise ValueError(f"positions='xl' have sinusoids of an even width, got width={self.width}.")
        for field, choices in CHOICES.items():
            if getattr(self, field) not in choices:
                raise ValueError(f"{field} must be one of {choices}, got {getattr(self, field)!r}.")

    def _check_heads(self) -> None:
        """Raises ValueError for heads that do not fit the width, each other or the positions."""
        if self.head_width is None and self.width % self.num_heads:
            good = [n for n in range(1, 17) if self.width % n == 0]
            raise ValueError(
                f"width must divide into num_heads equal heads, got width={self.width}, "
                f"num_heads={self.num_heads}. Try num_heads in {good}."
            )
        if "rotary" in self.positions and self.head_size % 2:
            given = f"{self.width}/{self.num_heads}" if self.head_width is None else f"head_width={self.head_width}"
            raise ValueError(
                f"rotary positions rotate pairs of channels: width/num_heads must be even, got {given}. Choose "
                "another width or positions='learned'."
            )
        if self.num_heads % self.kv_heads:
            raise ValueError(
                f"num_heads must divide into num_kv_heads equal groups, got num_heads={self.num_heads}, "
                f"num_kv_heads={self.num_kv_heads}."
            )
        plain = self.kv_heads == self.num_heads and self.head_size * self.num_heads == self.width
        if not plain and (self.positions == "xl" or self.context_dim):
            raise ValueError(
                f"num_kv_heads and head_width must be None with positions='xl' or a context, whose projections have "
                f"width channels; got {self.num_kv_heads} and {self.head_width}."
            )

    @property
    def epsilon(self) -> float:
        """What the norms add to the variance."""
        if self.norm_epsilon is not None:
            return self.norm_epsilon
        return 1e-6 if self.norm == "pre" else 1e-12

    def is_local(self, block: int) -> bool:
        """Returns whether a block attends to the tokens in its window alone."""
        return self.window is not None and block % self.full_every != 0

    @property
    def norms(self) -> dict[str, Any]:
        """Settings of each norm, for `norm_layer`."""
        return {"kind": self.normalization, "bias": self.norm_bias, "epsilon": self.epsilon}

    @property
    def head_size(self) -> int:
        """Channels of a head."""
        return self.width // self.num_heads if self.head_width is None else self.head_width

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def condition_width(self) -> int:
        """Channels of the embedded time."""
        return self.time_width if self.time == "dit" else self.width

    @property
    def mlp_size(self) -> int:
        """Width of the feed-forward layers."""
        return self.expansion * self.width if self.mlp_width is None else self.mlp_width


class Block(nnx.Module):
    """Attention and feed-forward, each with a residual connection and a norm before (pre) or after (post) it.

    `number` is that of the block; local ones and the first may differ from the others.
    """

    def __init__(self, shape: Transformer, number: int, *, rngs: nnx.Rngs):
        width, local = shape.width, shape.is_local(number)
        self.pre, self.dropout = shape.norm == "pre", shape.dropout
        shared: dict[str, Any] = {"init": shape.init, "bfloat16": shape.bfloat16, "rngs": rngs}
        norm = functools.partial(norm_layer, **shape.norms, rngs=rngs)
        self.attention = Attention(
            width,
            shape.num_heads,
            num_kv_heads=shape.kv_heads,
            head_width=shape.head_size,
            positions=shape.positions,
            rotary_base=(shape.window_rotary_base if local else None) or shape.rotary_base,
            window=shape.window if local else None,
            reach=shape.max_length if shape.positions == "relative" else 0,
            bias=shape.attention_bias,
            out_bias=shape.attention_bias if shape.attention_out_bias is None else shape.attention_out_bias,
            head_norm=norm if shape.qk_norm else None,
            dropout=shape.dropout,
            **shared,
        )
        feed_forward = {"activation": shape.activation, "gated": shape.gated, "bias": shape.mlp_bias}
        self.mlp = FeedForward(width, shape.mlp_size, dropout=shape.dropout, **feed_forward, **shared)
        self.norm_attention = jax.nn.identity if shape.input_norm and number == 0 else norm(width)
        self.norm_mlp = norm(width)
        modulated, zeros = shape.time != "add", nnx.initializers.zeros_init()
        modulation = functools.partial(nnx.Linear, shape.condition_width, 6 * width, kernel_init=zeros, rngs=rngs)
        self.modulation = modulation() if modulated else None
        fused = functools.partial(ValueFusion, width, context_dim=shape.context_dim, rank=shape.fusion_rank, **shared)
        self.fusion = fused() if shape.context_dim else None

    def __call__(
        self,
        x: Float[Array, "b l w"],
        layout: Layout,
        time: Float[Array, "b #l c"] | None,
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

    def _modulate(self, time: Float[Array, "b #l c"] | None) -> tuple[Array | float, ...]:
        """Returns shift, scale and gate of both halves. Gates start at one, so a fresh block is a plain one."""
        if self.modulation is None or time is None:
            return 0.0, 0.0, 1.0, 0.0, 0.0, 1.0
        parts = jnp.split(self.modulation(jax.nn.silu(time)), 6, axis=-1)
        return parts[0], parts[1], 1 + parts[2], parts[3], parts[4], 1 + parts[5]
