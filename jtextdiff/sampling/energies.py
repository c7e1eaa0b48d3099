"""Energies: what is wanted of a text, as −log p(control | x) in nats a text. Sums, NOT and OR of energies are energies.

An energy is a pytree that carries its parameters, targets and weights as leaves: given to a compiled function, it may
change any of them without another compilation, and have another target for each text of a batch.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.pytree import pytree, static
from jtextdiff.diffusion.schedules import Time

LEAST = 1e-6
"""Nats: NOT takes no text for surer than this, where its energy would be infinite."""

Energy = Callable[..., Float[Array, "b"]]
"""(x, its time, which positions are text, an estimate of x at time 0 or None) ↦ nats a text; lower is better."""


def complement(energy: Array) -> Array:
    """−log(1 − e^−E), of energies elementwise: what is left of a probability."""
    energy = jnp.maximum(energy, LEAST)
    # Each way where it keeps its digits.
    small = jnp.log(-jnp.expm1(-jnp.minimum(energy, 1.0)))
    return -jnp.where(energy < 1.0, small, jnp.log1p(-jnp.exp(-jnp.maximum(energy, 1.0))))


def stacked(energies: Sequence[Any], rows: Int[np.ndarray, "n"] | Sequence[int]) -> Any:
    """One energy for a batch of these `rows`, of the energies that texts have; all must be built alike.

    Of what is the same array in all of them, such as a network's parameters, there is one; of the rest each row's.
    """

    def join(*leaves: Any) -> Any:
        return leaves[0] if all(leaf is leaves[0] for leaf in leaves) else jnp.stack([leaves[row] for row in rows])

    return jax.tree.map(join, *energies)


Valid = Bool[Array, "b l"] | None


@pytree
class Learned:
    """−log p(target | x_t), by a network that was trained on noisy x_t; or on the estimate of x_0, where there is one
    and it serves better."""

    params: Any
    target: Any  # arrays, of one text or of each text of the batch
    log_prob: Callable[..., Float[Array, "b"]] = static()  # (params, target, x, t, valid)
    of_estimate: bool = static(default=False)

    def __call__(self, x: Array, t: Time, valid: Valid = None, x_0: Array | None = None) -> Float[Array, "b"]:
        x, t = (x_0, 0.0) if self.of_estimate and x_0 is not None else (x, t)
        return -self.log_prob(self.params, self.target, x, t, valid)


@pytree
class Sum:
    """Σ weight · energy: all of them at once, and how much each counts."""

    energies: tuple[Any, ...]
    weights: tuple[Any, ...]  # a number each, or [b]

    def __call__(self, x: Array, t: Time, valid: Valid = None, x_0: Array | None = None) -> Float[Array, "b"]:
        terms = [weight * energy(x, t, valid, x_0) for energy, weight in zip(self.energies, self.weights, strict=True)]
        return sum(terms, jnp.zeros(len(x)))


def parts(energy: Energy, x: Array, t: Time, valid: Valid = None) -> Float[Array, "b parts"]:
    """The energies that a Sum adds up, one by one and unweighted, in nats; of any other energy, itself alone."""
    each = energy.energies if isinstance(energy, Sum) else (energy,)
    return jnp.stack([one(x, t, valid) for one in each], axis=-1) if each else jnp.zeros((len(x), 0))


def along(
    energy: Energy, path: Float[Array, "n b l d"], times: Float[Array, "n"], valid: Valid = None
) -> Float[Array, "n b parts"]:
    """The `parts` of an energy at each state of a path, at the state's own time."""
    return jax.lax.map(lambda state: parts(energy, state[0], state[1], valid), (path, times))


@pytree
class Not:
    """−log(1 − p): falls no further once p is small, where −E would push for ever."""

    energy: Any

    def __call__(self, x: Array, t: Time, valid: Valid = None, x_0: Array | None = None) -> Float[Array, "b"]:
        return complement(self.energy(x, t, valid, x_0))


@pytree
class Or:
    """−log Σ e^−E: the probability of any, if they exclude each other."""

    energies: tuple[Any, ...]

    def __call__(self, x: Array, t: Time, valid: Valid = None, x_0: Array | None = None) -> Float[Array, "b"]:
        return -jax.nn.logsumexp(-jnp.stack([energy(x, t, valid, x_0) for energy in self.energies]), axis=0)


@pytree
class NoiseAveraged:
    """−log E[p(control | x_0)] over x_0 ~ N(√ᾱ_t x, (1 − ᾱ_t) I): what an energy of clean x says of a noisy one.

    Exact for data from N(0, I), which whitened coordinates are. It does not commute with sums, NOT and OR: wrap the
    whole composition. The expectation is a mean over `noises`, which stay the same along a path.
    """

    energy: Any
    noises: Float[Array, "n *shape"]
    process: Gaussian

    def __call__(self, x: Array, t: Time, valid: Valid = None, x_0: Array | None = None) -> Float[Array, "b"]:
        law = self.process.marginal(x, t)
        each = jax.vmap(lambda noise: self.energy(law.mean + law.std * jnp.broadcast_to(noise, x.shape), 0.0, valid))(
            self.noises
        )
        return jnp.log(len(self.noises)) - jax.nn.logsumexp(-each, axis=0)


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
