"""The latent flow: closed-form solutions, independent rows, thresholds and failures."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from support.cases import slow_but
from support.flows import NOTHING, Motion, bowl, field_of, logistic, of_terms

from jtextdiff.diffusion import schedules
from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.sampling.energies import Learned, NoiseAveraged, Not, Sum
from jtextdiff.sampling.latent_flow import FlowResult, descend

TAU = 5.025  # LatentOps' schedule
Z = jax.random.normal(jax.random.key(0), (40, 3))


@functools.partial(jax.jit, static_argnames="tolerance")
def compiled(energy, z: Array, tau: float, settings: dict, tolerance: float) -> FlowResult:
    """One program for all energies of a kind, times and settings."""
    return descend(energy, z, schedules.constant(2 * tau), tolerance=tolerance, **settings)


def flow(energy, z: Array, tau: float = TAU, tolerance: float = 1e-6, **settings: Any) -> FlowResult:
    settings = {"energy_threshold": 0.0, "source_pull": 0.0, **settings}
    result = compiled(energy, z, tau, settings, tolerance)
    assert np.all(result.solved)
    return result


@jax.jit
def evenly(energies: tuple, weights: tuple, z: Array, energy_threshold: float) -> FlowResult:
    """A flow without a schedule."""
    return descend(Sum(energies=energies, weights=weights), z, None, energy_threshold=energy_threshold)


def test_a_quadratic_energy_decays_exponentially() -> None:
    """dz/dτ = −λ (z − m): z = m + (z(0) − m) e^−λτ, row by row; also under the schedule of LatentOps."""
    expected = 1.5 + (Z - 1.5) * np.exp(-0.3 * TAU)
    np.testing.assert_allclose(flow(bowl(0.3, 1.5), Z).z, expected, atol=1e-5)
    linear = jax.jit(lambda energy, z: descend(energy, z, schedules.linear(0), tolerance=1e-6))
    np.testing.assert_allclose(linear(bowl(0.3, 1.5), Z).z, expected, atol=1e-5)


SHIFT = (1.0, -2.0, 0.5)
GROWTH = field_of(Motion(rate=1.0, shift=SHIFT))


def test_a_field_is_followed_from_its_time_0_to_1() -> None:
    """dz/ds = 2 s Δ ends in z + Δ; and twice as far with twice the strength."""
    for strength in (1.0, 2.0):
        field = field_of(Motion(shift=SHIFT), strength)
        expected = Z + strength * np.asarray([SHIFT])
        np.testing.assert_allclose(flow(NOTHING, Z, 0.0, field=field).z, expected, atol=1e-5)
    np.testing.assert_array_equal(flow(NOTHING, Z, 0.0).z, Z)


def test_the_time_of_a_field_runs_forward() -> None:
    """dz/ds = z + 2 s Δ ends in e z + 2 (e − 2) Δ; with its time backward it would end in e z + 2 Δ."""
    expected = np.e * Z + 2 * (np.e - 2) * np.asarray([SHIFT])
    np.testing.assert_allclose(flow(NOTHING, Z, 0.0, field=GROWTH).z, expected, atol=1e-4)


@pytest.mark.slow
def test_the_gradient_of_an_energy_as_a_field_is_the_flow_of_that_energy() -> None:
    """Alone it is a flow of time 1; beside the energy's own flow of time τ, one of time 1 + τ."""
    energy, field = bowl(0.3, 1.5), field_of(Motion(rate=-0.3, middle=1.5))
    np.testing.assert_allclose(
        flow(Sum(energies=(), weights=()), Z, 0.0, field=field).z, flow(energy, Z, 1.0).z, atol=1e-5
    )
    np.testing.assert_allclose(flow(energy, Z, 2.0, field=field).z, flow(energy, Z, 3.0).z, atol=1e-5)


def test_a_field_stops_at_the_threshold_of_the_energy_too() -> None:
    """With no time for the energy's own flow: the energy says only where to stop."""
    energy, field = bowl(0.3, 1.5), field_of(Motion(rate=-0.3, middle=1.5))
    nats = energy(Z, 0.0)
    end = flow(energy, Z, 0.0, field=field, energy_threshold=0.5)
    reached = np.asarray(nats) * np.exp(-2 * 0.3) < 0.5
    assert 0 < reached.sum() < len(Z)
    after = np.asarray(energy(end.z, 0.0))
    np.testing.assert_allclose(after[reached & (np.asarray(nats) > 0.5)], 0.5, atol=1e-3)
    np.testing.assert_array_equal(end.z[np.asarray(nats) < 0.5], Z[np.asarray(nats) < 0.5])


