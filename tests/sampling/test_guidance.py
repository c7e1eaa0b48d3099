"""Guidance: the size of each update rule, positions and texts that are not moved, units and inputs."""

import functools
import itertools
from collections.abc import Callable
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.cases import slow_but

from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.diffusion.schedules import SCHEDULES
from jtextdiff.sampling.energies import Learned, Sum
from jtextdiff.sampling.gaussian_samplers import Sampler
from jtextdiff.sampling.guidance import UPDATE_RULES, Guidance, guided
from jtextdiff.sampling.loop import State, Step, time_grid, unroll

PROCESS = Gaussian(log_alpha_bar=SCHEDULES["cosine"](1000))
MEAN, STD = 0.7, 0.4
SHAPE = (4, 3, 2)
X_1 = jax.random.normal(jax.random.key(0), SHAPE)
PLAIN = Sampler()
FREE = jnp.ones(SHAPE[:2], bool)
FUSION_EMITTERS = {"xla_cpu_use_fusion_emitters": True} if version("jaxlib").startswith("0.10.") else None
"""Undoes the suite's own flag, as in conftest."""


def keys(num: int = 4) -> jax.Array:
    return keys_for(jax.random.key(1), jnp.arange(num))


def denoise(x_t: jax.Array, t: jax.Array, previous: jax.Array) -> jax.Array:
    """E[x_0 | x_t] of normal data: the chain is affine."""
    bar = PROCESS.alpha_bar(t)
    return MEAN + STD**2 * jnp.sqrt(bar) / (bar * STD**2 + 1 - bar) * (x_t - jnp.sqrt(bar) * MEAN)


def linear(params: jax.Array, target: jax.Array, x: jax.Array, t: jax.Array, valid: object) -> jax.Array:
    return -jnp.sum(params * x, axis=(1, 2)) * target


def quadratic(params: jax.Array, target: jax.Array, x: jax.Array, t: jax.Array, valid: object) -> jax.Array:
    return -0.5 * params * jnp.sum((x - target) ** 2, axis=(1, 2))


BOWL = Learned(params=jnp.asarray(2.0), target=jnp.asarray(1.5), log_prob=quadratic)


def sample(energy: object, settings: Guidance, sampler: Sampler = PLAIN, free: jax.Array = FREE, x_1: jax.Array = X_1):
    step = sampler.step(PROCESS, denoise)
    step = guided(step, PROCESS, energy, settings, stochastic=sampler.stochastic, free=free[: len(x_1)], valid=None)
    return path_of(step, x_1)


def path_of(step: Step, x_1: jax.Array) -> jax.Array:
    """x_t at every time of six steps, compiled as users compile it: the suite's own flags change the last digits."""
    start, record = State.start(x_1), lambda state: state.x_t
    compiled = jax.jit(
        lambda: unroll(step, start, keys(len(x_1)), time_grid(6), record=record)[1],
        compiler_options=FUSION_EMITTERS,
    )
    return compiled()


@functools.cache
def unguided(sampler: Sampler = PLAIN) -> jax.Array:
    return path_of(sampler.step(PROCESS, denoise), X_1)


SAMPLERS = ("ancestral", "ddim", "dpm_solver")
ONE_FOR_EACH_RULE = [*zip(UPDATE_RULES, itertools.cycle(SAMPLERS), strict=False)]


@pytest.mark.parametrize("settings", slow_but(ONE_FOR_EACH_RULE, itertools.product(UPDATE_RULES, SAMPLERS)))
def test_zero_weight_or_no_guided_step_equals_unguided_sampling(settings: tuple[str, str]) -> None:
    rule, name = settings
    nothing = Sum(energies=(BOWL,), weights=(0.0,))
    result = sample(nothing, Guidance(update_rule=rule, fluency=0.0), Sampler(name=name))
    np.testing.assert_array_equal(result, unguided(Sampler(name=name)))
    outside = sample(BOWL, Guidance(update_rule=rule, start=0.01, stop=0.0), Sampler(name=name))
    np.testing.assert_array_equal(outside[:-1], unguided(Sampler(name=name))[:-1])


