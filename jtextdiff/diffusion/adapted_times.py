"""A learned density of training times, under which an estimated integral over time varies least.

The times below `start` stay uniform. Above it the density is constant in each of several equal bins; the logarithms of
their masses are parameters. ∫ f(t) dt is estimated by f(t)/p(t), t ~ p, whose variance is least where p(t) is
proportional to the root mean square of f at t (Kingma et al. 2021, appendix I.2, with a learned schedule in place of a
density).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

NUM_BINS = 32

UNIFORM_SHARE = 0.1
"""Share of the times above `start` that are uniform, so that no time is never trained."""


def masses(logits: Float[Array, "k"]) -> Float[Array, "k"]:
    """Returns the probability of each bin, for a time above `start`."""
    return (1 - UNIFORM_SHARE) * jax.nn.softmax(logits) + UNIFORM_SHARE / len(logits)


def quantile(logits: Float[Array, "k"], u: Float[Array, "..."], start: float) -> Float[Array, "..."]:
    """Returns the time below which a share `u` of the times lies; a uniform `u` gives a sample of the density."""
    edges = jnp.linspace(start, 1, len(logits) + 1)
    below = jnp.concatenate([jnp.zeros(1), jnp.cumsum(masses(logits))])
    return jnp.where(u < start, u, jnp.interp(u, start + (1 - start) * below / below[-1], edges))


def density(logits: Float[Array, "k"], t: Float[Array, "..."], start: float) -> Float[Array, "..."]:
    """Returns p(t)."""
    place = (t - start) / (1 - start) * len(logits)
    bins = jnp.clip(jnp.ceil(place).astype(int) - 1, 0, len(logits) - 1)
    return jnp.where(t < start, 1.0, len(logits) * masses(logits)[bins])


def second_moment(
    logits: Float[Array, "k"], t: Float[Array, "..."], value: Float[Array, "..."], start: float
) -> Float[Array, "..."]:
    """Returns an estimate of E[(f(t)/p(t))²], t ~ p, from f(t) = `value` at samples `t`.

    Its gradient with respect to the logits is unbiased; none flows to the value.
    """
    p = density(logits, t, start)
    return jax.lax.stop_gradient(value) ** 2 / (jax.lax.stop_gradient(p) * p)
