"""Layers of all networks: dense, embedding, feed-forward, time embedding, dropout.

A layer is random only if it is given a key; there is no training flag.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from jtextdiff.nets.batch_sharding import shard_batch


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


ACTIVATIONS = {"gelu": gelu, "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True), "silu": jax.nn.silu}
"""Of feed-forward layers: the exact GELU, its approximation by tanh (Hendrycks & Gimpel 2016), and x σ(x)."""

NORMS = {"layer": nnx.LayerNorm, "rms": nnx.RMSNorm}
"""LayerNorm with a bias, and x/√(mean x² + ε) with a scale alone (Zhang & Sennrich 2019)."""


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


def norm_layer(width: int, *, kind: str, bias: bool, epsilon: float, rngs: nnx.Rngs) -> Any:
    """Returns one of the `NORMS` over the last axis; "rms" has no bias."""
    has_bias = {"use_bias": bias} if kind == "layer" else {}
    return NORMS[kind](width, epsilon=epsilon, **has_bias, rngs=rngs)


class TimeEmbedding(nnx.Module):
    """t → sinusoid → two dense layers with SiLU between them (Li et al. 2022, released code)."""

    def __init__(self, width: int, features: int, hidden: int, *, init: str, rngs: nnx.Rngs):
        self.features = features
        self.up = dense(features, hidden, init=init, rngs=rngs)
        self.down = dense(hidden, width, init=init, rngs=rngs)

    def __call__(self, t: Float[Array, "*b"]) -> Float[Array, "*b w"]:
        return self.down(jax.nn.silu(self.up(sinusoid(t, self.features))))


class FeedForward(nnx.Module):
    """Two dense layers with one of the `ACTIVATIONS` between them: down(f(up x)).

    A `gated` one has three, down(f(gate x) · up x): SwiGLU with "silu", GeGLU with "gelu" (Shazeer 2020).
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        activation: str,
        gated: bool,
        bias: bool,
        dropout: float,
        init: str,
        bfloat16: bool,
        rngs: nnx.Rngs,
    ):
        self.activation, self.dropout = activation, dropout
        linear = functools.partial(dense, init=init, bias=bias, bfloat16=bfloat16, rngs=rngs)
        self.up, self.down = linear(width, hidden), linear(hidden, width)
        self.gate = linear(width, hidden) if gated else None

    def __call__(self, x: Float[Array, "b l w"], key: Key[Array, ""] | None) -> Float[Array, "b l w"]:
        activation = ACTIVATIONS[self.activation]
        hidden = activation(self.up(x)) if self.gate is None else activation(self.gate(x)) * self.up(x)
        return dropout(self.down(hidden), self.dropout, key)


class ValueFusion(nnx.Module):
    """Returns Σ_j (V_j x) ∘ (G_j c): a product of rank `rank` of the input x and a context c, one c per text.

    Hu et al. (2022), eq. 9, which multiplies two sums and so has rank one; here the products are summed. V_1 is the
    attention's own value projection and G_1 starts near one, the other G_j at zero: fresh values are close to those
    without a context.
    """

    def __init__(self, width: int, *, context_dim: int, rank: int, init: str, bfloat16: bool, rngs: nnx.Rngs):
        near_one = {
            "kernel_init": nnx.initializers.variance_scaling(0.1, "fan_in", "truncated_normal"),
            "bias_init": nnx.initializers.ones_init(),
        }
        self.gain = nnx.Linear(context_dim, width, **near_one, rngs=rngs)
        zeros = {"use_bias": False, "kernel_init": nnx.initializers.zeros_init()}
        self.more_gains = nnx.List([nnx.Linear(context_dim, width, **zeros, rngs=rngs) for _ in range(rank - 1)])
        self.more_values = nnx.List(
            [dense(width, width, init=init, bfloat16=bfloat16, rngs=rngs) for _ in range(rank - 1)]
        )

    def __call__(
        self, x: Float[Array, "b l w"], value: Float[Array, "b l w"], context: Float[Array, "b c"]
    ) -> Float[Array, "b l w"]:
        """`value` is V_1 x. The products are float32, the sum is of the type of `value`."""
        fused = value * shard_batch(self.gain(context))[:, None]
        for project, gain in zip(self.more_values, self.more_gains, strict=True):
            fused = fused + project(x) * shard_batch(gain(context))[:, None]
        return fused.astype(value.dtype)
