"""Wording: what is wanted of the words themselves, by what a noisy vector says of its word; no network is asked."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jtextdiff.core.energies import LEAST, complement
from jtextdiff.core.gaussian import Gaussian
from jtextdiff.core.pytree import pytree
from jtextdiff.core.schedules import Time

CLEAN = 1e-3
"""The least variance of the noise that a vector is taken to have: a clean one is its word's own to float32."""


RARE = -9.0
"""The log of a probability q below which −log(1 − q) is q to float32's digits, near enough."""


def word_log_p(table: Float[Array, "v d"], process: Gaussian, x_t: Float[Array, "b l d"], t: Time) -> Array:
    """log p(word | x_t) of each position on its own, by Bayes from equally likely words, [b, l, v]."""
    signal, noise = process.signal(t, x_t), process.noise(t, x_t)
    closeness = signal * (x_t @ table.T) - 0.5 * signal**2 * jnp.sum(table**2, axis=-1)[None, None]
    return jax.nn.log_softmax(closeness / jnp.maximum(noise**2, CLEAN))


@pytree
class Phrase:
    """−log p(a phrase stands somewhere): words side by side, each one of those `allowed` at its place, in all texts
    or in each its own.

    1 − Π (1 − q), with q the product of the words' probabilities at a place, as if places were independent.
    """

    table: Float[Array, "v d"]
    allowed: Bool[Array, "*b k v"]
    process: Gaussian

    def __call__(
        self,
        x: Float[Array, "b l d"],
        t: Time,
        valid: Bool[Array, "b l"] | None = None,
        x_0: Float[Array, "b l d"] | None = None,
    ) -> Float[Array, "b"]:
        x, t = (x, t) if x_0 is None else (x_0, 0.0)
        log_p = word_log_p(self.table, self.process, x, t)
        size = self.allowed.shape[-2]
        places = x.shape[1] - size + 1
        if places < 1:
            return jnp.full(len(x), -jnp.log(LEAST))  # texts too short for it, whatever they say
        at = [jnp.reshape(self.allowed[..., place, :], (-1, 1, log_p.shape[-1])) for place in range(size)]
        words = [jax.nn.logsumexp(jnp.where(each, log_p, -jnp.inf), axis=-1) for each in at]
        log_q = sum((word[:, j : j + places] for j, word in enumerate(words)), jnp.zeros((len(x), places)))
        room = jnp.ones((len(x), places), bool) if valid is None else valid[:, size - 1 :]
        any_room = jnp.any(room, axis=-1)
        room = room | ~any_room[:, None]  # without any, the sum below would have no terms
        # log of Σ −log(1 − q), by way of log q where q is small: what is far from there has a slope to follow, too.
        near = jnp.log(complement(-jnp.maximum(log_q, RARE)))
        log_total = jax.nn.logsumexp(jnp.where(room, jnp.where(log_q > RARE, near, log_q), -jnp.inf), axis=-1)
        there = jnp.log(-jnp.expm1(-jnp.exp(jnp.maximum(log_total, RARE))))
        return jnp.where(any_room, -jnp.where(log_total > RARE, there, log_total), -jnp.log(LEAST))
