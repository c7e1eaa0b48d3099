"""Latents flow where calculus says, each by itself, and stop where they are told to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from jtextdiff.diffusion import schedules
from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.sampling.energies import NoiseAveraged, Not, Sum
from jtextdiff.sampling.latent_flow import Descent, descend

TAU = 5.025  # LatentOps' schedule
Z = jax.random.normal(jax.random.key(0), (40, 3))


def bowl(strength: float, middle: float):
    return lambda z, t, valid=None, x_0=None: 0.5 * strength * jnp.sum((z - middle) ** 2, axis=-1)


def logistic(slope: float):
    return lambda z, t, valid=None, x_0=None: jnp.sum(jax.nn.softplus(-slope * z), axis=-1)


def flow(energy, z: Array, tau: float = TAU, **how) -> Descent:
    found = descend(energy, z, schedules.constant(2 * tau), **{"tolerance": 1e-6, **how})
    assert np.all(found.solved)
    return found


def test_a_bowl_is_left_behind_at_its_own_rate() -> None:
    """dz/dτ = −λ (z − m): z = m + (z(0) − m) e^−λτ, path by path; under LatentOps' own schedule as well."""
    expected = 1.5 + (Z - 1.5) * np.exp(-0.3 * TAU)
    np.testing.assert_allclose(flow(bowl(0.3, 1.5), Z).z, expected, atol=1e-5)
    np.testing.assert_allclose(descend(bowl(0.3, 1.5), Z, schedules.linear(0), tolerance=1e-6).z, expected, atol=1e-5)


def test_two_bowls_are_one_with_both_strengths() -> None:
    both = Sum(energies=(bowl(1.0, 1.5), bowl(0.5, -1.0)), weights=(0.3, 0.4))
    middle = (0.3 * 1.5 - 0.2 * 1.0) / 0.5
    np.testing.assert_allclose(flow(both, Z).z, middle + (Z - middle) * np.exp(-0.5 * TAU), atol=1e-5)


def test_no_energy_moves_nothing_by_not_a_bit() -> None:
    still = lambda z, t, valid=None, x_0=None: jnp.zeros(len(z))
    np.testing.assert_array_equal(flow(still, Z).z, Z)
    raised = lambda z, t, valid=None, x_0=None: jnp.ones(len(z))
    np.testing.assert_array_equal(flow(raised, Z).z, Z)


def test_a_logistic_energy_keeps_its_account() -> None:
    """dz/dτ = 2/(1 + e^2z): z + e^2z/2 grows by 2 τ exactly."""
    z = Z[:, :1]
    account = lambda z: z + 0.5 * np.exp(2 * np.asarray(z, np.float64))
    after = flow(logistic(2.0), z).z
    np.testing.assert_allclose(account(after) - account(z), 2 * TAU, atol=2e-3)


def test_weight_is_time() -> None:
    double = Sum(energies=(logistic(2.0),), weights=(2.0,))
    np.testing.assert_allclose(flow(double, Z).z, flow(logistic(2.0), Z, 2 * TAU).z, atol=1e-4)


def test_the_energy_falls_all_the_way() -> None:
    values = [np.asarray(logistic(2.0)(flow(logistic(2.0), Z, tau).z, 0.0)) for tau in (0.0, 0.1, 0.5, 2.0, 10.0)]
    assert all(np.all(later < earlier) for earlier, later in zip(values, values[1:], strict=False))


def test_not_comes_to_rest_where_its_negative_would_run_away() -> None:
    """From N(0, 1): mean −1.51 and deviation .21; down −E instead, it would be −8.3 and 3.6."""
    z = jax.random.normal(jax.random.key(1), (4000, 1))
    found = np.asarray(flow(Not(energy=logistic(2.0)), z, tolerance=1e-4).z)
    assert found.mean() == pytest.approx(-1.51, abs=0.015) and found.std() == pytest.approx(0.213, abs=0.015)


def test_a_row_stops_where_it_has_enough_and_not_before() -> None:
    energy = bowl(1.0, 0.0)
    before = np.asarray(energy(Z, 0.0))
    found = flow(energy, Z, enough=0.3)
    after = np.asarray(energy(found.z, 0.0))
    np.testing.assert_allclose(after[before > 0.3], 0.3, atol=1e-4)
    np.testing.assert_array_equal(found.z[before <= 0.3], Z[before <= 0.3])
    assert np.all(np.asarray(found.steps)[before <= 0.3] == 0)


def test_enough_is_of_what_is_wanted_whatever_it_weighs() -> None:
    heavy = Sum(energies=(bowl(1.0, 0.0),), weights=(7.0,))
    np.testing.assert_allclose(flow(heavy, Z, enough=0.3).z, flow(bowl(1.0, 0.0), Z, enough=0.3).z, atol=1e-4)


