"""Flow: the ODE that takes a latent downhill in an energy, of every row by steps of its own (LatentOps).

The probability flow of a VP diffusion whose law at each time is N(0, I) times e^−E loses its prior's part, for there
the score and the drift cancel (Liu et al. 2022, §3): dz/dt = ½ β(t) ∇E(z, t), from t = 1 down to 0. In the flow's own
time τ = ½ ∫ β, that is −½ log ᾱ, this is dz/dτ = −∇E, whatever β is. So an energy that does not ask for the time is
followed in its plain descent, past the posterior; one that is averaged over noise (`energies.NoiseAveraged`) ends in
the posterior of N(0, I). z must therefore be in coordinates in which its law is N(0, I).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import optimistix
from jaxtyping import Array, Bool, Float, Int

from jtextdiff.diffusion.schedules import Schedule
from jtextdiff.sampling.energies import Energy, parts

TOLERANCE = 1e-3
"""Of a step's error, absolute and relative, as LatentOps has it."""

MOST_STEPS = 256
"""Of one row. A row that needs more is left where it was."""


class Descent(NamedTuple):
    """Where each row has come to, in how many steps, and whether it was solved; if not, it is where it began."""

    z: Float[Array, "b z"]
    steps: Int[Array, "b"]
    solved: Bool[Array, "b"]
    path: Float[Array, "n b z"] | None = None  # where each was at even times, both ends among them


def descend(
    energy: Energy,
    z: Float[Array, "b z"],
    schedule: Schedule,
    *,
    enough: Float[Array, ""] | float = 0.0,
    keep: Float[Array, ""] | float = 0.0,
    tolerance: float = TOLERANCE,
    frames: int = 0,
    wanted: Energy | None = None,
) -> Descent:
    """Follows dz/dt = ½ β(t) ((1 − keep) ∇E(z, t) + keep (z − z(1))) from t = 1 to 0, with β = −d log ᾱ/dt.

    The energy is the same for all rows. A row stops where what is `wanted` of it, the energy's own parts unless others
    are given, unweighted (see `energies.parts`), has come down to `enough` nats, found to the `tolerance`; at 0 never.

    Its path is kept in so many `frames`, if any; of a flow that is not to stop. Each row is solved by itself, with
    steps of its own (Tsitouras 5(4)): its batch-mates do not change it.
    `schedules.constant(2 τ)` is a flow of time τ; `schedules.linear` is LatentOps' own, of τ = 5.025.
    """
    told = energy if wanted is None else wanted
    missing = lambda t, y: jnp.where(enough > 0, jnp.sum(parts(told, y[None], t)) - enough, 1.0)
    there = jax.vmap(lambda z: missing(jnp.ones(()), z))(z) <= 0
    after = jax.vmap(lambda z: _solved(energy, z, schedule, missing, keep, tolerance, frames))(z)
    way = None if after.path is None else jnp.where(there[:, None], z[None], jnp.moveaxis(after.path, 1, 0))
    return Descent(jnp.where(there[:, None], z, after.z), jnp.where(there, 0, after.steps), after.solved | there, way)


def _solved(
    energy: Energy,
    z_1: Array,
    schedule: Schedule,
    missing: Callable[..., Array],
    keep: Any,
    tolerance: float,
    frames: int,
) -> Descent:
    """One row, until nothing is `missing`."""
    beta = jax.grad(lambda t: -schedule(t))
    down = jax.grad(lambda y, t: energy(y[None], t)[0])
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: 0.5 * beta(t) * ((1 - keep) * down(y, t) + keep * (y - z_1))),
        diffrax.Tsit5(),
        t0=1.0,
        t1=0.0,
        dt0=None,
        y0=z_1,
        stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
        event=diffrax.Event(
            lambda t, y, args, **kwargs: missing(t, y),
            optimistix.Newton(rtol=tolerance, atol=tolerance),
            direction=False,
        ),
        saveat=diffrax.SaveAt(ts=jnp.linspace(1.0, 0.0, frames)) if frames else diffrax.SaveAt(t1=True),
        max_steps=MOST_STEPS,
        throw=False,
    )
    states: Any = solution.ys
    solved = diffrax.is_okay(solution.result) & jnp.all(jnp.isfinite(states[-1]))
    way = jnp.where(solved, states, z_1[None])
    return Descent(way[-1], solution.stats["num_steps"], solved, way if frames else None)
