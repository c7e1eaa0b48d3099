"""The sampling loop: its time grid, its noise, the recorded path and the early end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.diffusion.schedules import SCHEDULES
from jtextdiff.sampling.gaussian_samplers import ancestral
from jtextdiff.sampling.loop import State, later, time_grid, unroll

PROCESS = Gaussian(log_alpha_bar=SCHEDULES["cosine"](1000))


def keys(seed: int, num: int) -> jax.Array:
    return keys_for(jax.random.key(seed), jnp.arange(num))


@pytest.mark.parametrize("start", [1.0, 0.4])
def test_the_grid_leads_from_the_start_to_zero(start: float) -> None:
    t, s = time_grid(8, start=start)
    assert float(t[0]) == pytest.approx(start)
    assert float(s[-1]) == 0.0
    np.testing.assert_array_equal(t[1:], s[:-1])
    np.testing.assert_allclose(t - s, np.full(8, start / 8), rtol=1e-5)


@pytest.mark.parametrize("start", [1.0, 0.4, 0.7])
def test_the_compiled_grid_starts_exactly_at_its_start(start: float) -> None:
    """An ulp of difference would be a step of its own: any solver of second order would extrapolate over it."""
    first = lambda start: jnp.stack([time_grid(num, start=start)[0][0] for num in range(1, 260)])
    np.testing.assert_array_equal(jax.jit(first)(start), np.full(259, start, np.float32))
    np.testing.assert_array_equal(jax.jit(lambda: first(start))(), np.full(259, start, np.float32))


def test_times_an_ulp_apart_are_the_same() -> None:
    t = jnp.float32(0.3)
    assert not later(jnp.nextafter(t, jnp.float32(1)), t) and not later(t, t) and later(t + 1e-5, t)


def test_every_step_has_its_own_noise() -> None:
    """With x̂_0 = 0, the noise of a step is what it adds to the shrunk x_t: no two numbers are equal."""
    step = ancestral(PROCESS, lambda x_t, t, previous: jnp.zeros_like(x_t))
    grid = (jnp.full(3, 0.6), jnp.full(3, 0.5))
    start = State.start(jnp.zeros((2, 3, 2)))
    _, path = unroll(step, start, keys(16, 2), grid, record=lambda state: state.x_t)
    shrink = PROCESS.posterior(jnp.zeros((1, 1, 1)), jnp.ones((1, 1, 1)), 0.5, 0.6).mean
    noise = path[1:] - shrink[None] * path[:-1]
    assert len(np.unique(np.round(np.asarray(noise), 6))) == noise.size


def test_nothing_is_recorded_by_default() -> None:
    start = State.start(jnp.ones((2, 3, 2)))
    step = ancestral(PROCESS, lambda x_t, t, previous: 0.5 * x_t)
    end, path = unroll(step, start, keys(17, 2), time_grid(3))
    assert jax.tree.leaves(path) == []
    recorded_end, path = unroll(step, start, keys(17, 2), time_grid(3), record=lambda state: state.x_t)
    assert path.shape == (4, 2, 3, 2)
    np.testing.assert_array_equal(path[0], start.x_t)
    np.testing.assert_array_equal(path[-1], recorded_end.x_t)
    np.testing.assert_array_equal(recorded_end.x_t, end.x_t)


def test_steps_are_skipped_once_done() -> None:
    state, path = unroll(
        lambda keys, state, point: state + 1,
        jnp.zeros(2, int),
        keys(18, 2),
        jnp.arange(9),
        record=lambda state: state,
        done=lambda state: jnp.all(state >= 4),
    )
    np.testing.assert_array_equal(state, [4, 4])
    np.testing.assert_array_equal(path[:, 0], [0, 1, 2, 3, 4, 4, 4, 4, 4, 4])
