"""Energies compose as probabilities do."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.schedules import SCHEDULES
from jtextdiff.sampling.energies import MIN_ENERGY, Learned, NoiseAveraged, Not, Or, Sum, stacked

PROCESS = Gaussian(log_alpha_bar=SCHEDULES["cosine"](1000))


def quadratic(params: jax.Array, target: jax.Array, x: jax.Array, t: object, valid: object) -> jax.Array:
    """log of exp(−λ Σ (x − m)²/2)."""
    return -0.5 * params * jnp.sum((x - target) ** 2, axis=(1, 2))


def logistic(params: jax.Array, target: jax.Array, x: jax.Array, t: object, valid: object) -> jax.Array:
    """log of σ(± slope · x), by the sign of the target."""
    return jax.nn.log_sigmoid(target * params * jnp.sum(x, axis=(1, 2)))


def against(params: jax.Array, target: jax.Array, x: jax.Array, t: object, valid: object) -> jax.Array:
    """log of 1 − σ(± slope · x)."""
    return logistic(params, -target, x, t, valid)


def bowl(strength: float, middle: float) -> Learned:
    return Learned(params=jnp.asarray(strength), target=jnp.asarray(middle), log_prob=quadratic)


def side(target: float) -> Learned:
    return Learned(params=jnp.asarray(2.0), target=jnp.asarray(target), log_prob=logistic)


X = jax.random.normal(jax.random.key(0), (5, 3, 2))


def test_stacked_energies_apply_row_by_row() -> None:
    """Shared parameters stay one array; targets and weights are stacked by row, in any order of rows."""
    shared = jnp.asarray(0.3)
    energies = [
        Sum(
            energies=(Learned(params=shared, target=jnp.asarray(middle), log_prob=quadratic),),
            weights=(jnp.asarray(w),),
        )
        for middle, w in ((0.0, 1.0), (1.0, 2.0), (2.0, 0.5))
    ]
    rows = [2, 0, 2, 1, 1]
    batch = stacked(energies, rows)
    assert batch.energies[0].params is shared and batch.weights[0].shape == batch.energies[0].target.shape == (5,)
    by_row = lambda params, target, x, t, valid: -0.5 * params * jnp.sum((x - target[:, None, None]) ** 2, axis=(1, 2))
    by_hand = Sum(
        energies=(Learned(params=shared, target=batch.energies[0].target, log_prob=by_row),), weights=batch.weights
    )
    alone = [energies[row](X[place : place + 1], 0.5)[0] for place, row in enumerate(rows)]
    np.testing.assert_allclose(by_hand(X, 0.5), alone, rtol=1e-5)


def test_a_sum_commutes_and_is_linear_in_its_weights() -> None:
    a, b = bowl(0.3, 1.5), side(1.0)
    one, other = Sum(energies=(a, b), weights=(1.0, 0.5)), Sum(energies=(b, a), weights=(0.5, 1.0))
    np.testing.assert_allclose(one(X, 0.5), other(X, 0.5), rtol=1e-6)
    np.testing.assert_allclose(Sum(energies=(a,), weights=(2.0,))(X, 0.5), a(X, 0.5) + a(X, 0.5), rtol=1e-6)
    np.testing.assert_array_equal(Sum(energies=(), weights=())(X, 0.5), np.zeros(5))


def test_not_and_or_match_probabilities() -> None:
    p = np.exp(-np.asarray(side(1.0)(X, 0.5), np.float64))
    np.testing.assert_allclose(Not(energy=side(1.0))(X, 0.5), side(-1.0)(X, 0.5), rtol=1e-4)
    np.testing.assert_allclose(Not(energy=side(1.0))(X, 0.5), -np.log1p(-p), rtol=1e-4)
    sure = Learned(params=jnp.asarray(2.0), target=jnp.asarray(1.0), log_prob=logistic, log_not=against)
    np.testing.assert_allclose(Not(energy=sure)(X, 0.5), side(-1.0)(X, 0.5), rtol=1e-6)
    np.testing.assert_allclose(Not(energy=Not(energy=sure))(X, 0.5), sure(X, 0.5), rtol=1e-6)


def test_or_and_the_not_of_a_sum_are_those_of_independent_events() -> None:
    """By enumeration of three events; OR of more events is never less probable, and never above 1."""
    energies = side(1.0), bowl(0.3, 1.5), bowl(0.1, -0.5)
    p = np.exp(-np.asarray([energy(X, 0.5) for energy in energies], np.float64))
    outcomes = np.asarray(list(itertools.product([False, True], repeat=3)))
    chance = np.prod(np.where(outcomes[..., None], p[None], 1 - p[None]), axis=1)
    either = Or(energies=energies)
    np.testing.assert_allclose(np.exp(-np.asarray(either(X, 0.5))), chance[outcomes.any(1)].sum(0), rtol=1e-4)
    np.testing.assert_allclose(np.exp(-np.asarray(Not(energy=either)(X, 0.5))), chance[0], rtol=1e-4)
    both = Sum(energies=energies, weights=(1.0, 1.0, 1.0))
    np.testing.assert_allclose(np.exp(-np.asarray(Not(energy=both)(X, 0.5))), chance[:-1].sum(0), rtol=1e-4)
    assert np.all(np.asarray(either(X, 0.5)) >= 0)


def test_or_of_improbable_events_keeps_their_gradient() -> None:
    x = jnp.full((1, 1, 1), -40.0)
    nats, slope = jax.value_and_grad(lambda x: Or(energies=(side(1.0), side(1.0)))(x, 0.5)[0])(x)
    assert float(nats) == pytest.approx(80 - np.log(2), abs=1e-3)
    assert float(slope[0, 0, 0]) == pytest.approx(-2.0, rel=1e-5)


def test_not_is_finite_and_its_gradient_vanishes() -> None:
    x = jnp.linspace(-40.0, 40.0, 9)[:, None, None]
    energy, slope = jax.vjp(lambda x: Not(energy=side(1.0))(x, 0.5), x)
    slope = slope(jnp.ones(9))[0].ravel()
    assert np.all(np.isfinite(energy)) and np.all(np.isfinite(slope))
    assert np.all(np.abs(slope) <= 2.0 + 1e-5) and np.all(
        np.abs(slope[:3]) < 1e-6
    )  # where p is small, the gradient vanishes
    assert float(energy.max()) <= -np.log(MIN_ENERGY) + 1


@pytest.mark.parametrize("t", [0.3, 0.8])
def test_the_noise_average_is_that_of_the_probability(t: float) -> None:
    """Closed form for a quadratic energy: λ shrinks to λ/(1 + λ(1 − ᾱ)). The average of a sum is no sum of averages."""
    a, b = bowl(0.3, 1.5), bowl(0.8, -1.0)
    x = jnp.linspace(-1.0, 2.0, 4)[:, None, None]
    noises = jax.random.normal(jax.random.key(round(10 * t)), (200_000, 1, 1, 1))
    bar, spread = float(PROCESS.alpha_bar(t)), 1 - float(PROCESS.alpha_bar(t))

    def closed_form(strength: float, middle: float, offset: float = 0.0) -> np.ndarray:
        away = np.sqrt(bar) * np.asarray(x).ravel() - middle
        return offset + 0.5 * np.log1p(strength * spread) + 0.5 * strength * away**2 / (1 + strength * spread)

    average = lambda energy: np.asarray(NoiseAveraged(energy=energy, noises=noises, process=PROCESS)(x, t))
    np.testing.assert_allclose(average(a), closed_form(0.3, 1.5), atol=0.02)
    # Two bowls are one: λ = λ_a + λ_b, m the weighted mean, and λ_a λ_b (m_a − m_b)²/2λ above zero.
    average_of_sum = average(Sum(energies=(a, b), weights=(1.0, 1.0)))
    np.testing.assert_allclose(average_of_sum, closed_form(1.1, -0.35 / 1.1, 0.5 * 0.24 / 1.1 * 2.5**2), atol=0.02)
    assert np.abs(average_of_sum - average(a) - average(b)).max() > 0.05


def test_targets_and_weights_change_without_recompilation() -> None:
    traced = []

    @jax.jit
    def run(energy: Sum, x: jax.Array) -> jax.Array:
        traced.append(1)
        return energy(x, 0.5)

    for seed in range(3):
        targets = jax.random.normal(jax.random.key(seed), (5, 1, 1))
        energy = Sum(energies=(Learned(params=jnp.asarray(0.7), target=targets, log_prob=quadratic),), weights=(seed,))
        result = run(energy, X)
        expected = seed * 0.35 * jnp.sum((X - targets) ** 2, axis=(1, 2))
        np.testing.assert_allclose(result, expected, rtol=1e-5)
    assert len(traced) == 1


def test_energies_on_the_estimate_read_it_inside_compositions() -> None:
    def log_prob(params: object, target: jax.Array, x: jax.Array, t: float, valid: object) -> jax.Array:
        return jnp.sum(x, axis=(1, 2)) * target - jnp.asarray(t, jnp.float32)

    x, x_0 = jnp.ones((2, 3, 1)), jnp.full((2, 3, 1), -5.0)
    of_state = Learned(params={}, target=jnp.asarray(1.0), log_prob=log_prob)
    on_estimate = Learned(params={}, target=jnp.asarray(1.0), log_prob=log_prob, on_estimate=True)
    np.testing.assert_allclose(of_state(x, 0.5, None, x_0), of_state(x, 0.5))
    np.testing.assert_allclose(on_estimate(x, 0.5), of_state(x, 0.5))
    np.testing.assert_allclose(on_estimate(x, 0.5, None, x_0), of_state(x_0, 0.0))
    for compose in (
        lambda energy: Sum(energies=(energy,), weights=(2.0,)),
        lambda energy: Not(energy=energy),
        lambda energy: Or(energies=(energy, energy)),
    ):
        np.testing.assert_allclose(compose(on_estimate)(x, 0.5, None, x_0), compose(of_state)(x_0, 0.0))
