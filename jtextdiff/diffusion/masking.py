"""Random and top-k subsets of positions, and reveal rates of masked diffusion."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.diffusion.schedules import Schedule, Time


def top_k_mask(values: Float[Array, "b l"], count: Int[Array, "b"]) -> Bool[Array, "b l"]:
    """Marks the `count` largest values of each row; ties go to the first."""
    rank = jnp.argsort(jnp.argsort(-values, axis=-1), axis=-1)
    return rank < count[:, None]


TIE = 1e-5
"""What a position has to be ahead of its left neighbour; rounding of entropies and log p is smaller."""


def first_of_ties(values: Float[Array, "b l"]) -> Float[Array, "b l"]:
    """Returns values in whose order ties go to the first position, and are not decided by rounding.

    A network without absolute positions predicts the same for all tokens of a text of nothing but MASK. Of two values
    n positions apart, the left one counts as larger up to a difference of n · 1e-5.
    """
    return values - TIE * jnp.arange(values.shape[-1])[None]


def random_mask(key: Key[Array, ""], valid: Bool[Array, "b l"], count: Int[Array, "b"]) -> Bool[Array, "b l"]:
    """Marks a uniformly random subset of `count` valid positions of each text."""
    return top_k_mask(jnp.where(valid, jax.random.uniform(key, valid.shape), -1.0), count)


def reveal_probability(log_alpha_bar: Schedule, s: Time, t: Time) -> Array:
    """Returns (ᾱ_s − ᾱ_t)/(1 − ᾱ_t): the probability that a token masked at t is revealed at s < t."""
    log_s, log_t = log_alpha_bar(s), log_alpha_bar(t)
    return jnp.exp(log_s) * jnp.expm1(log_t - log_s) / jnp.expm1(log_t)


def reveal_rate(log_alpha_bar: Schedule, t: Time) -> Array:
    """Returns −ᾱ′/(1 − ᾱ) = d log(1 − ᾱ)/dt: the weight of a masked token in the continuous-time bound.

    Sahoo et al. (2024), eq. 10; Shi et al. (2024), eq. 4. Evaluated just before t = 1, where log ᾱ is infinite.
    """

    def log_masked(t: Array) -> Array:
        return jnp.log(-jnp.expm1(log_alpha_bar(t)))

    t = jnp.minimum(t, 1 - 1e-6)
    return jax.jvp(log_masked, (t,), (jnp.ones_like(t),))[1]
