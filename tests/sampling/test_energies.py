"""Energies compose as probabilities do, and a phrase energy is the probability of the phrase."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.rounding import token_log_probs
from jtextdiff.diffusion.schedules import SCHEDULES
from jtextdiff.sampling.energies import MIN_ENERGY, Learned, NoiseAveraged, Not, Or, Phrase, Sum, bag_log_prob, stacked

PROCESS = Gaussian(log_alpha_bar=SCHEDULES["cosine"](1000))
EMBEDDING = 3.0 * jax.random.normal(jax.random.key(0), (6, 8)) / 8**0.5
TOKENS = jnp.asarray([[0, 3, 4, 1], [3, 5, 4, 2], [2, 2, 3, 4]])


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
    np.testing.assert_allclose(Or(energies=(side(1.0), side(-1.0)))(X, 0.5), np.zeros(5), atol=1e-6)


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


@jax.jit
def value_and_slope(energy: Phrase, x: jax.Array, t: float, valid: jax.Array | None = None) -> tuple:
    """The energy of each row, and the gradient of their sum."""
    nats, pull = jax.vjp(lambda x: energy(x, t, valid), x)
    return nats, pull(jnp.ones_like(nats))[0]


def phrase(*allowed: tuple[int, ...]) -> Phrase:
    mask = jnp.asarray([[word in each for word in range(6)] for each in allowed])
    return Phrase(embedding=EMBEDDING, allowed=mask, process=PROCESS)


@pytest.mark.parametrize(
    ("allowed", "present"),
    [([(3,)], [True, True, True]), ([(3,), (4,)], [True, False, True]), ([(3, 5), (4,)], [True, True, True])],
)
def test_a_phrase_in_clean_text_is_present_or_absent(allowed: list, present: list[bool]) -> None:
    energy = np.asarray(value_and_slope(phrase(*allowed), EMBEDDING[TOKENS], 0.0)[0])
    np.testing.assert_array_equal(energy < 0.1, present)
    assert np.all(np.isfinite(energy))


def test_a_phrase_in_noisy_text_has_the_probability_of_any_position() -> None:
    """By enumeration over the positions of one token; positions outside the text do not count."""
    x_t, t = jax.random.normal(jax.random.key(2), (1, 4, 8)), 0.7
    p = np.exp(np.asarray(token_log_probs(EMBEDDING, PROCESS, x_t, t)[0], np.float64))
    for valid, length in ((None, 4), (jnp.asarray([[True, True, True, False]]), 3)):
        result = float(np.exp(-value_and_slope(phrase((3,)), x_t, t, valid)[0][0]))
        chance = 0.0
        for here in itertools.product([False, True], repeat=length):
            chance += any(here) * np.prod([p[i, 3] if is_here else 1 - p[i, 3] for i, is_here in enumerate(here)])
        assert result == pytest.approx(chance, rel=1e-4)


def test_the_gradient_of_a_phrase_points_to_its_token() -> None:
    x_t = EMBEDDING[TOKENS[1]][None] * 0.5
    energy = phrase((1,))
    before, slope = value_and_slope(energy, x_t, 0.5)
    assert np.all(np.isfinite(slope)) and value_and_slope(energy, x_t - 0.3 * slope, 0.5)[0][0] < before[0]


def test_an_improbable_phrase_has_a_gradient() -> None:
    """At any noise, even where no token of the phrase is probable."""
    for t in (0.02, 0.3, 0.9):
        x_t = EMBEDDING[jnp.asarray([[3, 3, 3, 3]])] * PROCESS.signal(t, jnp.zeros(()))
        before, slope = value_and_slope(phrase((5,), (1,)), x_t, t)
        assert np.all(np.isfinite(slope)) and float(jnp.abs(slope).max()) > 1e-3
        step = 1e-3 * slope / jnp.linalg.norm(slope)
        assert value_and_slope(phrase((5,), (1,)), x_t - step, t)[0][0] < before[0]


def test_a_phrase_does_not_fit_a_shorter_text() -> None:
    """Neither if the batch is too narrow, nor if a text in it is too short, whatever its tokens."""
    assert np.all(np.asarray(phrase((1,), (2,))(EMBEDDING[TOKENS[:, :1]], 0.5)) > 10)
    first_only = jnp.asarray([[True, False, False, False]] * 3)
    x_0 = EMBEDDING[jnp.asarray([[3, 4, 1, 1]] * 3)]
    nats, slope = value_and_slope(phrase((3,), (4,)), x_0, 0.0, first_only)
    assert 30 < float(nats.sum()) < 100 and np.all(np.asarray(slope) == 0)


def test_a_phrase_reads_an_estimate_as_clean_text() -> None:
    """At any time of the state and whatever the state is."""
    x, energy = jax.random.normal(jax.random.key(3), (3, 4, 8)), phrase((3,), (4,))
    clean = np.asarray(energy(EMBEDDING[TOKENS], 0.0))
    for t in (0.1, 0.9):
        np.testing.assert_allclose(energy(x, t, None, EMBEDDING[TOKENS]), clean, rtol=1e-5, atol=1e-6)


def test_tokens_anywhere_have_the_probability_of_all_texts_that_contain_them() -> None:
    """By enumeration of the 4³ texts of three independent tokens; the places are independent."""
    logits = jax.random.normal(jax.random.key(4), (2, 4))
    allowed = np.asarray([[False, True, False, True], [True, False, False, False]])
    p = np.asarray(jax.nn.softmax(logits), np.float64)
    expected = np.zeros(2)
    for place in allowed:
        texts = [text for text in itertools.product(range(4), repeat=3) if any(place[token] for token in text)]
        expected += np.log(sum(np.prod(p[:, list(text)], axis=1) for text in texts))
    np.testing.assert_allclose(bag_log_prob(logits, jnp.asarray(allowed), 3.0), expected, rtol=1e-5)


def test_rare_tokens_anywhere_have_the_probability_of_texts_of_their_length() -> None:
    """log(1 − (1 − q)^n) on both sides of the probability at which the formula changes, with a gradient in log q."""
    for nats in (11.5, 12.5, 20.0):
        log_p = lambda nats: bag_log_prob(jnp.stack([-nats, jnp.zeros(())])[None], jnp.asarray([[True, False]]), 7.0)[0]
        value, slope = jax.value_and_grad(log_p)(jnp.asarray(nats))
        q = 1 / (1 + np.exp(np.float64(nats)))
        assert float(value) == pytest.approx(np.log(-np.expm1(7 * np.log1p(-q))), abs=1e-3)
        assert float(slope) == pytest.approx(-1.0, abs=0.02)
