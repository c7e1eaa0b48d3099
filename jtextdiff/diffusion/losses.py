"""Terms of the training losses: one number per example, in nats if it is a likelihood."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def mean_over(values: Float[Array, "b l"], valid: Bool[Array, "b l"]) -> Float[Array, "b"]:
    """Returns the mean over the valid positions of each example."""
    return sum_over(values, valid) / jnp.maximum(jnp.sum(valid, axis=-1), 1)


def sum_over(values: Float[Array, "b l"], valid: Bool[Array, "b l"]) -> Float[Array, "b"]:
    """Returns the sum over the valid positions of each example."""
    return jnp.sum(jnp.where(valid, values, 0.0), axis=-1)


def cross_entropy(logits: Float[Array, "b l v"], tokens: Int[Array, "b l"]) -> Float[Array, "b l"]:
    """Returns −log softmax(logits)[token], nats per position."""
    target_logits = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - target_logits


def squared_error(x: Float[Array, "b l d"], y: Float[Array, "b l d"]) -> Float[Array, "b l"]:
    """Returns the mean over channels of (x − y)²."""
    return jnp.mean((x - y) ** 2, axis=-1)
