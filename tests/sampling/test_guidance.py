"""Guidance moves what it should, as far as it says, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.diffusion.schedules import SCHEDULES
from jtextdiff.sampling.energies import Learned, Sum
from jtextdiff.sampling.gaussian_samplers import Sampler
from jtextdiff.sampling.guidance import MOVES, Guidance, guided
from jtextdiff.sampling.loop import State, ticks, unroll

PROCESS = Gaussian(log_alpha_bar=SCHEDULES["cosine"](1000))
MEAN, STD = 0.7, 0.4
SHAPE = (4, 3, 2)
X_1 = jax.random.normal(jax.random.key(0), SHAPE)
PLAIN = Sampler()
FREE = jnp.ones(SHAPE[:2], bool)


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


def walk(energy: object, how: Guidance, sampler: Sampler = PLAIN, free: jax.Array = FREE, x_1: jax.Array = X_1):
    drawn = sampler.name == "ancestral"
    step = sampler.step(PROCESS, denoise)
    step = guided(step, PROCESS, energy, how, drawn=drawn, free=free[: len(x_1)], valid=None)
    return unroll(step, State.start(x_1), keys(len(x_1)), ticks(6), keep=lambda state: state.x_t)[1]


def plain(sampler: Sampler = PLAIN) -> jax.Array:
    step = sampler.step(PROCESS, denoise)
    return unroll(step, State.start(X_1), keys(), ticks(6), keep=lambda state: state.x_t)[1]


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("name", ["ancestral", "ddim", "dpm_solver"])
def test_nothing_wanted_is_unguided_bit_for_bit(move: str, name: str) -> None:
    nothing = Sum(energies=(BOWL,), weights=(0.0,))
    found = walk(nothing, Guidance(move=move, fluency=0.0), Sampler(name=name))
    np.testing.assert_array_equal(found, plain(Sampler(name=name)))
    outside = walk(BOWL, Guidance(move=move, first=0.01, last=0.0), Sampler(name=name))
    np.testing.assert_array_equal(outside[:-1], plain(Sampler(name=name))[:-1])


def one_step(how: Guidance, energy: object = BOWL) -> tuple[jax.Array, jax.Array]:
    """x_s drawn at a tick, and where it was moved to."""
    step, tick = Sampler().step(PROCESS, denoise), (jnp.asarray(0.6), jnp.asarray(0.5))
    steered = guided(step, PROCESS, energy, how, drawn=True, free=FREE, valid=None)
    state = State.start(X_1)
    return step(keys(), state, tick).x_t, steered(keys(), state, tick).x_t


def test_a_released_call_moves_every_coordinate_by_one_or_three_tenths() -> None:
    """Three sign steps of .1: either all in one direction, or one there, one back and one there."""
    before, after = one_step(Guidance(move="sign", updates=3, rate=0.1, fluency=0.01))
    moved = np.abs(np.asarray(after - before))
    assert np.all(np.isclose(moved, 0.1, atol=1e-5) | np.isclose(moved, 0.3, atol=1e-5))
    near = Learned(params=jnp.asarray(2.0), target=before + 0.05, log_prob=quadratic)
    how = Guidance(move="sign", updates=3, rate=0.1, fluency=0.01, enough=0.0)
    np.testing.assert_allclose(np.abs(one_step(how, near)[1] - before), 0.1, atol=1e-5)


def test_the_default_moves_a_text_by_the_noise_of_its_step_along_the_gradient() -> None:
    """Its coordinates by rate · std in the mean, in proportion to the gradient, whatever the gradient's size."""
    slope = jax.random.normal(jax.random.key(6), SHAPE) * jnp.asarray([1e-3, 1.0, 1e3, 1.0])[:, None, None]
    energy = Learned(params=slope.at[3, 1:].set(0.0), target=jnp.asarray(1.0), log_prob=linear)
    shifted = lambda x, t, valid=None, x_0=None: energy(x, t, valid) + 1e5
    before, after = one_step(Guidance(rate=0.7), shifted)
    moved, std = np.asarray(after - before), PROCESS.posterior(X_1, X_1, 0.5, 0.6).std.item()
    np.testing.assert_allclose(np.sqrt(np.mean(moved**2, axis=(1, 2))), 0.7 * std, rtol=1e-2)
    assert np.all(moved[3, 1:] == 0) and np.all(moved * np.asarray(slope) <= 0)


def test_adagrad_takes_shorter_and_shorter_steps() -> None:
    far = Learned(params=jnp.asarray(1e-3), target=jnp.asarray(1e3), log_prob=quadratic)
    before, after = one_step(Guidance(move="adagrad", updates=3, rate=0.1, fluency=0.0), far)
    np.testing.assert_allclose(after - before, 0.1 * (1 + 2**-0.5 + 3**-0.5), rtol=1e-3)


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_a_step_below_one_over_the_curvature_lowers_a_quadratic_energy(share: float) -> None:
    std = PROCESS.posterior(X_1, X_1, 0.5, 0.6).std.item()
    how = Guidance(move="scaled", updates=1, rate=share / (2.0 * std**2), fluency=0.0)
    before, after = one_step(how)
    assert np.all(BOWL(after, 0.5) < BOWL(before, 0.5))
    np.testing.assert_allclose(after - 1.5, (1 - share) * (before - 1.5), rtol=1e-4, atol=1e-5)