@pytest.mark.slow
def test_two_quadratic_energies_add_up() -> None:
    both = Sum(energies=(bowl(1.0, 1.5), bowl(0.5, -1.0)), weights=(0.3, 0.4))
    middle = (0.3 * 1.5 - 0.2 * 1.0) / 0.5
    np.testing.assert_allclose(flow(both, Z).z, middle + (Z - middle) * np.exp(-0.5 * TAU), atol=1e-5)


def test_a_constant_energy_moves_nothing() -> None:
    for nats in (0.0, 1.0):
        np.testing.assert_array_equal(flow(of_terms(constant=nats), Z).z, Z)


def test_a_logistic_energy_follows_its_first_integral() -> None:
    """dz/dτ = 2/(1 + e^2z): z + e^2z/2 grows by 2 τ exactly."""
    integral = lambda z: z + 0.5 * np.exp(2 * np.asarray(z, np.float64))
    after = flow(logistic(2.0), Z).z
    np.testing.assert_allclose(integral(after) - integral(Z), 2 * TAU, atol=2e-3)


def test_a_weight_scales_the_time() -> None:
    double = Sum(energies=(bowl(0.1, 1.5),), weights=(2.0,))
    np.testing.assert_allclose(flow(double, Z).z, flow(bowl(0.1, 1.5), Z, 2 * TAU).z, atol=1e-4)


def test_the_energy_falls_along_the_flow() -> None:
    values = [np.asarray(logistic(2.0)(flow(logistic(2.0), Z, tau).z, 0.0)) for tau in (0.0, 0.1, 0.5, 2.0, 10.0)]
    assert all(np.all(later < earlier) for earlier, later in zip(values, values[1:], strict=False))


def test_not_converges_where_the_negative_energy_diverges() -> None:
    """From N(0, 1): mean −1.51 and deviation .21; with −E they would be −8.3 and 3.6."""
    z = jax.random.normal(jax.random.key(1), (4000, 1))
    result = np.asarray(flow(Not(energy=logistic(2.0)), z, tolerance=1e-4).z)
    assert result.mean() == pytest.approx(-1.51, abs=0.015) and result.std() == pytest.approx(0.213, abs=0.015)


@pytest.mark.parametrize("tau", [TAU, 100.0])
def test_a_row_stops_at_the_energy_threshold(tau: float) -> None:
    """As exactly in a long flow, of which a row takes a small part."""
    energy = bowl(1.0, 0.0)
    before = np.asarray(energy(Z, 0.0))
    result = flow(energy, Z, tau, energy_threshold=0.3)
    after = np.asarray(energy(result.z, 0.0))
    np.testing.assert_allclose(after[before > 0.3], 0.3, atol=1e-3)
    np.testing.assert_array_equal(result.z[before <= 0.3], Z[before <= 0.3])
    assert np.all(np.asarray(result.steps)[before <= 0.3] == 0)


@pytest.mark.parametrize("probability", slow_but([0.9999], [0.3, 0.99, 0.9999]))
def test_without_a_schedule_a_row_follows_the_same_curve_to_its_threshold(probability: float) -> None:
    """Near p = 1 the slope of the energy vanishes, so that a row would need a time of 1/(1 − p)."""
    energies, weights, threshold = (logistic(6.0), bowl(0.1, 3.0)), (1.0, 2.0), -float(np.log(probability))
    start = 1.0 + 0.3 * Z
    end = evenly(energies, weights, start, threshold)
    before, monitored = (np.asarray(energies[0](z, 0.0) + energies[1](z, 0.0)) for z in (start, end.z))
    assert np.all(end.solved)
    np.testing.assert_allclose(monitored[before > threshold], threshold, rtol=2e-3)
    if probability < 0.5:
        timed = flow(Sum(energies=energies, weights=weights), start, 100.0, energy_threshold=threshold)
        np.testing.assert_allclose(end.z, timed.z, atol=5e-3)


def test_a_flat_energy_is_descended_without_a_schedule() -> None:
    """Time 100 leaves rows a hair from where they started."""
    flat, z = logistic(30.0), jnp.full_like(Z, 0.5)
    threshold = float(flat(z, 0.0)[0]) / 100
    end = evenly((flat, NOTHING), (1.0, 1.0), z, threshold)
    timed = flow(flat, z, 100.0, energy_threshold=threshold)
    np.testing.assert_allclose(flat(end.z, 0.0), threshold, rtol=1e-2)
    assert np.all(flat(timed.z, 0.0) > 1.5 * threshold)


