"""Training times whose density follows the size of what is estimated, so that the estimate varies least.

The density is constant in each of several equal bins of [0, 1]; the logarithms of their masses are parameters. An
integral ∫ f(t) dt is estimated by f(t)/p(t), t ~ p. Its variance is least where p(t) is proportional to the root mean
square of f at t (Kingma et al. 2021, appendix I.2, with a learned schedule in place of a density).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

NUM_BINS = 32

UNIFORM_SHARE = 0.1
"""Share of the times that are uniform, so that no time is never trained."""


def masses(logits: Float[Array, "k"]) -> Float[Array, "k"]:
    """Returns the probability of each bin."""
    return (1 - UNIFORM_SHARE) * jax.nn.softmax(logits) + UNIFORM_SHARE / len(logits)


def quantile(logits: Float[Array, "k"], u: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns the time below which a share `u` of the times lies; a uniform `u` gives a sample of the density."""
    edges = jnp.linspace(0, 1, len(logits) + 1)
    below = jnp.concatenate([jnp.zeros(1), jnp.cumsum(masses(logits))])
    return jnp.interp(u, below / below[-1], edges)


def density(logits: Float[Array, "k"], t: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns p(t)."""
    bins = jnp.clip(jnp.ceil(t * len(logits)).astype(int) - 1, 0, len(logits) - 1)
    return len(logits) * masses(logits)[bins]


def second_moment(logits: Float[Array, "k"], t: Float[Array, "..."], value: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns an estimate of E[(f(t)/p(t))²], t ~ p, from f(t) = `value` at samples `t`.

    Its gradient with respect to the logits is unbiased; none flows to the value.
    """
    p = density(logits, t)
    return jax.lax.stop_gradient(value) ** 2 / (jax.lax.stop_gradient(p) * p)
