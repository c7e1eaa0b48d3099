"""The sampling loop: one scan of a Step over a time grid.

    x_1 ──step──► x_s ──step──► … ──step──► x_0
           ▲             ▲             ▲
         (1, s)       (s, s′)        (t, 0)

Every diffusion sampler is a Step, and this is the only loop over them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jtextdiff.diffusion.randomness import Keys, fold_in
from jtextdiff.diffusion.schedules import Time

Step = Callable[[Keys, Any, Any], Any]
"""(keys, state, point) ↦ state: one step of sampling. A grid point is (t, s) for diffusion, a position for AR."""

Denoise = Callable[[Array, Time, Array], Array]
"""(x_t, t, previous x̂_0) ↦ x̂_0. Only self-conditioned networks read the previous estimate."""


class State(NamedTuple):
    """State of a reverse diffusion, and its last estimate of x_0."""

    x_t: Array
    x_0_hat: Array  # the last estimate, made one step earlier; zeros at the start
    t_hat: Array  # the time, [], of that estimate; the starting time before there is one

    @classmethod
    def start(cls, x_t: Array, t: Time = 1.0) -> "State":
        """Returns the state before the first step from t."""
        return cls(x_t, jnp.zeros_like(x_t), jnp.asarray(t, float))


SAME_TIME = 1e-6
"""Times closer than this are one time: an ulp lies between the same time computed in two ways, or by two compilers."""


def time_grid(num_steps: int, *, start: Time = 1.0) -> tuple[Array, Array]:
    """Returns the uniform grid of (t, s), each [num_steps], from (start, ·) down to (·, 0).

    Its fractions are constants: compiled, they would be rounded differently for each number of steps.
    """
    grid = start * jnp.asarray(np.arange(num_steps, -1, -1) / num_steps, float)
    return grid[:-1], grid[1:]


def unmasking_times(num_steps: int, grid: str) -> tuple[Array, Array]:
    """Returns (t, s) of each step: a uniform or a cosine grid (Shi et al. 2024, §4; Chang et al. 2022)."""

    def warp(u: Array) -> Array:
        return jnp.cos(jnp.pi / 2 * (1 - u))

    t, s = time_grid(num_steps)
    return (t, s) if grid == "uniform" else (warp(t), jnp.where(s > 0, warp(s), 0.0))


def later(t: Time, s: Time) -> Array:
    """Returns whether t is a later time than s, more noise, and not the same one."""
    return jnp.asarray(t) > s + SAME_TIME


def unroll(
    step: Step,
    state: Any,
    keys: Keys,
    grid: Any,
    *,
    record: Callable[[Any], Any] = lambda state: None,
    done: Callable[[Any], Array] | None = None,
) -> tuple[Any, Any]:
    """Scans `step` over `grid`; returns the last state, and `record(state)` at the start and after each step.

    `keys` holds one key per sample (or one for all). Step i uses `fold_in(keys, i)`, so a sample depends on its own key
    alone. The path takes the memory of what `record` returns: none by default. Steps are skipped once `done(state)`.
    """

    def body(state: Any, inputs: tuple[Array, Any]) -> tuple[Any, Any]:
        index, point = inputs

        def advance(state: Any) -> Any:
            return step(fold_in(keys, index), state, point)

        state = advance(state) if done is None else jax.lax.cond(done(state), lambda state: state, advance, state)
        return state, record(state)

    num_steps = len(jax.tree.leaves(grid)[0])
    start = record(state)
    state, path = jax.lax.scan(body, state, (jnp.arange(num_steps), grid))
    return state, jax.tree.map(lambda first, later: jnp.concatenate([first[None], later]), start, path)
