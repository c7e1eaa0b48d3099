"""Gaussian samplers: exact with an oracle, the marginals of the process at any stride, their order of convergence."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.diffusion.schedules import SCHEDULES
from jtextdiff.sampling.gaussian_samplers import Sampler, ancestral, ddim
from jtextdiff.sampling.loop import Denoise, State, time_grid, unroll

NAMES = ["ancestral", "ddim", "dpm_solver"]
PROCESS = Gaussian(log_alpha_bar=SCHEDULES["cosine"](1000))
MEAN, STD = 0.7, 0.4
"""The data distribution: x_0 ~ N(MEAN, STD²)."""


def keys(seed: int, num: int) -> jax.Array:
    return keys_for(jax.random.key(seed), jnp.arange(num))


def begin(x: jax.Array, t: float = 1.0) -> State:
    return State(x, jnp.zeros_like(x), jnp.asarray(t))


def spread(t: jax.Array | float) -> jax.Array:
    """The standard deviation of x_t."""
    bar = PROCESS.alpha_bar(t)
    return jnp.sqrt(bar * STD**2 + 1 - bar)


def expected_x_0(x_t: jax.Array, t: jax.Array, previous: jax.Array) -> jax.Array:
    """E[x_0 | x_t], which for normal data is linear in x_t."""
    signal = jnp.sqrt(PROCESS.alpha_bar(t))
    return MEAN + STD**2 * signal / spread(t) ** 2 * (x_t - signal * MEAN)


def sampled_x_0(seed: int) -> Denoise:
    """x_0 ~ p(x_0 | x_t) instead of its mean: every stride then has the exact distribution."""

    def denoise(x_t: jax.Array, t: jax.Array, previous: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(seed), jnp.round(t * 1000).astype(jnp.int32))
        std = STD * jnp.sqrt(1 - PROCESS.alpha_bar(t)) / spread(t)
        return expected_x_0(x_t, t, previous) + std * jax.random.normal(key, x_t.shape)

    return denoise


def sample(sampler: Sampler, denoise: Denoise, x_1: jax.Array, steps: int, seed: int = 0) -> State:
    return unroll(sampler.step(PROCESS, denoise), begin(x_1), keys(seed, len(x_1)), time_grid(steps))[0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_an_oracle_is_recovered_exactly(name: str, steps: int) -> None:
    x_0, x_1 = jax.random.normal(jax.random.key(1), (2, 3, 4, 2))
    end = sample(Sampler(name=name, eta=0.3), lambda x_t, t, previous: x_0, x_1, steps)
    np.testing.assert_allclose(end.x_t, x_0, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_last_step_returns_the_estimate(name: str) -> None:
    x_1 = jax.random.normal(jax.random.key(2), (3, 4, 2))
    end = sample(Sampler(name=name, eta=1.0), expected_x_0, x_1, 5)
    np.testing.assert_allclose(end.x_t, end.x_0_hat, rtol=1e-6, atol=1e-6)
    assert float(end.t_hat) == pytest.approx(0.2)


@pytest.mark.parametrize(("t", "s"), [(1.0, 0.9), (0.7, 0.2), (0.3, 0.29), (0.2, 0.0)])
def test_ddim_with_eta_one_is_ancestral(t: float, s: float) -> None:
    x_t = jax.random.normal(jax.random.key(3), (4, 5, 2))
    times = (jnp.asarray(t), jnp.asarray(s))
    one = ancestral(PROCESS, expected_x_0)(keys(4, 4), begin(x_t), times)
    other = ddim(PROCESS, expected_x_0, 1.0)(keys(4, 4), begin(x_t), times)
    # DDIM's direction is the root of a difference of variances: at t = 1 float32 knows it to √1e-7 · .1.
    np.testing.assert_allclose(one.x_t, other.x_t, rtol=1e-4, atol=2e-4 if t == 1.0 else 2e-5)


def test_ddim_with_eta_zero_is_deterministic() -> None:
    x_1 = jax.random.normal(jax.random.key(5), (2, 3, 2))
    one, other = (sample(Sampler(name="ddim", eta=0.0), expected_x_0, x_1, 4, seed) for seed in (6, 7))
    np.testing.assert_array_equal(one.x_t, other.x_t)


@pytest.mark.parametrize(("name", "eta"), [("ancestral", 0.0), ("ddim", 0.0), ("ddim", 0.6), ("ddim", 1.0)])
def test_every_stride_has_the_marginals_of_the_process(name: str, eta: float) -> None:
    """From x_t ~ q(x_t) and x_0 ~ p(x_0 | x_t), every x_s on the path has the mean and variance of its marginal."""
    num, grid = 20_000, [0.95, 0.7, 0.4, 0.15, 0.0]
    noise = jax.random.normal(jax.random.key(8), (num, 1, 1))
    start = jnp.sqrt(PROCESS.alpha_bar(grid[0])) * MEAN + spread(grid[0]) * noise
    step = Sampler(name=name, eta=eta).step(PROCESS, sampled_x_0(9))
    strides = (jnp.asarray(grid[:-1]), jnp.asarray(grid[1:]))
    _, path = unroll(step, begin(start, grid[0]), keys(10, num), strides, record=lambda state: state.x_t)
    for x_s, s in zip(np.asarray(path, np.float64)[..., 0, 0], grid, strict=True):
        mean, std = np.sqrt(float(PROCESS.alpha_bar(s))) * MEAN, float(spread(s))
        squares = (x_s - mean) ** 2
        assert abs(x_s.mean() - mean) <= 5 * std / np.sqrt(num)
        assert abs(squares.mean() - std**2) <= 5 * squares.std() / np.sqrt(num)


def test_many_ancestral_steps_sample_the_data() -> None:
    """With E[x_0 | x_t] the steps are exact only in the limit; the chain is linear, so its bias is known."""
    num, steps = 4_000, 128
    end = sample(Sampler(name="ancestral"), expected_x_0, jax.random.normal(jax.random.key(11), (num, 1, 1)), steps, 12)

    @jax.jit
    def affine_step(t: float, s: float) -> tuple[jax.Array, jax.Array, jax.Array]:
        x_t = jnp.asarray([[[0.0], [1.0]]])
        posterior = PROCESS.posterior(expected_x_0(x_t, jnp.asarray(t), x_t), x_t, s, t)
        return posterior.mean[0, 0, 0], posterior.mean[0, 1, 0] - posterior.mean[0, 0, 0], posterior.std

    mean, variance = 0.0, 1.0
    for t, s in itertools.pairwise(np.linspace(1.0, 0.0, steps + 1)):
        offset, slope, std = (part.item() for part in affine_step(t, s))
        mean, variance = offset + slope * mean, slope**2 * variance + std**2
    x_0 = np.asarray(end.x_t, np.float64).ravel()
    squares = (x_0 - mean) ** 2
    assert abs(x_0.mean() - mean) <= 5 * x_0.std() / np.sqrt(num)
    assert abs(squares.mean() - variance) <= 5 * squares.std() / np.sqrt(num)
    assert (mean, variance) == (pytest.approx(MEAN, abs=0.01), pytest.approx(STD**2, rel=0.1))


def solver_error(name: str, steps: int) -> float:
    """Distance from the exact solution of the ODE on [.1, .9]; a step to 0 is first order."""
    first, last = 0.9, 0.1
    x_t = jnp.linspace(-2.0, 2.0, 9)[:, None, None]
    grid = jnp.linspace(first, last, steps + 1)
    step = Sampler(name=name, eta=0.0).step(PROCESS, expected_x_0)
    end, _ = unroll(step, begin(x_t, first), keys(13, len(x_t)), (grid[:-1], grid[1:]))
    deviation = (x_t - jnp.sqrt(PROCESS.alpha_bar(first)) * MEAN) / spread(first)
    exact = jnp.sqrt(PROCESS.alpha_bar(last)) * MEAN + spread(last) * deviation
    return float(jnp.max(jnp.abs(end.x_t - exact)))


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpm_solver", 2)])
def test_order_of_convergence(name: str, order: int) -> None:
    """Twice the steps divide the error by 2 to the power of the order."""
    errors = np.asarray([solver_error(name, steps) for steps in (32, 64, 128)])
    slopes = np.log2(errors[:-1] / errors[1:])
    assert np.all(np.abs(slopes - order) < 0.25), slopes


def test_the_first_step_of_the_solver_is_first_order_at_any_start() -> None:
    """Without an earlier estimate the step is that of DDIM."""
    x_t, times = jax.random.normal(jax.random.key(21), (4, 3, 2)), (jnp.asarray(0.5), jnp.asarray(0.4))
    one, other = (
        Sampler(name=name).step(PROCESS, expected_x_0)(keys(4, 4), State.start(x_t, 0.5), times).x_t
        for name in ("dpm_solver", "ddim")
    )
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_solver_is_as_exact_at_every_number_of_steps() -> None:
    """Compiled, from 1 to 0, at 20 numbers of steps: the end moves by less than 2 % of the spread of the data."""
    x_1 = jnp.linspace(-2.0, 2.0, 9)[:, None, None]
    step = Sampler(name="dpm_solver").step(PROCESS, expected_x_0)
    end = lambda num: jax.jit(lambda: unroll(step, begin(x_1), keys(13, 9), time_grid(num))[0].x_t)()
    ends = np.stack([end(num) for num in (*range(40, 50), 55, 61, 80, 81, 82, 83, 84, 94, 95, 96)])
    assert np.max(np.abs(ends - ends[-1])) < 0.02 * STD


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_depends_on_its_own_key_and_start_alone(name: str) -> None:
    x_1 = jax.random.normal(jax.random.key(14), (4, 3, 2))
    sampler = Sampler(name=name, eta=1.0)
    together = sample(sampler, expected_x_0, x_1, 4, 15).x_t
    changed = sample(sampler, expected_x_0, x_1.at[2:].add(1.0), 4, 15).x_t
    np.testing.assert_array_equal(together[:2], changed[:2])
    assert float(jnp.min(jnp.abs(together[2:] - changed[2:]))) > 0
    step = sampler.step(PROCESS, expected_x_0)
    alone, _ = unroll(step, begin(x_1[2:]), keys(15, 4)[2:], time_grid(4))
    np.testing.assert_allclose(alone.x_t, together[2:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "bad",
    [{"name": "euler"}, {"steps": 0}, {"temperature": 0.0}]
    + [{field: value} for field in ("eta", "clamp", "temperature") for value in (-1.0, float("nan"))]
    + [{"eta": 5.0}, {"clamp": 1.5}],
)
def test_invalid_settings_raise(bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Sampler(**bad)