def test_a_linear_energy_moves_an_affine_chain_by_its_recursion() -> None:
    """δ_s = slope δ_t − rate σ² ∇E, with the slope of the step's mean in x_t: the noise is the same."""
    slope_of_energy = jax.random.normal(jax.random.key(5), SHAPE)
    energy = Learned(params=slope_of_energy, target=jnp.asarray(0.7), log_prob=linear)
    how = Guidance(move="scaled", updates=1, rate=1.3, fluency=0.0, last=0.0, enough=0.0)
    # An energy that may be negative is wanted everywhere.
    shifted = lambda x, t, valid=None, x_0=None: energy(x, t, valid) + 1e4
    found = np.asarray(walk(shifted, how) - plain())
    delta = np.zeros(SHAPE)
    grid = np.linspace(1.0, 0.0, 7)
    for index, (t, s) in enumerate(zip(grid[:-1], grid[1:], strict=True)):
        ends = jnp.asarray([[[0.0]], [[1.0]]])
        law = PROCESS.posterior(denoise(ends, jnp.asarray(t), ends), ends, jnp.asarray(s), jnp.asarray(t))
        slope, variance = float(law.mean[1, 0, 0] - law.mean[0, 0, 0]), law.std.item() ** 2
        delta = slope * delta - 1.3 * variance * 0.7 * np.asarray(slope_of_energy)
        np.testing.assert_allclose(found[index + 1], delta, atol=2e-3)


def test_given_words_and_batch_mates_do_not_matter() -> None:
    free = FREE.at[:, 1].set(False)
    held = walk(BOWL, Guidance(), free=free)
    np.testing.assert_allclose(walk(BOWL, Guidance(), free=free, x_1=X_1[:2]), held[:, :2], rtol=1e-5, atol=1e-6)
    moved = walk(Sum(energies=(BOWL,), weights=(jnp.asarray([1.0, 1.0, 0.0, 0.0]),)), Guidance(), free=free)
    np.testing.assert_array_equal(moved[:, :2], held[:, :2])
    # The denoiser here looks at one coordinate at a time: what is held is as it would be unguided.
    np.testing.assert_array_equal(held[:, :, 1], plain()[:, :, 1])


def test_a_text_that_is_well_enough_is_left_alone() -> None:
    before, after = one_step(Guidance(enough=float(jnp.median(BOWL(one_step(Guidance(rate=0.0))[0], 0.5)))))
    moved = np.any(np.asarray(before != after), axis=(1, 2))
    assert sorted(moved.tolist()) == [False, False, True, True]


@pytest.mark.parametrize("sees", ["state", "estimate", "network"])
def test_a_sampler_steers_in_its_own_units_by_what_the_energy_is_to_see(sees: str) -> None:
    """A linear energy of x_s, or of E[x_0 | x_s], which is linear too, pulls by its slope times the network's."""
    how = Guidance(move="scaled", updates=1, rate=1.3, fluency=0.0, sees=sees)
    sampler, tick = Sampler(guidance=how), (jnp.asarray(0.6), jnp.asarray(0.5))
    energy = lambda x, t, valid=None, x_0=None: jnp.sum(x if x_0 is None else x_0, axis=(1, 2)) + 1e3
    step, fixed = sampler.step(PROCESS, denoise), (~FREE).at[:, 0].set(True)
    valid = FREE.at[0, 2].set(False)
    steered = sampler.steer(step, PROCESS, denoise, energy, fixed, valid, 0.5)
    before, after = (np.asarray(each(keys(), State.start(X_1), tick).x_t) for each in (step, steered))
    ends = jnp.asarray([[[0.0]], [[1.0]]])
    slope = denoise(ends, tick[1], ends) if sees == "network" else ends
    variance = PROCESS.posterior(X_1, X_1, tick[1], tick[0]).std.item() ** 2
    expected = np.where((valid & ~fixed)[..., None], -1.3 * variance * (slope[1] - slope[0]).item(), 0.0)
    np.testing.assert_allclose(after - before, np.broadcast_to(expected, SHAPE), atol=1e-5)


def test_what_is_held_has_no_part_in_how_far_the_rest_goes() -> None:
    step, tick = Sampler().step(PROCESS, denoise), (jnp.asarray(0.6), jnp.asarray(0.5))
    free, slope = FREE.at[:, 1].set(False), jnp.ones(SHAPE).at[:, 1].set(1e3)
    energy = lambda x, t, valid=None, x_0=None: jnp.sum(slope * x, axis=(1, 2)) + 1e6
    steered = guided(step, PROCESS, energy, Guidance(rate=0.7), drawn=True, free=free, valid=None)
    moved = np.asarray(steered(keys(), State.start(X_1), tick).x_t - step(keys(), State.start(X_1), tick).x_t)
    np.testing.assert_allclose(moved[:, 0], -0.7 * PROCESS.posterior(X_1, X_1, 0.5, 0.6).std.item(), rtol=1e-2)
    assert np.all(moved[:, 1] == 0)


def test_the_rate_of_sign_steps_is_in_units_of_a_coordinate() -> None:
    sampler, tick = Sampler(guidance=Guidance(move="sign", rate=0.1)), (jnp.asarray(0.6), jnp.asarray(0.5))
    step, energy = sampler.step(PROCESS, denoise), lambda x, t, valid=None, x_0=None: jnp.sum(x, axis=(1, 2)) + 1e3
    steered = sampler.steer(step, PROCESS, denoise, energy, ~FREE, FREE, 0.5)
    before, after = (each(keys(), State.start(X_1), tick).x_t for each in (step, steered))
    np.testing.assert_allclose(after - before, -0.05, atol=1e-6)


@pytest.mark.parametrize(
    "bad", [{"move": "adam"}, {"updates": -1}, {"rate": -0.1}, {"fluency": -1.0}, {"last": 0.6, "first": 0.5}]
)
def test_impossible_settings_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Guidance(**bad)