@pytest.mark.parametrize("name", ["ddim", "dpm_solver"])
def test_the_penalty_of_a_step_without_noise_is_least_at_its_own_result(name: str) -> None:
    """Without a gradient of the energy nothing moves; a penalty around the posterior's mean would."""
    nothing, sampler = Sum(energies=(BOWL,), weights=(0.0,)), Sampler(name=name)
    result = sample(nothing, Guidance(update_rule="sign", fluency=0.1, energy_threshold=0.0), sampler)
    np.testing.assert_array_equal(result, unguided(sampler))


def one_step(settings: Guidance, energy: object = BOWL) -> tuple[jax.Array, jax.Array]:
    """x_s of one step, without and with guidance."""
    step, times = Sampler().step(PROCESS, denoise), (jnp.asarray(0.6), jnp.asarray(0.5))
    guided_step = guided(step, PROCESS, energy, settings, stochastic=True, free=FREE, valid=None)
    state = State.start(X_1)
    return step(keys(), state, times).x_t, guided_step(keys(), state, times).x_t


def test_the_released_rule_moves_every_coordinate_by_one_or_three_tenths() -> None:
    """Three sign steps of .1: either all in one direction, or forth, back and forth."""
    before, after = one_step(Guidance(update_rule="sign", updates=3, rate=0.1, fluency=0.01))
    change = np.abs(np.asarray(after - before))
    assert np.all(np.isclose(change, 0.1, atol=1e-5) | np.isclose(change, 0.3, atol=1e-5))
    near = Learned(params=jnp.asarray(2.0), target=before + 0.05, log_prob=quadratic)
    settings = Guidance(update_rule="sign", updates=3, rate=0.1, fluency=0.01, energy_threshold=0.0)
    np.testing.assert_allclose(np.abs(one_step(settings, near)[1] - before), 0.1, atol=1e-5)


def test_the_default_moves_a_text_along_its_gradient_by_the_noise_of_the_step() -> None:
    """Coordinates move by rate · std in the root mean square, in proportion to the gradient, at any size of it."""
    slope = jax.random.normal(jax.random.key(6), SHAPE) * jnp.asarray([1e-3, 1.0, 1e3, 1.0])[:, None, None]
    energy = Learned(params=slope.at[3, 1:].set(0.0), target=jnp.asarray(1.0), log_prob=linear)
    shifted = lambda x, t, valid=None, x_0=None: energy(x, t, valid) + 1e5
    before, after = one_step(Guidance(rate=0.7), shifted)
    change, std = np.asarray(after - before), PROCESS.posterior(X_1, X_1, 0.5, 0.6).std.item()
    np.testing.assert_allclose(np.sqrt(np.mean(change**2, axis=(1, 2))), 0.7 * std, rtol=1e-2)
    assert np.all(change[3, 1:] == 0) and np.all(change * np.asarray(slope) <= 0)


@pytest.mark.parametrize(("rule", "pull"), [("std", lambda std: 2 / std), ("scaled", lambda std: 1 / std**2)])
def test_the_penalty_pulls_towards_the_mean_of_the_posterior(rule: str, pull: Callable[[float], float]) -> None:
    """Σ (x − μ)²/σ or, scaled, Σ (x − μ)²/2σ², where the energy has a slope of 1 along the other coordinate."""
    t, s, x_0_hat, off = jnp.asarray(0.6), jnp.asarray(0.4), jnp.zeros(SHAPE), jnp.asarray([[[0.0, 0.3]]])
    posterior = PROCESS.posterior(x_0_hat, X_1, s, t)
    step = lambda keys, state, times: State(posterior.mean + off, x_0_hat, t)
    slope = lambda params, target, x, t, valid: -jnp.sum(params * x, axis=(1, 2)) - 100
    energy = Learned(params=jnp.asarray([[[1.0, 0.0]]]), target=None, log_prob=slope)
    settings = Guidance(update_rule=rule, fluency=0.25, rate=0.1)
    moved = guided(step, PROCESS, energy, settings, stochastic=True, free=FREE, valid=None)
    change = moved(keys(), State.start(X_1), (t, s)).x_t - (posterior.mean + off)
    assert np.all(np.asarray(change) < 0)
    expected = np.full(SHAPE[:2], 0.25 * 0.3 * pull(float(posterior.std.reshape(-1)[0])))
    np.testing.assert_allclose(change[..., 1] / change[..., 0], expected, rtol=1e-3)


