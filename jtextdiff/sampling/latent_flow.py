"""The ODE that moves a latent down an energy (LatentOps).

In the probability flow of a VP diffusion whose distribution at each time is N(0, I) times e^−E, the score of the prior
cancels the drift (Liu et al. 2022, §3): dz/dt = ½ β(t) ∇E(z, t), from t = 1 down to 0. In the flow's own time
τ = ½ ∫ β = −½ log ᾱ, it is dz/dτ = −∇E for any β. An energy that does not depend on the time therefore gives gradient
descent, which does not stop at the posterior. An energy averaged over noise (`energies.NoiseAveraged`) ends in the
posterior of N(0, I).
z must be in coordinates in which its prior is N(0, I).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import optimistix
from jaxtyping import Array, Bool, Float, Int

from jtextdiff.diffusion.schedules import Schedule
from jtextdiff.sampling.energies import Energy, energy_terms
from jtextdiff.sampling.rectified_flow import Field

TOLERANCE = 1e-3
"""Absolute and relative tolerance of a step's error, as in LatentOps."""

STOP_TOLERANCE = 1e-6
"""Absolute and relative tolerance of the time at which a row stops: its energy is then near the threshold."""

FLAT = 0.1
"""A flow without a schedule slows down where the slope is below this, in nats per unit of distance, or below this share
of an energy of less than a nat."""

MAX_STEPS = 256
"""Solver steps of one row. A row that needs more stays where it started."""


class FlowResult(NamedTuple):
    """End of the flow of each row, its number of steps, and whether it was solved; if not, `z` is where it started."""

    z: Float[Array, "b z"]
    steps: Int[Array, "b"]
    solved: Bool[Array, "b"]
    path: Float[Array, "n b z"] | None = None  # at evenly spaced times, both ends included


def descend(
    energy: Energy,
    z: Float[Array, "b z"],
    schedule: Schedule | None,
    *,
    energy_threshold: Float[Array, ""] | float = 0.0,
    source_pull: Float[Array, ""] | float = 0.0,
    tolerance: float = TOLERANCE,
    num_frames: int = 0,
    stop_energy: Energy | None = None,
    field: Field | None = None,
) -> FlowResult:
    """Solves dz/dt = ½ β(t) ((1 − k) ∇E(z, t) + k (z − z(1))) from t = 1 to 0, β = −d log ᾱ/dt, k = `source_pull`.

    With a `field` v, −v(z, 1 − t) is added: the field is followed from its time 0 to 1 while the energy is descended.
    It was fitted to latents that have the label already, so that with the energy of that label the label is counted
    twice, and the ends follow no known distribution.

    All rows share one energy. A row stops where the sum of the unweighted terms (`energies.energy_terms`) of
    `stop_energy`, or of the energy itself, has fallen to `energy_threshold` nats, located to `STOP_TOLERANCE`; at a
    threshold of 0 it never stops. The path has `num_frames` states, if any; it is meant for a flow that does not stop.

    Each row is solved by itself with its own steps (Tsitouras 5(4)), independent of the rest of the batch.
    `schedules.constant(2 τ)` is a flow of time τ; `schedules.linear` is that of LatentOps, τ = 5.025. Without one,
    the same curves are followed at a speed that does not vanish with the gradient, as it does near p = 1, where a row
    would run out of any time τ: dz/dt = v ∇E/√(‖∇E‖² + (min(E, 1)/10)²). The longest way, v, is twice the mean distance
    between two latents of the prior. Where the energy has next to no slope, such as near a minimum, a row slows down. A
    pull and a field need a schedule.
    """
    monitored = energy if stop_energy is None else stop_energy

    def excess(t: Array, y: Array) -> Array:
        nats = jnp.sum(energy_terms(monitored, y[None], t))
        return jnp.where(energy_threshold > 0, nats - energy_threshold, 1.0)

    value_and_gradient = jax.value_and_grad(lambda y, t: energy(y[None], t)[0])

    def steady(nats: Array, slope: Array) -> Array:
        size = jnp.sqrt(jnp.sum(slope**2) + (FLAT * jnp.minimum(nats, 1.0)) ** 2)
        return 2 * math.sqrt(2 * len(slope)) * slope / jnp.maximum(size, jnp.finfo(slope.dtype).tiny)

    def solve(z_1: Array) -> FlowResult:
        def velocity(t: Any, y: Any, args: Any) -> Array:
            nats, slope = value_and_gradient(y, t)
            if schedule is None:
                return steady(nats, slope)
            beta = -jax.grad(schedule)(t)
            down = 0.5 * beta * ((1 - source_pull) * slope + source_pull * (y - z_1))
            return down if field is None else down - field(y[None], (1 - t)[None])[0]

        return _solve_row(velocity, z_1, excess, tolerance, num_frames)

    satisfied = jax.vmap(lambda z: excess(jnp.ones(()), z))(z) <= 0
    end = jax.vmap(solve)(z)
    path = None if end.path is None else jnp.where(satisfied[:, None], z[None], jnp.moveaxis(end.path, 1, 0))
    return FlowResult(
        z=jnp.where(satisfied[:, None], z, end.z),
        steps=jnp.where(satisfied, 0, end.steps),
        solved=end.solved | satisfied,
        path=path,
    )


class _Bisection(optimistix.Bisection):
    """Bisection that also ends where float32 has no time between its bounds, as in a flow of very long time."""

    def terminate(self, fn: Any, y: Array, args: Any, options: Any, state: Any, tags: Any) -> tuple[Array, Any]:
        converged, result = super().terminate(fn, y, args, options, state, tags)
        return converged | (jnp.abs(state.upper - state.lower) < 4 * jnp.finfo(y.dtype).eps), result


def _solve_row(
    velocity: Callable[..., Array], z_1: Array, excess: Callable[..., Array], tolerance: float, num_frames: int
) -> FlowResult:
    """Solves dz/dt = velocity(t, z) of one row until its `excess` energy is 0."""
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(velocity),
        diffrax.Tsit5(),
        t0=1.0,
        t1=0.0,
        dt0=None,
        y0=z_1,
        stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
        event=diffrax.Event(
            lambda t, y, args, **kwargs: excess(jnp.abs(t), y),  # diffrax negates the time of a backward flow
            _Bisection(rtol=STOP_TOLERANCE, atol=STOP_TOLERANCE, flip=True),
            direction=False,
        ),
        saveat=diffrax.SaveAt(ts=jnp.linspace(1.0, 0.0, num_frames)) if num_frames else diffrax.SaveAt(t1=True),
        max_steps=MAX_STEPS,
        throw=False,
    )
    states: Any = solution.ys
    solved = diffrax.is_okay(solution.result) & jnp.all(jnp.isfinite(states[-1]))
    path = jnp.where(solved, states, z_1[None])
    return FlowResult(path[-1], solution.stats["num_steps"], solved, path if num_frames else None)