def test_a_row_comes_to_rest_where_no_way_leads_down() -> None:
    """At the minimum of two energies that contradict each other, and on a plain: both short of the target."""
    contrary = evenly((bowl(1.0, 1.0), bowl(1.0, -1.0)), (1.0, 1.0), 0.5 * Z, 0.1)
    plain = evenly((of_terms(constant=2.0, tilt=-1e-4), NOTHING), (1.0, 1.0), 0.5 * Z, 0.1)
    assert np.all(contrary.solved) and np.all(plain.solved)
    np.testing.assert_allclose(contrary.z, 0.0, atol=0.05)
    np.testing.assert_allclose(plain.z, 0.5 * Z, atol=1e-2)


def test_no_row_goes_further_than_twice_the_distance_of_two_latents() -> None:
    far = evenly((bowl(1.0, 100.0), NOTHING), (1.0, 1.0), Z, 0.1)
    distance = np.linalg.norm(far.z - Z, axis=-1)
    assert np.all(far.solved) and np.all(distance <= 2 * np.sqrt(2 * 3) + 1e-3) and np.all(distance > 4)


def test_a_start_is_judged_at_time_one() -> None:
    """An energy of 2 − t + z² nats, at a threshold of 1.5: a row with z² below ½ stays, the others move."""
    result = flow(of_terms(constant=2.0, of_time=-1.0, curvature=2.0), Z, tau=0.01, energy_threshold=1.5)
    stays = np.sum(np.asarray(Z) ** 2, axis=-1) < 0.5
    assert 0 < stays.sum() < len(Z)
    np.testing.assert_array_equal(np.all(result.z == Z, axis=-1), stays)
    np.testing.assert_array_equal(result.steps == 0, stays)


def test_a_row_stops_at_the_threshold_at_its_own_time() -> None:
    """An energy of t + z²/2 nats, along which z = z(1) e^−(1 − t): the end of a row says at which time it stopped."""
    z = jnp.linspace(0.5, 2.0, 40)[:, None] * jnp.asarray([[1.0, 0.0, 0.0]])
    end = flow(of_terms(of_time=1.0, curvature=1.0), z, tau=1.0, energy_threshold=0.75).z[:, 0]
    np.testing.assert_allclose(1 + np.log(end / z[:, 0]) + 0.5 * end**2, 0.75, atol=1e-4)


def test_the_threshold_is_on_the_unweighted_energy() -> None:
    heavy = Sum(energies=(bowl(1.0, 0.0),), weights=(7.0,))
    np.testing.assert_allclose(
        flow(heavy, Z, energy_threshold=0.3).z, flow(bowl(1.0, 0.0), Z, energy_threshold=0.3).z, atol=1e-4
    )


def test_the_source_pull_shifts_the_fixed_point() -> None:
    """(1 − k)(z − m) + k (z − z(0)): fixed point (1 − k) m + k z(0)."""
    np.testing.assert_allclose(flow(bowl(1.0, 2.0), Z, 40.0, source_pull=0.25).z, 0.75 * 2 + 0.25 * Z, atol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"field": GROWTH}], ids=["energy", "field"])
def test_rows_are_independent(settings: dict) -> None:
    """A distant row changes neither the accuracy nor the steps of the others."""
    together, alone = flow(logistic(2.0), Z.at[5].add(50.0), **settings), flow(logistic(2.0), Z, **settings)
    others = np.arange(len(Z)) != 5
    np.testing.assert_allclose(together.z[others], alone.z[others], atol=1e-6)
    np.testing.assert_array_equal(together.steps[others], alone.steps[others])


def test_a_row_that_cannot_be_solved_stays_and_is_reported() -> None:
    broken = lambda z, t, valid=None, x_0=None: jnp.where(z[:, 0] > 0, jnp.nan, 1.0) * jnp.sum(z**2, axis=-1)
    z = jnp.asarray([[1.0, 1.0], [-1.0, 1.0]])
    result = jax.jit(lambda z: descend(broken, z, schedules.constant(1.0)))(z)
    assert result.solved.tolist() == [False, True]
    np.testing.assert_array_equal(result.z[0], z[0])
    assert np.all(np.isfinite(result.z)) and np.any(result.z[1] != z[1])


