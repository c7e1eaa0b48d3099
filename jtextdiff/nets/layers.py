"""Transformer layers: attention with positions and a KV cache, feed-forward, time embedding, dropout.

A layer is random only if it is given a key; there is no training flag.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

MASKED = -1e9
"""Added to the attention logits of masked positions: its exp is exactly zero in float32."""

KVCache = tuple[Float[Array, "b h m e"], Float[Array, "b h m e"]]
"""Keys and values of one layer at all positions; zeros at positions not yet computed."""


def dropout(x: Array, rate: float, key: Key[Array, ""] | None) -> Array:
    """Zeroes a share `rate` of `x` and scales up the rest; returns `x` unchanged without a key."""
    if key is None or rate == 0.0:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0.0)


def split_key(key: Key[Array, ""] | None, num: int) -> list[Key[Array, ""] | None]:
    """Splits a key into `num` keys; returns `num` times None without a key."""
    return [None] * num if key is None else list(jax.random.split(key, num))


def sinusoid(t: Float[Array, "*b"], width: int) -> Float[Array, "*b {width}"]:
    """Returns cosines, then sines, of t at `width/2` frequencies from 1 down towards 1/10,000.

    Vaswani et al. (2017), §3.5.
    """
    frequencies = jnp.exp(-math.log(10_000) * jnp.arange(width // 2) / (width // 2))
    angles = t[..., None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def rotary(x: Float[Array, "b h l e"], first: int | Array = 0, base: float = 1000.0) -> Float[Array, "b h l e"]:
    """Rotates pairs of channels by angles proportional to the position, from `first` on (Su et al. 2021, eq. 34)."""
    length, width = x.shape[-2:]
    frequencies = base ** (-jnp.arange(width // 2) / (width // 2))
    angles = (first + jnp.arange(length))[:, None] * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1).astype(x.dtype)


def gelu(x: Array) -> Array:
    """Returns x Φ(x), exact, by erf: on a CPU a third cheaper than jax.nn's, which uses erfc."""
    return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))


def dense(
    fan_in: int,
    fan_out: int,
    *,
    init: str = "lecun",
    bfloat16: bool = False,
    precision: str | None = None,
    rngs: nnx.Rngs,
) -> nnx.Linear:
    """Returns a dense layer, initialised with variance 1/fan_in and zero bias; "torch": both uniform within 1/√fan_in.

    With `bfloat16` it multiplies and returns bfloat16; its parameters stay float32. `precision` is that of the product:
    None is TF32 on a GPU, "highest" float32.
    """
    dtype = jnp.bfloat16 if bfloat16 else None
    linear = functools.partial(nnx.Linear, fan_in, fan_out, dtype=dtype, precision=precision, rngs=rngs)
    return linear() if init == "lecun" else linear(kernel_init=uniform(fan_in), bias_init=uniform(fan_in))


def uniform(fan_in: int) -> Callable[..., Array]:
    """Returns PyTorch's initialiser of a dense layer: uniform within 1/√fan_in."""
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32, **_: jax.random.uniform(key, shape, dtype, -bound, bound)


def embedding(rows: int, width: int, *, init: str = "lecun", rngs: nnx.Rngs) -> nnx.Embed:
    """Returns an embedding layer, initialised with variance 1/width; "torch": 1."""
    if init == "lecun":
        return nnx.Embed(rows, width, rngs=rngs)
    return nnx.Embed(rows, width, embedding_init=nnx.initializers.normal(1.0), rngs=rngs)


class TimeEmbedding(nnx.Module):
    """t in [0, 1000] → sinusoid → two dense layers (Li et al. 2022, released code)."""

    def __init__(self, width: int, features: int, *, init: str, rngs: nnx.Rngs):
        self.features = features
        self.up = dense(features, 4 * features, init=init, rngs=rngs)
        self.down = dense(4 * features, width, init=init, rngs=rngs)

    def __call__(self, t: Float[Array, "*b"]) -> Float[Array, "*b w"]:
        return self.down(jax.nn.silu(self.up(sinusoid(t, self.features))))


class FeedForward(nnx.Module):
    """Two dense layers with an exact GELU between them."""

    def __init__(self, width: int, hidden: int, *, dropout: float, init: str, bfloat16: bool, rngs: nnx.Rngs):
        self.dropout = dropout
        self.up = dense(width, hidden, init=init, bfloat16=bfloat16, rngs=rngs)
        self.down = dense(hidden, width, init=init, bfloat16=bfloat16, rngs=rngs)

    def __call__(self, x: Float[Array, "b l w"], key: Key[Array, ""] | None) -> Float[Array, "b l w"]:
        return dropout(self.down(gelu(self.up(x))), self.dropout, key)


