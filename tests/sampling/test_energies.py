"""Energies compose as probabilities do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.schedules import SCHEDULES
from jtextdiff.sampling.energies import LEAST, Learned, NoiseAveraged, Not, Or, Sum, stacked

PROCESS = Gaussian(log_alpha_bar=SCHEDULES["cosine"](1000))


def quadratic(params: jax.Array, target: jax.Array, x: jax.Array, t: object, valid: object) -> jax.Array:
    """log of exp(−λ Σ (x − m)²/2)."""
    return -0.5 * params * jnp.sum((x - target) ** 2, axis=(1, 2))


def logistic(params: jax.Array, target: jax.Array, x: jax.Array, t: object, valid: object) -> jax.Array:
    """log of σ(± slope · x), by the sign of the target."""
    return jax.nn.log_sigmoid(target * params * jnp.sum(x, axis=(1, 2)))


def bowl(strength: float, middle: float) -> Learned:
    return Learned(params=jnp.asarray(strength), target=jnp.asarray(middle), log_prob=quadratic)


def side(target: float) -> Learned:
    return Learned(params=jnp.asarray(2.0), target=jnp.asarray(target), log_prob=logistic)


X = jax.random.normal(jax.random.key(0), (5, 3, 2))


def test_stacked_energies_are_each_rows_own() -> None:
    """Parameters that all share stay one; targets and weights get a row each; of some rows, theirs."""
    shared = jnp.asarray(0.3)
    every = [
        Sum(
            energies=(Learned(params=shared, target=jnp.asarray(middle), log_prob=quadratic),),
            weights=(jnp.asarray(w),),
        )
        for middle, w in ((0.0, 1.0), (1.0, 2.0), (2.0, 0.5))
    ]
    rows = [2, 0, 2, 1, 1]
    one = stacked(every, rows)
    assert one.energies[0].params is shared and one.weights[0].shape == one.energies[0].target.shape == (5,)
    by_row = lambda params, target, x, t, valid: -0.5 * params * jnp.sum((x - target[:, None, None]) ** 2, axis=(1, 2))
    own = Sum(energies=(Learned(params=shared, target=one.energies[0].target, log_prob=by_row),), weights=one.weights)
    alone = [every[row](X[place : place + 1], 0.5)[0] for place, row in enumerate(rows)]
    np.testing.assert_allclose(own(X, 0.5), alone, rtol=1e-5)


def test_a_sum_commutes_and_weight_two_is_twice() -> None:
    a, b = bowl(0.3, 1.5), side(1.0)
    one, other = Sum(energies=(a, b), weights=(1.0, 0.5)), Sum(energies=(b, a), weights=(0.5, 1.0))
    np.testing.assert_allclose(one(X, 0.5), other(X, 0.5), rtol=1e-6)
    np.testing.assert_allclose(Sum(energies=(a,), weights=(2.0,))(X, 0.5), a(X, 0.5) + a(X, 0.5), rtol=1e-6)
    np.testing.assert_array_equal(Sum(energies=(), weights=())(X, 0.5), np.zeros(5))


def test_not_and_or_are_those_of_probabilities() -> None:
    p = np.exp(-np.asarray(side(1.0)(X, 0.5), np.float64))
    np.testing.assert_allclose(Not(energy=side(1.0))(X, 0.5), side(-1.0)(X, 0.5), rtol=1e-4)
    np.testing.assert_allclose(Not(energy=side(1.0))(X, 0.5), -np.log1p(-p), rtol=1e-4)
    np.testing.assert_allclose(Or(energies=(side(1.0), side(-1.0)))(X, 0.5), np.zeros(5), atol=1e-6)


def test_not_is_finite_and_does_not_run_away() -> None:
    x = jnp.linspace(-40.0, 40.0, 9)[:, None, None]
    energy, slope = jax.vjp(lambda x: Not(energy=side(1.0))(x, 0.5), x)
    slope = slope(jnp.ones(9))[0].ravel()
    assert np.all(np.isfinite(energy)) and np.all(np.isfinite(slope))
    assert np.all(np.abs(slope) <= 2.0 + 1e-5) and np.all(np.abs(slope[:3]) < 1e-6)  # where p is small, no pull is left
    assert float(energy.max()) <= -np.log(LEAST) + 1


@pytest.mark.parametrize("t", [0.3, 0.8])
def test_the_average_over_noise_is_that_of_the_probability(t: float) -> None:
    """Of a quadratic energy it is known: λ shrinks to λ/(1 + λ(1 − ᾱ)); and it is not a sum of averages."""
    a, b = bowl(0.3, 1.5), bowl(0.8, -1.0)
    x = jnp.linspace(-1.0, 2.0, 4)[:, None, None]
    noises = jax.random.normal(jax.random.key(round(10 * t)), (200_000, 1, 1, 1))
    bar, spread = float(PROCESS.alpha_bar(t)), 1 - float(PROCESS.alpha_bar(t))

    def known(strength: float, middle: float, offset: float = 0.0) -> np.ndarray:
        away = np.sqrt(bar) * np.asarray(x).ravel() - middle
        return offset + 0.5 * np.log1p(strength * spread) + 0.5 * strength * away**2 / (1 + strength * spread)

    average = lambda energy: np.asarray(NoiseAveraged(energy=energy, noises=noises, process=PROCESS)(x, t))
    np.testing.assert_allclose(average(a), known(0.3, 1.5), atol=0.02)
    # Two bowls are one: λ = λ_a + λ_b, m the weighted mean, and λ_a λ_b (m_a − m_b)²/2λ above zero.
    both = average(Sum(energies=(a, b), weights=(1.0, 1.0)))
    np.testing.assert_allclose(both, known(1.1, -0.35 / 1.1, 0.5 * 0.24 / 1.1 * 2.5**2), atol=0.02)
    assert np.abs(both - average(a) - average(b)).max() > 0.05


def test_each_text_may_have_its_target_and_nothing_is_compiled_anew() -> None:
    traced = []

    @jax.jit
    def run(energy: Sum, x: jax.Array) -> jax.Array:
        traced.append(1)
        return energy(x, 0.5)

    for seed in range(3):
        targets = jax.random.normal(jax.random.key(seed), (5, 1, 1))
        energy = Sum(energies=(Learned(params=jnp.asarray(0.7), target=targets, log_prob=quadratic),), weights=(seed,))
        found = run(energy, X)
        expected = seed * 0.35 * jnp.sum((X - targets) ** 2, axis=(1, 2))
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert len(traced) == 1


def test_an_estimate_is_looked_at_where_it_serves_better_and_through_all_that_composes() -> None:
    def log_prob(params: object, target: jax.Array, x: jax.Array, t: float, valid: object) -> jax.Array:
        return jnp.sum(x, axis=(1, 2)) * target - jnp.asarray(t, jnp.float32)

    x, x_0 = jnp.ones((2, 3, 1)), jnp.full((2, 3, 1), -5.0)
    of_state = Learned(params={}, target=jnp.asarray(1.0), log_prob=log_prob)
    of_estimate = Learned(params={}, target=jnp.asarray(1.0), log_prob=log_prob, of_estimate=True)
    np.testing.assert_allclose(of_state(x, 0.5, None, x_0), of_state(x, 0.5))
    np.testing.assert_allclose(of_estimate(x, 0.5), of_state(x, 0.5))
    np.testing.assert_allclose(of_estimate(x, 0.5, None, x_0), of_state(x_0, 0.0))
    for compose in (
        lambda one: Sum(energies=(one,), weights=(2.0,)),
        lambda one: Not(energy=one),
        lambda one: Or(energies=(one, one)),
    ):
        np.testing.assert_allclose(compose(of_estimate)(x, 0.5, None, x_0), compose(of_state)(x_0, 0.0))
