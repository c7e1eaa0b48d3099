"""A phrase energy is the probability of the phrase, and its complement that of its absence."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.cases import slow_but

from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.rounding import token_log_probs
from jtextdiff.diffusion.schedules import SCHEDULES
from jtextdiff.sampling.energies import Not
from jtextdiff.sampling.phrases import Phrase, bag_log_prob, bag_presence

PROCESS = Gaussian(log_alpha_bar=SCHEDULES["cosine"](1000))
EMBEDDING = 3.0 * jax.random.normal(jax.random.key(0), (6, 8)) / 8**0.5
TOKENS = jnp.asarray([[0, 3, 4, 1], [3, 5, 4, 2], [2, 2, 3, 4]])


@jax.jit
def value_and_slope(energy: Phrase | Not, x: jax.Array, t: float, valid: jax.Array | None = None) -> tuple:
    """The energy of each row, and the gradient of their sum."""
    nats, pull = jax.vjp(lambda x: energy(x, t, valid), x)
    return nats, pull(jnp.ones_like(nats))[0]


@jax.jit
def value(
    energy: Phrase | Not, x: jax.Array, t: float, valid: jax.Array | None = None, x_0: jax.Array | None = None
) -> jax.Array:
    return energy(x, t, valid, x_0)


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
    assert np.all(np.asarray(value(phrase((1,), (2,)), EMBEDDING[TOKENS[:, :1]], 0.5)) > 10)
    first_only = jnp.asarray([[True, False, False, False]] * 3)
    x_0 = EMBEDDING[jnp.asarray([[3, 4, 1, 1]] * 3)]
    nats, slope = value_and_slope(phrase((3,), (4,)), x_0, 0.0, first_only)
    assert 30 < float(nats.sum()) < 100 and np.all(np.asarray(slope) == 0)


def test_a_phrase_reads_an_estimate_as_clean_text() -> None:
    """At any time of the state and whatever the state is."""
    x, energy = jax.random.normal(jax.random.key(3), (3, 4, 8)), phrase((3,), (4,))
    clean = np.asarray(value(energy, EMBEDDING[TOKENS], 0.0))
    for t in (0.1, 0.9):
        np.testing.assert_allclose(value(energy, x, t, None, EMBEDDING[TOKENS]), clean, rtol=1e-5, atol=1e-6)


def test_tokens_anywhere_have_the_probability_of_all_texts_that_contain_them() -> None:
    """By enumeration of the 4³ texts of three independent tokens; the places are independent."""
    logits = jax.random.normal(jax.random.key(4), (2, 4))
    allowed = np.asarray([[False, True, False, True], [True, False, False, False]])
    p = np.asarray(jax.nn.softmax(logits), np.float64)
    expected = np.zeros(2)
    for place in allowed:
        texts = [text for text in itertools.product(range(4), repeat=3) if any(place[token] for token in text)]
        expected += np.log(sum(np.prod(p[:, list(text)], axis=1) for text in texts))
    np.testing.assert_allclose(jax.jit(bag_log_prob, static_argnums=2)(logits, allowed, 3.0), expected, rtol=1e-5)
    presence = jax.jit(bag_presence, static_argnums=1)(logits, 3.0)
    for token in range(4):
        texts = [text for text in itertools.product(range(4), repeat=3) if token in text]
        np.testing.assert_allclose(
            presence[:, token], sum(np.prod(p[:, list(text)], axis=1) for text in texts), rtol=1e-5
        )


def test_rare_tokens_anywhere_have_the_probability_of_texts_of_their_length() -> None:
    """log(1 − (1 − q)^n) on both sides of the probability at which the formula changes, with a gradient in log q."""
    log_p = lambda nats: bag_log_prob(jnp.stack([-nats, jnp.zeros(())])[None], jnp.asarray([[True, False]]), 7.0)[0]
    log_p_and_slope = jax.jit(jax.value_and_grad(log_p))
    for nats in (11.5, 12.5, 20.0):
        found, slope = log_p_and_slope(nats)
        q = 1 / (1 + np.exp(np.float64(nats)))
        assert float(found) == pytest.approx(np.log(-np.expm1(7 * np.log1p(-q))), abs=1e-3)
        assert float(slope) == pytest.approx(-1.0, abs=0.02)


ALLOWED = [[(3,)], [(3, 5), (4,)], [(1, 2), (3,), (0, 4, 5)]]


@pytest.mark.parametrize("allowed", slow_but(ALLOWED[1:2], ALLOWED))
def test_the_complement_of_a_phrase_is_the_probability_of_its_absence(allowed: list[tuple[int, ...]]) -> None:
    """By enumeration of the tokens at each possible start, and as 1 − p."""
    x_t, t, size = jax.random.normal(jax.random.key(5), (2, 5, 8)), 0.6, len(allowed)
    valid = jnp.asarray([[True] * 5, [True] * 4 + [False]])
    p = np.exp(np.asarray(token_log_probs(EMBEDDING, PROCESS, x_t, t), np.float64))
    absent = np.zeros(2)
    for row, length in enumerate((5, 4)):
        for start in range(length - size + 1):
            others = [
                np.prod([p[row, start + place, token] for place, token in enumerate(tokens)])
                for tokens in itertools.product(range(6), repeat=size)
                if any(token not in allowed[place] for place, token in enumerate(tokens))
            ]
            absent[row] += np.log(sum(others))
    energy = phrase(*allowed)
    np.testing.assert_allclose(-value(Not(energy=energy), x_t, t, valid), absent, rtol=1e-4)
    np.testing.assert_allclose(1 - np.exp(-np.asarray(value(energy, x_t, t, valid))), np.exp(absent), rtol=1e-4)


@pytest.mark.parametrize("allowed", [[(3,)], [(3,), (4,)]])
def test_the_absence_of_a_phrase_has_a_gradient_in_a_text_that_contains_it(allowed: list[tuple[int, ...]]) -> None:
    """Also on an estimate of x_0, where the phrase is certain to the last digit."""
    x_0 = EMBEDDING[TOKENS]
    for t in (0.0, 0.3):
        absence, x = Not(energy=phrase(*allowed)), x_0 * PROCESS.signal(t, jnp.zeros(()))
        before, slope = value_and_slope(absence, x, t)
        contains = np.asarray(value(phrase(*allowed), x_0, 0.0)) < 0.1
        assert np.all(np.isfinite(slope)) and np.all(np.asarray(before)[contains] > 3)
        after, _ = value_and_slope(absence, x - 1e-3 * slope / jnp.linalg.norm(slope), t)
        assert contains.any() and np.all(np.asarray(after)[contains] < np.asarray(before)[contains])


def test_the_absence_of_every_token_is_improbable_and_finite() -> None:
    nats, slope = value_and_slope(Not(energy=phrase(tuple(range(6)))), EMBEDDING[TOKENS], 0.0)
    assert np.all(np.asarray(nats) > 10) and np.all(np.asarray(slope) == 0)


def test_a_phrase_that_does_not_fit_is_absent() -> None:
    np.testing.assert_array_equal(value(Not(energy=phrase((1,), (2,))), EMBEDDING[TOKENS[:, :1]], 0.5), np.zeros(3))
    short = jnp.asarray([[True, False, False, False]] * 3)
    np.testing.assert_array_equal(value(Not(energy=phrase((3,), (4,))), EMBEDDING[TOKENS], 0.0, short), np.zeros(3))
