"""Objectives: what a loss is made of, one number an example, in nats where it is a likelihood."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jtextdiff.diffusion.distributions import Categorical
from jtextdiff.diffusion.randomness import Keys


def mean_over(values: Float[Array, "b l"], valid: Bool[Array, "b l"]) -> Float[Array, "b"]:
    """Mean over the valid positions of each example."""
    return sum_over(values, valid) / jnp.maximum(jnp.sum(valid, axis=-1), 1)


def sum_over(values: Float[Array, "b l"], valid: Bool[Array, "b l"]) -> Float[Array, "b"]:
    """Sum over the valid positions of each example."""
    return jnp.sum(jnp.where(valid, values, 0.0), axis=-1)


def cross_entropy(logits: Float[Array, "b l v"], tokens: Int[Array, "b l"]) -> Float[Array, "b l"]:
    """−log softmax(logits)[token], nats a position."""
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def squared_error(x: Float[Array, "b l d"], y: Float[Array, "b l d"]) -> Float[Array, "b l"]:
    """Mean over channels of (x − y)²."""
    return jnp.mean((x - y) ** 2, axis=-1)


def length_nll(counts: Int[Array, "m"], lengths: Int[Array, "b"]) -> Float[Array, "b"]:
    """−log p(length), nats, under the law fitted to the `counts` of each length."""
    return -length_law(counts)[lengths]


def draw_length(counts: Int[Array, "m"], keys: Keys, asked: Int[Array, "b"]) -> Int[Array, "b"]:
    """The length asked for; where that is 0 one drawn from the law fitted to `counts`; −n: one that is n at least."""
    long_enough = jnp.arange(len(counts))[None] >= -asked[:, None]
    drawn = Categorical(logits=jnp.where(long_enough, length_law(counts)[None], -jnp.inf)).sample(keys)
    return jnp.where(asked > 0, asked, drawn)


def length_law(counts: Int[Array, "m"]) -> Float[Array, "m"]:
    """Log-law of sequence lengths: relative frequencies, with .01 of a sentence added to each possible length."""
    possible = jnp.arange(len(counts)) > 0
    smoothed = jnp.where(possible, counts + 0.01, 0.0)
    return jnp.log(smoothed) - jnp.log(jnp.sum(smoothed))