def test_what_is_kept_pulls_back() -> None:
    """(1 − k)(z − m) + k (z − z(0)): rest at (1 − k) m + k z(0)."""
    np.testing.assert_allclose(flow(bowl(1.0, 2.0), Z, 40.0, keep=0.25).z, 0.75 * 2 + 0.25 * Z, atol=1e-4)


def test_rows_do_not_know_each_other() -> None:
    """One far out needs more steps, and costs the others neither exactness nor a step."""
    far = jnp.concatenate([Z[:5], 50.0 + Z[5:6]])
    together, alone = flow(logistic(2.0), far), flow(logistic(2.0), Z[:5])
    np.testing.assert_allclose(together.z[:5], alone.z, atol=1e-6)
    np.testing.assert_array_equal(together.steps[:5], alone.steps)


def test_a_row_that_cannot_be_solved_stays_and_says_so() -> None:
    broken = lambda z, t, valid=None, x_0=None: jnp.where(z[:, 0] > 0, jnp.nan, 1.0) * jnp.sum(z**2, axis=-1)
    z = jnp.asarray([[1.0, 1.0], [-1.0, 1.0]])
    found = descend(broken, z, schedules.constant(1.0))
    assert found.solved.tolist() == [False, True]
    np.testing.assert_array_equal(found.z[0], z[0])
    assert np.all(np.isfinite(found.z)) and np.any(found.z[1] != z[1])


def test_a_row_that_needs_too_many_steps_is_where_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jtextdiff.sampling.latent_flow.MOST_STEPS", 3)
    z = jnp.asarray([[1.5, 1.5], [9.0, 9.0]])  # at the bottom, where one step is enough; and far from it
    found = descend(bowl(3.0, 1.5), z, schedules.constant(2 * TAU), tolerance=1e-6, frames=4)
    assert found.solved.tolist() == [True, False]
    np.testing.assert_array_equal(found.z, z)
    np.testing.assert_array_equal(found.path, jnp.broadcast_to(z, (4, 2, 2)))


def averaged_bowl(strength: float, middle: float, process: Gaussian):
    """−log E e^−E over N(√ᾱ z, 1 − ᾱ), up to a constant: a bowl again."""

    def energy(z: Array, t: Array, valid: None = None, x_0: None = None) -> Array:
        signal, noise = process.signal(t, z), process.noise(t, z)
        return jnp.sum(0.5 * strength * (signal * z - middle) ** 2 / (1 + strength * noise**2), axis=-1)

    return energy


def test_the_averaged_flow_ends_in_the_posterior() -> None:
    """N(0, 1) times e^−λ(z − m)²/2 is N(λm/(1 + λ), 1/(1 + λ)), but for what is left of √ᾱ at the start; the frozen
    flow goes past it, to m (1 − e^−λτ) with deviation e^−λτ."""
    schedule = schedules.constant(2 * TAU)
    ends = jnp.asarray([[0.0], [1.0]])
    exact = flow(averaged_bowl(0.3, 1.5, Gaussian(log_alpha_bar=schedule)), ends).z[:, 0]
    frozen = flow(bowl(0.3, 1.5), ends).z[:, 0]
    assert float(exact[0]) == pytest.approx(0.3442, abs=1e-3)
    assert float(exact[1] - exact[0]) == pytest.approx(0.8771, abs=1e-3)
    assert float(frozen[0]) == pytest.approx(1.1678, abs=1e-3)
    assert float(frozen[1] - frozen[0]) == pytest.approx(0.22146, abs=1e-4)


def test_noise_is_averaged_over_the_whole_of_what_is_wanted() -> None:
    """By draws it comes near the exact average; of a Sum it is not the sum of its parts' averages."""
    schedule = schedules.constant(2 * TAU)
    process, half = Gaussian(log_alpha_bar=schedule), jax.random.normal(jax.random.key(2), (512, 1))
    noises, ends = jnp.concatenate([half, -half]), jnp.asarray([[0.0], [1.0]])
    average = lambda energy: NoiseAveraged(energy=energy, noises=noises, process=process)
    drawn = flow(average(bowl(0.3, 1.5)), ends, tolerance=1e-4).z
    np.testing.assert_allclose(drawn, flow(averaged_bowl(0.3, 1.5, process), ends).z, atol=0.02)
    one, other = bowl(1.0, 1.0), bowl(1.0, -2.0)
    whole = flow(average(Sum(energies=(one, other), weights=(1.0, 1.0))), ends, tolerance=1e-4).z
    parts = flow(Sum(energies=(average(one), average(other)), weights=(1.0, 1.0)), ends, tolerance=1e-4).z
    posterior = (1.0 - 2.0) / 3
    assert abs(float(whole[0, 0]) - posterior) < 0.03 < abs(float(parts[0, 0]) - posterior)