def test_adagrad_steps_shrink() -> None:
    far = Learned(params=jnp.asarray(1e-3), target=jnp.asarray(1e3), log_prob=quadratic)
    before, after = one_step(Guidance(update_rule="adagrad", updates=3, rate=0.1, fluency=0.0), far)
    np.testing.assert_allclose(after - before, 0.1 * (1 + 2**-0.5 + 3**-0.5), rtol=1e-3)


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_a_step_below_one_over_the_curvature_lowers_a_quadratic_energy(share: float) -> None:
    std = PROCESS.posterior(X_1, X_1, 0.5, 0.6).std.item()
    settings = Guidance(update_rule="scaled", updates=1, rate=share / (2.0 * std**2), fluency=0.0)
    before, after = one_step(settings)
    assert np.all(BOWL(after, 0.5) < BOWL(before, 0.5))
    np.testing.assert_allclose(after - 1.5, (1 - share) * (before - 1.5), rtol=1e-4, atol=1e-5)


def test_a_linear_energy_moves_an_affine_chain_by_its_recursion() -> None:
    """δ_s = slope δ_t − rate σ² ∇E, with the slope of the step's mean in x_t: the noise is the same."""
    slope_of_energy = jax.random.normal(jax.random.key(5), SHAPE)
    energy = Learned(params=slope_of_energy, target=jnp.asarray(0.7), log_prob=linear)
    settings = Guidance(update_rule="scaled", updates=1, rate=1.3, fluency=0.0, stop=0.0, energy_threshold=0.0)
    # An energy below the threshold would not be followed.
    shifted = lambda x, t, valid=None, x_0=None: energy(x, t, valid) + 1e4
    result = np.asarray(sample(shifted, settings) - unguided())
    delta = np.zeros(SHAPE)
    grid = np.linspace(1.0, 0.0, 7)
    for index, (t, s) in enumerate(zip(grid[:-1], grid[1:], strict=True)):
        ends = jnp.asarray([[[0.0]], [[1.0]]])
        posterior = PROCESS.posterior(denoise(ends, jnp.asarray(t), ends), ends, jnp.asarray(s), jnp.asarray(t))
        slope, variance = float(posterior.mean[1, 0, 0] - posterior.mean[0, 0, 0]), posterior.std.item() ** 2
        delta = slope * delta - 1.3 * variance * 0.7 * np.asarray(slope_of_energy)
        np.testing.assert_allclose(result[index + 1], delta, atol=2e-3)


def test_fixed_positions_and_other_texts_do_not_interfere() -> None:
    free = FREE.at[:, 1].set(False)
    held = sample(BOWL, Guidance(), free=free)
    np.testing.assert_allclose(sample(BOWL, Guidance(), free=free, x_1=X_1[:2]), held[:, :2], rtol=1e-5, atol=1e-6)
    two_texts = sample(Sum(energies=(BOWL,), weights=(jnp.asarray([1.0, 1.0, 0.0, 0.0]),)), Guidance(), free=free)
    np.testing.assert_array_equal(two_texts[:, :2], held[:, :2])
    # The denoiser here reads one coordinate at a time: fixed positions are as without guidance.
    np.testing.assert_array_equal(held[:, :, 1], unguided()[:, :, 1])


def test_a_text_below_the_threshold_is_not_moved() -> None:
    before, after = one_step(Guidance(energy_threshold=float(jnp.median(BOWL(one_step(Guidance(rate=0.0))[0], 0.5)))))
    is_moved = np.any(np.asarray(before != after), axis=(1, 2))
    assert sorted(is_moved.tolist()) == [False, False, True, True]


