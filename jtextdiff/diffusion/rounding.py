"""Rounding of vectors to tokens, and the spread of token embeddings."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jtextdiff.diffusion.distributions import defined
from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.schedules import Time

MIN_NOISE_VARIANCE = 1e-3
"""Lower bound on the noise variance in `token_log_probs`: at this variance the posterior of a clean vector is its own
token in float32."""


def nearest_token(
    embedding: Float[Array, "v d"], x: Float[Array, "b l d"], possible: Bool[Array, "#b #l v"] | None = None
) -> Int[Array, "b l"]:
    """Returns the row of `embedding` nearest to each vector by Euclidean distance, among the `possible` rows if given.

    An embedding is always nearest to itself. A vector with NaN has no nearest row: UNDEFINED.
    """
    closeness = 2 * _dot_products(x, embedding) - jnp.sum(embedding**2, axis=-1)[None, None]
    closeness = closeness if possible is None else jnp.where(possible, closeness, -jnp.inf)
    return defined(jnp.argmax(closeness, axis=-1), closeness)


def token_log_probs(
    embedding: Float[Array, "v d"], process: Gaussian, x_t: Float[Array, "b l d"], t: Time
) -> Float[Array, "b l v"]:
    """Returns log p(token | x_t) of each position on its own, by Bayes with a uniform prior over tokens."""
    signal, noise = process.signal(t, x_t), process.noise(t, x_t)
    closeness = signal * _dot_products(x_t, embedding) - 0.5 * signal**2 * jnp.sum(embedding**2, axis=-1)[None, None]
    return jax.nn.log_softmax(closeness / jnp.maximum(noise**2, MIN_NOISE_VARIANCE))


def embedding_spread(embedding: Float[Array, "v d"]) -> dict[str, Float[Array, ""]]:
    """Returns signs of collapse: the mean norm of the rows, and their mean distance to the nearest other row.

    The distance is a share of the mean norm.
    """
    square = jnp.sum(embedding**2, axis=-1)
    products, self_mask = _dot_products(embedding, embedding), jnp.diag(jnp.full(len(embedding), jnp.inf))
    distance = square[:, None] - 2 * products + square[None] + self_mask
    norm = jnp.mean(jnp.sqrt(square))
    closest = jnp.mean(jnp.sqrt(jnp.maximum(jnp.min(distance, axis=-1), 0.0)))
    return {"embedding_norm": norm, "nearest_word": closest / norm}


def _dot_products(x: Float[Array, "*b d"], embedding: Float[Array, "v d"]) -> Float[Array, "*b v"]:
    """Returns the dot product of each vector with each row, in float32: a GPU otherwise rounds to ten bits (TF32).

    Squared distances are small differences of such products.
    """
    return jnp.matmul(x, embedding.T, precision="highest")