class Attention(nnx.Module):
    """Multi-head attention with `rotary` or `relative` positions (a learned bias per distance), or neither."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        positions: str,
        reach: int,
        dropout: float,
        init: str,
        bfloat16: bool,
        rngs: nnx.Rngs,
    ):
        self.num_heads, self.dropout = num_heads, dropout
        self.rotary, self.reach = "rotary" in positions, reach
        square = functools.partial(dense, width, width, init=init, bfloat16=bfloat16, rngs=rngs)
        self.query, self.key, self.value, self.out = square(), square(), square(), square()
        bias = jnp.zeros((num_heads, 2 * reach + 1)) if positions == "relative" else None
        self.relative_bias = None if bias is None else nnx.Param(bias)

    def __call__(
        self, x: Float[Array, "b l w"], attention_mask: Bool[Array, "#b 1 #l l"], key: Key[Array, ""] | None
    ) -> Float[Array, "b l w"]:
        query, keys, value = self._heads(x, 0)
        if self.relative_bias is None and can_fuse(query, 0.0 if key is None else self.dropout):
            return self._merge_heads(fused_attention(query, keys, value, attention_mask))
        bias = self._distance_bias(x.shape[1]) + jnp.where(attention_mask, 0.0, MASKED)
        return self._attend(query, keys, value, bias, key)

    def step(self, x: Float[Array, "b 1 w"], position: Array, cache: KVCache) -> tuple[Float[Array, "b 1 w"], KVCache]:
        """Attends from one position to itself and the cached ones before it; returns the cache with it added."""
        query, *new = self._heads(x, position)
        keys, value = (
            jax.lax.dynamic_update_slice_in_dim(cached, added.astype(cached.dtype), position, axis=2)
            for cached, added in zip(cache, new, strict=True)
        )
        length = keys.shape[2]
        bias = jax.lax.dynamic_slice_in_dim(self._distance_bias(length), position, 1, axis=-2)
        bias = bias + jnp.where(jnp.arange(length) <= position, 0.0, MASKED)
        return self._attend(query, keys, value, bias, None), (keys, value)

    def _heads(self, x: Float[Array, "b l w"], first: int | Array) -> tuple[Array, Array, Array]:
        """Returns queries, keys and values, [b, h, l, e], of the positions from `first` on."""
        query, keys, value = (
            rearrange(layer(x), "b l (h e) -> b h l e", h=self.num_heads)
            for layer in (self.query, self.key, self.value)
        )
        return (rotary(query, first), rotary(keys, first), value) if self.rotary else (query, keys, value)

    def _attend(
        self, query: Array, keys: Array, value: Array, bias: Array, key: Key[Array, ""] | None
    ) -> Float[Array, "b l w"]:
        exact = jnp.promote_types(query.dtype, jnp.float32)
        logits = jnp.einsum("bhqe,bhke->bhqk", query, keys, preferred_element_type=exact)
        weights = dropout(jax.nn.softmax(logits / math.sqrt(query.shape[-1]) + bias), self.dropout, key)
        return self._merge_heads(jnp.einsum("bhqk,bhke->bhqe", weights.astype(value.dtype), value))

    def _merge_heads(self, mixed: Float[Array, "b h l e"]) -> Float[Array, "b l w"]:
        return self.out(rearrange(mixed, "b h l e -> b l (h e)"))

    def _distance_bias(self, length: int) -> Float[Array, "h l l"]:
        """Returns the learned bias of each pair of positions; zeros, [1, l, l], without relative positions."""
        if self.relative_bias is None:
            return jnp.zeros((1, length, length))
        distance = jnp.arange(length)[None, :] - jnp.arange(length)[:, None]
        return self.relative_bias[...][:, jnp.clip(distance, -self.reach, self.reach) + self.reach]


def can_fuse(query: Float[Array, "b h l e"], dropout: float) -> bool:
    """Returns whether attention with these heads can be one kernel: that of cuDNN, in bfloat16, without dropout."""
    length, width = query.shape[-2:]
    fits = query.dtype == jnp.bfloat16 and width % 8 == 0 and width <= 128 and length % 2 == 0
    return fits and dropout == 0.0 and jax.default_backend() == "gpu"


def fused_attention(
    query: Float[Array, "b h l e"], keys: Float[Array, "b h l e"], value: Float[Array, "b h l e"], attention_mask: Array
) -> Float[Array, "b h l e"]:
    """Computes attention in one kernel, which never stores the weights of all pairs of positions."""
    heads = [rearrange(projected, "b h l e -> b l h e") for projected in (query, keys, value)]
    attention_mask = jnp.broadcast_to(attention_mask, (attention_mask.shape[0], 1, *query.shape[-2:-1] * 2))
    mixed = jax.nn.dot_product_attention(*heads, mask=attention_mask, implementation="cudnn")
    return rearrange(mixed, "b l h e -> b h l e")
