"""Attention with positions and a KV cache.

A layer is random only if it is given a key; there is no training flag.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.nets.layers import dense, dropout, sinusoid, uniform

MASKED = -1e9
"""Added to the attention logits of masked positions: its exp is exactly zero in float32."""

KVCache = tuple[Float[Array, "b g cached e"], Float[Array, "b g cached e"]]
"""Keys and values of one layer at all positions; zeros at positions not yet computed."""


Fuse = Callable[[Float[Array, "b l w"], Float[Array, "b l w"]], Float[Array, "b l w"]]
"""(inputs, values) of attention ↦ its values."""


class Layout(NamedTuple):
    """The positions of the vectors of one pass, and which of them each may attend to."""

    positions: Int[Array, "l"]
    allowed: Bool[Array, "#b 1 #l l"]


def one_text(length: int, *, causal: bool, valid: Bool[Array, "b l"] | None) -> Layout:
    """Returns the layout in which each vector attends to all `valid` ones, or to those before it and itself."""
    ones = jnp.ones((1, 1, length, length), bool)
    allowed = jnp.tril(ones) if causal else ones
    return Layout(jnp.arange(length), allowed if valid is None else allowed & rearrange(valid, "b l -> b 1 1 l"))


def noisy_and_clean(length: int, block_size: int) -> Layout:
    """Returns the layout of a noisy text followed by the clean one, both in blocks (Arriola et al. 2025).

    Noisy vectors attend to their own noisy block and to clean blocks before it, clean ones to clean blocks up to
    their own: the noisy half is predicted as if the blocks before were finished, for all blocks at once.
    """
    positions = jnp.arange(length)
    query, key = positions[:, None] // block_size, positions // block_size
    own, before = query == key, query > key
    noisy = jnp.concatenate([own, before], axis=-1)
    clean = jnp.concatenate([jnp.zeros_like(own), own | before], axis=-1)
    return Layout(jnp.tile(positions, 2), jnp.concatenate([noisy, clean])[None, None])


def rotary(x: Float[Array, "b h l e"], positions: Int[Array, "l"], base: float) -> Float[Array, "b h l e"]:
    """Rotates pairs of channels by angles proportional to the position (Su et al. 2021, eq. 34)."""
    width = x.shape[-1]
    frequencies = base ** (-jnp.arange(width // 2) / (width // 2))
    angles = positions[:, None] * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1).astype(x.dtype)


class XLPositions(nnx.Module):
    """The logits of Transformer-XL: (q_i + u)·k_j + (q_i + v)·W r(i − j), over √e (Dai et al. 2019, §3.3).

    r is the sinusoid of the signed distance, so that the two directions differ; u and v are learned vectors per head,
    zero at first.
    """

    def __init__(self, width: int, num_heads: int, *, init: str, rngs: nnx.Rngs):
        zeros = jnp.zeros((num_heads, width // num_heads))
        initializer = nnx.initializers.lecun_normal() if init == "lecun" else uniform(width)
        self.project = nnx.Linear(width, width, use_bias=False, kernel_init=initializer, rngs=rngs)
        self.content, self.position = nnx.Param(zeros), nnx.Param(zeros)

    def content_query(self, query: Float[Array, "b h l e"]) -> Float[Array, "b h l e"]:
        """Returns q + u."""
        return query + self.content[...][:, None].astype(query.dtype)

    def position_logits(self, query: Float[Array, "b h l e"]) -> Float[Array, "b h l l"]:
        """Returns the logits of all pairs, of (q_i + v)·W r(i − j) over √e."""
        length = query.shape[2]
        logits = self._by_distance(query, length - 1 - jnp.arange(2 * length - 1))
        index = length - 1 - (jnp.arange(length)[:, None] - jnp.arange(length)[None, :])
        return jnp.take_along_axis(logits, index[None, None], axis=-1)

    def position_logits_at(
        self, query: Float[Array, "b h 1 e"], position: Array, length: int
    ) -> Float[Array, "b h 1 {length}"]:
        """Returns the logits of a query at one position and the keys at 0 … length − 1."""
        return self._by_distance(query, position - jnp.arange(length))

    def _by_distance(self, query: Float[Array, "b h l e"], distance: Array) -> Float[Array, "b h l m"]:
        heads, channels = query.shape[1], query.shape[3]
        keys = rearrange(self.project(sinusoid(distance.astype(float), heads * channels)), "m (h e) -> h m e", h=heads)
        exact = jnp.promote_types(query.dtype, jnp.float32)
        query = query.astype(exact) + self.position[...][:, None]
        return jnp.einsum("bhqe,hme->bhqm", query, keys) / math.sqrt(channels)


class Attention(nnx.Module):
    """Multi-head attention with `rotary`, `relative` (a learned bias per distance) or `xl` positions, or none of them.

    `fuse` changes the values before they are cached and averaged. Each of g = `num_kv_heads` heads of keys and values
    is read by h/g = `num_heads`/`num_kv_heads` queries in a row (Ainslie et al. 2023). `head_norm` makes the norms of
    the queries and of the keys of each head. With a `window` positions attend to those at most so far away.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        num_kv_heads: int,
        head_width: int,
        positions: str,
        rotary_base: float,
        window: int | None,
        reach: int,
        bias: bool,
        out_bias: bool,
        head_norm: Callable[[int], Any] | None,
        dropout: float,
        init: str,
        bfloat16: bool,
        rngs: nnx.Rngs,
    ):
        self.head_width, self.window, self.dropout = head_width, window, dropout
        self.rotary_base, self.reach = rotary_base if "rotary" in positions else None, reach
        linear = functools.partial(dense, init=init, bfloat16=bfloat16, rngs=rngs)
        self.query = linear(width, num_heads * head_width, bias=bias)
        self.key, self.value = (linear(width, num_kv_heads * head_width, bias=bias) for _ in range(2))
        self.out = linear(num_heads * head_width, width, bias=out_bias)
        by_distance = jnp.zeros((num_heads, 2 * reach + 1)) if positions == "relative" else None
        self.relative_bias = None if by_distance is None else nnx.Param(by_distance)
        self.xl = XLPositions(width, num_heads, init=init, rngs=rngs) if positions == "xl" else None
        self.query_norm = None if head_norm is None else head_norm(head_width)
        self.key_norm = None if head_norm is None else head_norm(head_width)

    def __call__(
        self,
        x: Float[Array, "b l w"],
        layout: Layout,
        key: Key[Array, ""] | None,
        fuse: Fuse | None = None,
    ) -> Float[Array, "b l w"]:
        query, keys, value = self._heads(x, layout.positions, fuse)
        allowed = layout.allowed & self._in_window(layout.positions, layout.positions)
        if self.relative_bias is None and self.xl is None and can_fuse(query, 0.0 if key is None else self.dropout):
            return self._merge_heads(fused_attention(query, keys, value, allowed))
        bias = self._distance_bias(x.shape[1]) + jnp.where(allowed, 0.0, MASKED)
        if self.xl is not None:
            query, bias = self.xl.content_query(query), bias + self.xl.position_logits(query)
        return self._attend(query, keys, value, bias, key)

    def step(
        self, x: Float[Array, "b m w"], position: Array, cache: KVCache, fuse: Fuse | None = None
    ) -> tuple[Float[Array, "b m w"], KVCache]:
        """Attends from m positions, the first of them `position`, to each other and the cached ones before them.

        Also returns the cache with them added. With `xl` positions m is 1.
        """
        num = x.shape[1]
        query, *new = self._heads(x, position + jnp.arange(num), fuse)
        keys, value = (
            jax.lax.dynamic_update_slice_in_dim(cached, added.astype(cached.dtype), position, axis=2)
            for cached, added in zip(cache, new, strict=True)
        )
        length = keys.shape[2]
        bias = jax.lax.dynamic_slice_in_dim(self._distance_bias(length), position, num, axis=-2)
        positions = jnp.arange(length)
        seen = (positions < position + num) & self._in_window(position + jnp.arange(num), positions)
        bias = bias + jnp.where(seen, 0.0, MASKED)
        if self.xl is not None:
            query, bias = self.xl.content_query(query), bias + self.xl.position_logits_at(query, position, length)
        return self._attend(query, keys, value, bias, None), (keys, value)

    def _heads(
        self, x: Float[Array, "b l w"], positions: Int[Array, "l"], fuse: Fuse | None
    ) -> tuple[Array, Array, Array]:
        """Returns queries, [b, h, l, e], keys and values, [b, g, l, e]."""
        projected = self.query(x), self.key(x), self.value(x) if fuse is None else fuse(x, self.value(x))
        query, keys, value = (rearrange(part, "b l (h e) -> b h l e", e=self.head_width) for part in projected)
        if self.query_norm is not None and self.key_norm is not None:
            query, keys = self.query_norm(query).astype(query.dtype), self.key_norm(keys).astype(keys.dtype)
        if self.rotary_base is None:
            return query, keys, value
        return rotary(query, positions, self.rotary_base), rotary(keys, positions, self.rotary_base), value

    def _in_window(self, query: Int[Array, "q"], key: Int[Array, "k"]) -> Bool[Array, "q k"] | bool:
        """Returns whether each key is near enough to each query; True without a window."""
        return self.window is None or jnp.abs(query[:, None] - key) <= self.window

    def _attend(
        self, query: Array, keys: Array, value: Array, bias: Array, key: Key[Array, ""] | None
    ) -> Float[Array, "b l w"]:
        exact = jnp.promote_types(query.dtype, jnp.float32)
        product = functools.partial(jnp.einsum, "bhqe,bhke->bhqk", preferred_element_type=exact)
        logits = in_groups(product, query, keys)
        weights = dropout(jax.nn.softmax(logits / math.sqrt(query.shape[-1]) + bias), self.dropout, key)
        mean = functools.partial(jnp.einsum, "bhqk,bhke->bhqe")
        return self._merge_heads(in_groups(mean, weights.astype(value.dtype), value))

    def _merge_heads(self, mixed: Float[Array, "b h l e"]) -> Float[Array, "b l w"]:
        return self.out(rearrange(mixed, "b h l e -> b l (h e)"))

    def _distance_bias(self, length: int) -> Float[Array, "h l l"]:
        """Returns the learned bias of each pair of positions; zeros, [1, l, l], without relative positions."""
        if self.relative_bias is None:
            return jnp.zeros((1, length, length))
        distance = jnp.arange(length)[None, :] - jnp.arange(length)[:, None]
        return self.relative_bias[...][:, jnp.clip(distance, -self.reach, self.reach) + self.reach]


