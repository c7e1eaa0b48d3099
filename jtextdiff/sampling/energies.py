"""Energies −log p(control | x): classifiers, sums, NOT, OR and noise averages.

An energy is in nats per text; sums, NOT and OR of energies are energies. It is a pytree whose leaves are its
parameters, targets and weights. As an argument of a compiled function it may change any of them without recompilation,
and may have a different target for each text of a batch.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.pytree import pytree, static
from jtextdiff.diffusion.schedules import Time

Energy = Callable[..., Float[Array, "b"]]
"""(x, t, valid, x̂_0 or None) ↦ nats per text; lower is better. `valid` marks the positions of the text."""

Valid = Bool[Array, "b l"] | None


@runtime_checkable
class HasComplement(Protocol):
    """An energy that also computes −log(1 − p), more accurately than from −log p."""

    def complement(self, x: Array, t: Time, valid: Valid = None, x_0: Array | None = None) -> Float[Array, "b"]: ...


MIN_ENERGY = 1e-6
"""Nats: NOT clips an energy from below to this, since its own energy would be infinite at 0."""


@pytree
class Learned:
    """−log p(target | x_t) by a network trained on noisy x_t; with `on_estimate`, on the estimate of x_0 if given.

    `log_not` returns log(1 − p) for NOT directly, because 1 − exp(log p) loses precision, and its gradient, near p = 1.
    """

    params: Any
    target: Any  # arrays, for one text or for each text of the batch
    log_prob: Callable[..., Float[Array, "b"]] = static()  # (params, target, x, t, valid)
    log_not: Callable[..., Float[Array, "b"]] | None = static(default=None)  # of the same arguments
    on_estimate: bool = static(default=False)

    def __call__(self, x: Array, t: Time, valid: Valid = None, x_0: Array | None = None) -> Float[Array, "b"]:
        return -self._read(self.log_prob, x, t, valid, x_0)

    def complement(self, x: Array, t: Time, valid: Valid = None, x_0: Array | None = None) -> Float[Array, "b"]:
        if self.log_not is None:
            return complement(self(x, t, valid, x_0))
        return -self._read(self.log_not, x, t, valid, x_0)

    def _read(
        self, log_p: Callable[..., Float[Array, "b"]], x: Array, t: Time, valid: Valid, x_0: Array | None
    ) -> Float[Array, "b"]:
        x, t = (x_0, 0.0) if self.on_estimate and x_0 is not None else (x, t)
        return log_p(self.params, self.target, x, t, valid)


@pytree
class ValueEnergy:
    """−log p(target) of log p of the values of several labels, which are side by side."""

    target: Bool[Array, "*b c"]  # a text has one of these values
    columns: tuple[int, int] = static()  # those of the label

    def __call__(self, x: Array, t: Time, valid: Valid = None, x_0: Array | None = None) -> Float[Array, "b"]:
        return -log_total(x[:, slice(*self.columns)], self.target)

    def complement(self, x: Array, t: Time, valid: Valid = None, x_0: Array | None = None) -> Float[Array, "b"]:
        """Returns −log p(a value outside the target)."""
        return -log_total(x[:, slice(*self.columns)], ~self.target)


@pytree
class Sum:
    """Σ weight · energy: all controls at once."""

    energies: tuple[Any, ...]
    weights: tuple[Any, ...]  # one number each, or [b]

    def __call__(self, x: Array, t: Time, valid: Valid = None, x_0: Array | None = None) -> Float[Array, "b"]:
        terms = [weight * energy(x, t, valid, x_0) for energy, weight in zip(self.energies, self.weights, strict=True)]
        return sum(terms, jnp.zeros(len(x)))

    def complement(self, x: Array, t: Time, valid: Valid = None, x_0: Array | None = None) -> Float[Array, "b"]:
        """Returns −log(1 − Π p): that not all hold, whatever their weights."""
        return Or(energies=tuple(Not(energy=energy) for energy in self.energies))(x, t, valid, x_0)


@pytree
class Not:
    """−log(1 − p). Its gradient vanishes as p → 0; that of −E does not."""

    energy: Any

    def __call__(self, x: Array, t: Time, valid: Valid = None, x_0: Array | None = None) -> Float[Array, "b"]:
        if isinstance(self.energy, HasComplement):
            return self.energy.complement(x, t, valid, x_0)
        return complement(self.energy(x, t, valid, x_0))

    def complement(self, x: Array, t: Time, valid: Valid = None, x_0: Array | None = None) -> Float[Array, "b"]:
        return self.energy(x, t, valid, x_0)


@pytree
class Or:
    """−log(1 − Π (1 − p)): the probability of any of several controls, taken as independent."""

    energies: tuple[Any, ...]

    def __call__(self, x: Array, t: Time, valid: Valid = None, x_0: Array | None = None) -> Float[Array, "b"]:
        log_p, log_not = jnp.full(len(x), -jnp.inf), jnp.zeros(len(x))
        for energy in self.energies:
            # p(a or b) = p(a) + (1 − p(a)) p(b), which keeps the digits of small probabilities.
            log_p = jnp.logaddexp(log_p, log_not - energy(x, t, valid, x_0))
            log_not = log_not - Not(energy=energy)(x, t, valid, x_0)
        return -log_p

    def complement(self, x: Array, t: Time, valid: Valid = None, x_0: Array | None = None) -> Float[Array, "b"]:
        return sum((Not(energy=energy)(x, t, valid, x_0) for energy in self.energies), jnp.zeros(len(x)))


@pytree
class NoiseAveraged:
    """−log E[p(control | x_0)] over x_0 ~ N(√ᾱ_t x, (1 − ᾱ_t) I): extends an energy of clean x to noisy x.

    Exact for data from N(0, I), such as whitened latents. It does not commute with sums, NOT and OR: wrap the whole
    composition. The expectation is a mean over `noises`, which stay the same along a path.
    """

    energy: Any
    noises: Float[Array, "n *shape"]
    process: Gaussian

    def __call__(self, x: Array, t: Time, valid: Valid = None, x_0: Array | None = None) -> Float[Array, "b"]:
        marginal = self.process.marginal(x, t)

        def energy_at(noise: Array) -> Float[Array, "b"]:
            return self.energy(marginal.mean + marginal.std * jnp.broadcast_to(noise, x.shape), 0.0, valid)

        return jnp.log(len(self.noises)) - jax.nn.logsumexp(-jax.vmap(energy_at)(self.noises), axis=0)


def log_total(log_p: Float[Array, "*b k"], events: Bool[Array, "*#b k"]) -> Float[Array, "*b"]:
    """Returns the log probability of any of the events, which exclude each other; log MIN_ENERGY if there are none."""
    any_event = jnp.any(events, axis=-1)
    total = jax.nn.logsumexp(jnp.where(events | ~any_event[..., None], log_p, -jnp.inf), axis=-1)
    return jnp.where(any_event, total, jnp.log(MIN_ENERGY))


def complement(energy: Array) -> Array:
    """Returns −log(1 − e^−E) elementwise: the energy of the complementary event."""
    energy = jnp.maximum(energy, MIN_ENERGY)
    # Two formulas, each used where it is accurate.
    small = jnp.log(-jnp.expm1(-jnp.minimum(energy, 1.0)))
    return -jnp.where(energy < 1.0, small, jnp.log1p(-jnp.exp(-jnp.maximum(energy, 1.0))))


def energy_terms(energy: Energy, x: Array, t: Time, valid: Valid = None) -> Float[Array, "b terms"]:
    """Returns the unweighted energies of a Sum, in nats; of any other energy, itself alone."""
    terms = energy.energies if isinstance(energy, Sum) else (energy,)
    return jnp.stack([term(x, t, valid) for term in terms], axis=-1) if terms else jnp.zeros((len(x), 0))


def along_path(
    energy: Energy, path: Float[Array, "n b l d"], times: Float[Array, "n"], valid: Valid = None
) -> Float[Array, "n b terms"]:
    """Returns the `energy_terms` at each state of a path, at the state's own time."""
    return jax.lax.map(lambda state: energy_terms(energy, state[0], state[1], valid), (path, times))


def stacked(energies: Sequence[Any], rows: Int[np.ndarray, "n"] | Sequence[int]) -> Any:
    """Returns one energy for a batch of texts with `energies[row]` for each of `rows`; all must have one structure.

    Leaves that are one array in all energies, such as a network's parameters, are shared; others are stacked by row.
    """

    def join(*leaves: Any) -> Any:
        return leaves[0] if all(leaf is leaves[0] for leaf in leaves) else jnp.stack([leaves[row] for row in rows])

    return jax.tree.map(join, *energies)
