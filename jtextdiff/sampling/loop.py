"""Sampling: one scan over ticks of time; every sampler is a Step, and nothing else loops.

state x_1 ──step──► x_s ──step──► … ──step──► x_0
             ▲        ▲                ▲
tick       (1, s)   (s, s′)          (t, 0)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jtextdiff.diffusion.randomness import Keys, fold
from jtextdiff.diffusion.schedules import Time

Step = Callable[[Keys, Any, Any], Any]
"""(keys, state, tick) ↦ state: one move of generation. A tick is (t, s) for diffusion, a position for AR."""


class State(NamedTuple):
    """Where a reverse diffusion stands, and what was believed on the way there."""

    x_t: Array
    x_0_hat: Array  # the last estimate, made one step earlier; zeros at the start
    t_hat: Array  # the time, [], at which it was made; the first tick's before there is one

    @classmethod
    def start(cls, x_t: Array, t: Time = 1.0) -> "State":
        """Before the first step from t."""
        return cls(x_t, jnp.zeros_like(x_t), jnp.asarray(t, float))


Denoise = Callable[[Array, Time, Array], Array]
"""(x_t, t, previous x̂_0) ↦ x̂_0. Only self-conditioned networks read the previous estimate."""


def unroll(
    step: Step,
    state: Any,
    keys: Keys,
    ticks: Any,
    *,
    keep: Callable[[Any], Any] = lambda state: None,
    done: Callable[[Any], Array] | None = None,
) -> tuple[Any, Any]:
    """Walks `ticks` and returns the last state and the kept path: what is kept of the start and of each tick.

    `keys` holds one key a sample (or one for all); tick i uses `fold(keys, i)`, so that a sample depends on
    its own key alone. `keep` says what the path costs in memory: nothing, unless asked for.
    """

    def body(state: Any, inputs: tuple[Array, Any]) -> tuple[Any, Any]:
        index, tick = inputs
        move = lambda state: step(fold(keys, index), state, tick)
        state = move(state) if done is None else jax.lax.cond(done(state), lambda state: state, move, state)
        return state, keep(state)

    num_ticks = len(jax.tree.leaves(ticks)[0])
    start = keep(state)
    state, path = jax.lax.scan(body, state, (jnp.arange(num_ticks), ticks))
    return state, jax.tree.map(lambda first, later: jnp.concatenate([first[None], later]), start, path)


def ticks(num_steps: int, *, start: Time = 1.0) -> tuple[Array, Array]:
    """The even grid of (t, s), each [num_steps], from (start, ·) down to (·, 0)."""
    grid = start * jnp.arange(num_steps, -1, -1) / num_steps
    return grid[:-1], grid[1:]