@pytest.mark.parametrize("energy_input", ["state", "estimate", "network"])
def test_each_input_of_the_energy_has_its_own_gradient(energy_input: str) -> None:
    """A linear energy of x_s, or of E[x_0 | x_s], which is linear too, moves by its slope times the network's."""
    settings = Guidance(update_rule="scaled", updates=1, rate=1.3, fluency=0.0, input=energy_input)
    sampler, times = Sampler(guidance=settings), (jnp.asarray(0.6), jnp.asarray(0.5))
    energy = lambda x, t, valid=None, x_0=None: jnp.sum(x if x_0 is None else x_0, axis=(1, 2)) + 1e3
    step, fixed = sampler.step(PROCESS, denoise), (~FREE).at[:, 0].set(True)
    valid = FREE.at[0, 2].set(False)
    guided_step = sampler.guide(step, PROCESS, denoise, energy, fixed, valid, 0.5)
    before, after = (np.asarray(each(keys(), State.start(X_1), times).x_t) for each in (step, guided_step))
    ends = jnp.asarray([[[0.0]], [[1.0]]])
    slope = denoise(ends, times[1], ends) if energy_input == "network" else ends
    variance = PROCESS.posterior(X_1, X_1, times[1], times[0]).std.item() ** 2
    expected = np.where((valid & ~fixed)[..., None], -1.3 * variance * (slope[1] - slope[0]).item(), 0.0)
    np.testing.assert_allclose(after - before, np.broadcast_to(expected, SHAPE), atol=1e-5)


def test_fixed_positions_do_not_count_in_the_size_of_an_update() -> None:
    step, times = Sampler().step(PROCESS, denoise), (jnp.asarray(0.6), jnp.asarray(0.5))
    free, slope = FREE.at[:, 1].set(False), jnp.ones(SHAPE).at[:, 1].set(1e3)
    energy = lambda x, t, valid=None, x_0=None: jnp.sum(slope * x, axis=(1, 2)) + 1e6
    guided_step = guided(step, PROCESS, energy, Guidance(rate=0.7), stochastic=True, free=free, valid=None)
    change = np.asarray(guided_step(keys(), State.start(X_1), times).x_t - step(keys(), State.start(X_1), times).x_t)
    np.testing.assert_allclose(change[:, 0], -0.7 * PROCESS.posterior(X_1, X_1, 0.5, 0.6).std.item(), rtol=1e-2)
    assert np.all(change[:, 1] == 0)


def test_the_rate_of_sign_steps_is_in_units_of_a_coordinate() -> None:
    sampler, times = Sampler(guidance=Guidance(update_rule="sign", rate=0.1)), (jnp.asarray(0.6), jnp.asarray(0.5))
    step, energy = sampler.step(PROCESS, denoise), lambda x, t, valid=None, x_0=None: jnp.sum(x, axis=(1, 2)) + 1e3
    guided_step = sampler.guide(step, PROCESS, denoise, energy, ~FREE, FREE, 0.5)
    before, after = (each(keys(), State.start(X_1), times).x_t for each in (step, guided_step))
    np.testing.assert_allclose(after - before, -0.05, atol=1e-6)


@pytest.mark.parametrize(
    "bad", [{"update_rule": "adam"}, {"updates": -1}, {"rate": -0.1}, {"fluency": -1.0}, {"stop": 0.6, "start": 0.5}]
)
def test_invalid_settings_raise(bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Guidance(**bad)


@pytest.mark.parametrize(("start", "stop", "guided_steps"), [(1.0, 0.05, 190), (1.0, 0.1, 180), (0.5, 0.25, 51)])
def test_a_step_at_the_bound_is_guided(start: float, stop: float, guided_steps: int) -> None:
    """Of 200 steps, those whose s lies in [stop, start], both included, however the two times were rounded."""
    settings = Guidance(update_rule="sign", rate=1.0, start=start, stop=stop, energy_threshold=0.0)
    still = lambda keys, state, times: state._replace(t_hat=times[0])
    step = guided(still, PROCESS, BOWL, settings, stochastic=False, free=FREE, valid=None)
    path = jax.jit(lambda x: unroll(step, State.start(x), keys(), time_grid(200), record=lambda state: state.x_t)[1])(
        X_1 + 1e4
    )
    assert int(np.sum(np.any(path[1:] != path[:-1], axis=(1, 2, 3)))) == guided_steps
