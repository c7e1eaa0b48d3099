"""The empirical distribution of text lengths: log-probabilities, likelihood and samples."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jtextdiff.diffusion.distributions import Categorical
from jtextdiff.diffusion.randomness import Keys

PSEUDO_COUNT = 0.01
"""Texts of each possible length that are added to the counts."""


def length_log_probs(counts: Int[Array, "m"]) -> Float[Array, "m"]:
    """Returns log p(length) of lengths 0 … m − 1: smoothed relative frequencies; length 0 is impossible."""
    possible = jnp.arange(len(counts)) > 0
    smoothed = jnp.where(possible, counts + PSEUDO_COUNT, 0.0)
    return jnp.log(smoothed) - jnp.log(jnp.sum(smoothed))


def length_nll(counts: Int[Array, "m"], lengths: Int[Array, "b"]) -> Float[Array, "b"]:
    """Returns −log p(length), nats, under the distribution fitted to the `counts` of each length."""
    return -length_log_probs(counts)[lengths]


def sample_length(counts: Int[Array, "m"], keys: Keys, requested: Int[Array, "b"]) -> Int[Array, "b"]:
    """Returns the requested lengths; samples where none is fixed.

    n > 0 is returned as it is, 0 is sampled from the distribution fitted to `counts`, −n is sampled given a length of
    at least n.
    """
    long_enough = jnp.arange(len(counts))[None] >= -requested[:, None]
    logits = jnp.where(long_enough, length_log_probs(counts)[None], -jnp.inf)
    return jnp.where(requested > 0, requested, Categorical(logits=logits).sample(keys))
