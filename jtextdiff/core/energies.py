"""Energies: what is wanted of a text, as −log p(control | x) in nats a text. Sums, NOT and OR of energies are energies.

An energy is a pytree that carries its parameters, targets and weights as leaves: given to a compiled function, it may
change any of them without another compilation, and have another target for each text of a batch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jtextdiff.core.gaussian import Gaussian
from jtextdiff.core.pytree import pytree, static
from jtextdiff.core.schedules import Time

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
