"""Layers of all networks: dense, embedding, feed-forward, time embedding, dropout.

A layer is random only if it is given a key; there is no training flag.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key


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


def gelu(x: Array) -> Array:
    """Returns x Φ(x), exact, by erf: on a CPU a third cheaper than jax.nn's, which uses erfc."""
    return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))


ACTIVATIONS = {"gelu": gelu, "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True)}
"""Of feed-forward layers: the exact GELU, and its approximation by tanh (Hendrycks & Gimpel 2016)."""


def dense(
    fan_in: int,
    fan_out: int,
    *,
    init: str = "lecun",
    bias: bool = True,
    bfloat16: bool = False,
    precision: str | None = None,
    rngs: nnx.Rngs,
) -> nnx.Linear:
    """Returns a dense layer, initialised with variance 1/fan_in and zero bias; "torch": both uniform within 1/√fan_in.

    With `bfloat16` it multiplies and returns bfloat16; its parameters stay float32. `precision` is that of the product:
    None is TF32 on a GPU, "highest" float32.
    """
    dtype = jnp.bfloat16 if bfloat16 else None
    linear = functools.partial(nnx.Linear, fan_in, fan_out, use_bias=bias, dtype=dtype, precision=precision, rngs=rngs)
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
    """Two dense layers with one of the `ACTIVATIONS` between them."""

    def __init__(
        self, width: int, hidden: int, *, activation: str, dropout: float, init: str, bfloat16: bool, rngs: nnx.Rngs
    ):
        self.activation, self.dropout = activation, dropout
        self.up = dense(width, hidden, init=init, bfloat16=bfloat16, rngs=rngs)
        self.down = dense(hidden, width, init=init, bfloat16=bfloat16, rngs=rngs)

    def __call__(self, x: Float[Array, "b l w"], key: Key[Array, ""] | None) -> Float[Array, "b l w"]:
        return dropout(self.down(ACTIVATIONS[self.activation](self.up(x))), self.dropout, key)
