"""Mentions: whether a text has certain words, by what its latent alone tells of them."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

SELDOM = -12.0
"""The log of a probability q below which 1 − (1 − q)^n is n q to float32's digits."""


def mentioned(words: Float[Array, "b v"], allowed: Bool[Array, "*b k v"], mean_length: float) -> Float[Array, "b"]:
    """Σ log(1 − (1 − q)^n) over the k places, nats, q the share of the `allowed` words in the law that the logits
    `words` give a text's, n its mean length: as if the words of a text were drawn one by one, in no order."""
    log_p = jax.nn.log_softmax(words)[:, None]
    log_q = jax.nn.logsumexp(jnp.where(allowed if allowed.ndim == 3 else allowed[None], log_p, -jnp.inf), axis=-1)
    never = mean_length * jnp.log1p(-jnp.minimum(jnp.exp(log_q), 1 - 1e-6))
    # Where q is small its logarithm keeps a slope, which the power has lost.
    seldom = log_q + math.log(mean_length)
    return jnp.sum(jnp.where(log_q < SELDOM, seldom, jnp.log(-jnp.expm1(jnp.minimum(never, -1e-7)))), axis=-1)