@pytest.mark.slow
def test_a_row_that_needs_too_many_steps_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jtextdiff.sampling.latent_flow.MAX_STEPS", 3)
    z = jnp.asarray([[1.5, 1.5], [9.0, 9.0]])  # at the minimum, where one step suffices; and far from it
    energy, schedule = bowl(3.0, 1.5), schedules.constant(2 * TAU)
    result = jax.jit(lambda z: descend(energy, z, schedule, tolerance=1e-6, num_frames=4))(z)
    assert result.solved.tolist() == [True, False]
    np.testing.assert_array_equal(result.z, z)
    np.testing.assert_array_equal(result.path, jnp.broadcast_to(z, (4, 2, 2)))


PROCESS = Gaussian(log_alpha_bar=schedules.constant(2 * TAU))
ENDS = jnp.zeros_like(Z).at[1].set(1.0)  # rows of 0 and of 1, in the shape of the other flows


def averaged(strength, middle, z, t, valid) -> Array:
    signal, noise = PROCESS.signal(t, z), PROCESS.noise(t, z)
    return -jnp.sum(0.5 * strength * (signal * z - middle) ** 2 / (1 + strength * noise**2), axis=-1)


def averaged_bowl(strength: float, middle: float) -> Learned:
    """−log E e^−E over N(√ᾱ z, 1 − ᾱ), up to a constant: a bowl again."""
    return Learned(params=strength, target=middle, log_prob=averaged)


def test_the_averaged_flow_ends_in_the_posterior() -> None:
    """N(0, 1) times e^−λ(z − m)²/2 is N(λm/(1 + λ), 1/(1 + λ)), up to √ᾱ at the start. The flow of
    the clean energy goes past it, to m (1 − e^−λτ) with deviation e^−λτ."""
    exact = flow(averaged_bowl(0.3, 1.5), ENDS).z[:, 0]
    clean = flow(bowl(0.3, 1.5), ENDS).z[:, 0]
    assert float(exact[0]) == pytest.approx(0.3442, abs=1e-3)
    assert float(exact[1] - exact[0]) == pytest.approx(0.8771, abs=1e-3)
    assert float(clean[0]) == pytest.approx(1.1678, abs=1e-3)
    assert float(clean[1] - clean[0]) == pytest.approx(0.22146, abs=1e-4)


@pytest.mark.slow
def test_noise_is_averaged_over_the_whole_composition() -> None:
    """The Monte Carlo average is close to the exact one; that of a Sum is not the sum of its terms' averages."""
    half, ends = jax.random.normal(jax.random.key(2), (512, 1)), ENDS[:2, :1]
    noises = jnp.concatenate([half, -half])
    average = lambda energy: NoiseAveraged(energy=energy, noises=noises, process=PROCESS)
    sampled = flow(average(bowl(0.3, 1.5)), ends, tolerance=1e-4).z
    np.testing.assert_allclose(sampled, flow(averaged_bowl(0.3, 1.5), ENDS).z[:2, :1], atol=0.02)
    one, other = bowl(1.0, 1.0), bowl(1.0, -2.0)
    whole = flow(average(Sum(energies=(one, other), weights=(1.0, 1.0))), ends, tolerance=1e-4).z
    parts = flow(Sum(energies=(average(one), average(other)), weights=(1.0, 1.0)), ends, tolerance=1e-4).z
    posterior = (1.0 - 2.0) / 3
    assert abs(float(whole[0, 0]) - posterior) < 0.03 < abs(float(parts[0, 0]) - posterior)


def steep(slope: float, target: Any, z: Array, t: Any, valid: Any) -> Array:
    return -5 * jax.nn.sigmoid(-slope * (z[..., 0] - 1))


@pytest.mark.parametrize("slope", slow_but([4.0, 200.0], [4.0, 30.0, 200.0]))
def test_a_row_stops_at_its_threshold_however_steep_the_energy_is(slope: float) -> None:
    """Each row crosses 0.5 nats of 5 σ(−slope (z − 1)), which is flat on both sides, and ends there, within 1 %."""
    stop = {"energy_threshold": 0.5, "stop_energy": Learned(params=slope, target=(), log_prob=steep)}
    z = flow(bowl(2.0, 2.0), jnp.linspace(-2.0, 0.5, 100)[:, None], tolerance=1e-3, **stop).z
    np.testing.assert_allclose(z[:, 0], 1 + np.log(9) / slope, atol=0.01)


def test_a_flow_of_very_long_time_stops_at_its_threshold() -> None:
    """In float32 two neighbouring times are then further apart than the tolerance in energy."""
    result = compiled(logistic(3.0), Z, 5e5, {"energy_threshold": 0.5, "source_pull": 0.0}, 1e-3)
    assert np.all(result.solved)