def in_groups(
    product: Callable[[Array, Array], Array], heads: Float[Array, "b h ..."], shared: Float[Array, "b g ..."]
) -> Float[Array, "b h ..."]:
    """Applies a product of arrays with as many heads, of which the second has each head once for h/g of the first."""
    groups = shared.shape[1]
    if heads.shape[1] == groups:
        return product(heads, shared)
    grouped = rearrange(heads, "b (g r) ... -> b g r ...", g=groups)
    return rearrange(jax.vmap(product, (2, None), 2)(grouped, shared), "b g r ... -> b (g r) ...")


def can_fuse(query: Float[Array, "b h l e"], dropout: float) -> bool:
    """Returns whether attention with these heads can be one kernel: that of cuDNN, in bfloat16, without dropout."""
    length, width = query.shape[-2:]
    fits = query.dtype == jnp.bfloat16 and width % 8 == 0 and width <= 128 and length % 2 == 0
    return fits and dropout == 0.0 and jax.default_backend() == "gpu"


def fused_attention(
    query: Float[Array, "b h l e"], keys: Float[Array, "b g l e"], value: Float[Array, "b g l e"], allowed: Array
) -> Float[Array, "b h l e"]:
    """Computes attention in one kernel, which never stores the weights of all pairs of positions."""
    heads = [rearrange(projected, "b h l e -> b l h e") for projected in (query, keys, value)]
    allowed = jnp.broadcast_to(allowed, (allowed.shape[0], 1, *query.shape[-2:-1] * 2))
    mixed = jax.nn.dot_product_attention(*heads, mask=allowed, implementation="cudnn")
    return rearrange(mixed, "b l h e -> b h l e")
