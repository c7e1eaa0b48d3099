"""A phrase is where it is, and the words are told by Bayes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.schedules import SCHEDULES
from jtextdiff.sampling.energies import Phrase, word_log_p

PROCESS = Gaussian(log_alpha_bar=SCHEDULES["cosine"](1000))
TABLE = 3.0 * jax.random.normal(jax.random.key(0), (6, 8)) / 8**0.5
WORDS = jnp.asarray([[0, 3, 4, 1], [3, 5, 4, 2], [2, 2, 3, 4]])


def phrase(*allowed: tuple[int, ...]) -> Phrase:
    mask = jnp.asarray([[word in each for word in range(6)] for each in allowed])
    return Phrase(table=TABLE, allowed=mask, process=PROCESS)


def test_words_are_told_by_bayes() -> None:
    x_t, t = jax.random.normal(jax.random.key(1), (2, 3, 8)), 0.6
    law = PROCESS.marginal(TABLE[None, None], t)
    density = np.sum(np.asarray(law.log_prob(x_t[:, :, None]), np.float64), axis=-1)
    expected = density - np.log(np.sum(np.exp(density - density.max(-1, keepdims=True)), -1, keepdims=True))
    expected -= density.max(-1, keepdims=True)
    np.testing.assert_allclose(word_log_p(TABLE, PROCESS, x_t, t), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("allowed", "there"),
    [([(3,)], [True, True, True]), ([(3,), (4,)], [True, False, True]), ([(3, 5), (4,)], [True, True, True])],
)
def test_of_clean_words_it_is_there_or_not(allowed: list, there: list[bool]) -> None:
    energy = np.asarray(phrase(*allowed)(TABLE[WORDS], 0.0))
    np.testing.assert_array_equal(energy < 0.1, there)
    assert np.all(np.isfinite(energy))


def test_of_noisy_ones_it_is_the_chance_that_it_is_somewhere() -> None:
    """By enumeration of one word's places; and a place outside the text is none."""
    x_t, t = jax.random.normal(jax.random.key(2), (1, 4, 8)), 0.7
    p = np.exp(np.asarray(word_log_p(TABLE, PROCESS, x_t, t)[0], np.float64))
    for valid, length in ((None, 4), (jnp.asarray([[True, True, True, False]]), 3)):
        found = float(np.exp(-phrase((3,))(x_t, t, valid)[0]))
        chance = 0.0
        for here in itertools.product([False, True], repeat=length):
            chance += any(here) * np.prod([p[i, 3] if is_here else 1 - p[i, 3] for i, is_here in enumerate(here)])
        assert found == pytest.approx(chance, rel=1e-4)


def test_its_gradient_points_to_the_word() -> None:
    x_t = TABLE[WORDS[1]][None] * 0.5
    energy = phrase((1,))
    slope = jax.grad(lambda x: energy(x, 0.5).sum())(x_t)
    assert np.all(np.isfinite(slope)) and float(energy(x_t - 0.3 * slope, 0.5)[0]) < float(energy(x_t, 0.5)[0])


def test_it_is_followed_from_afar() -> None:
    """Where it is nowhere to be seen, there is still a way downhill, at any noise."""
    for t in (0.02, 0.3, 0.9):
        x_t = TABLE[jnp.asarray([[3, 3, 3, 3]])] * PROCESS.signal(t, jnp.zeros(()))
        energy, slope = jax.value_and_grad(lambda x, t=t: phrase((5,), (1,))(x, t).sum())(x_t)
        assert np.all(np.isfinite(slope)) and float(jnp.abs(slope).max()) > 1e-3
        step = 1e-3 * slope / jnp.linalg.norm(slope)
        assert float(phrase((5,), (1,))(x_t - step, t)[0]) < float(energy)


def test_texts_too_short_for_it_do_not_have_it() -> None:
    """Whether the batch is too narrow, or a text of it too short, its words being what they may."""
    assert np.all(np.asarray(phrase((1,), (2,))(TABLE[WORDS[:, :1]], 0.5)) > 10)
    one = jnp.asarray([[True, False, False, False]] * 3)
    energy, slope = jax.value_and_grad(lambda x: phrase((3,), (4,))(x, 0.0, one).sum())(
        TABLE[jnp.asarray([[3, 4, 1, 1]] * 3)]
    )
    assert 30 < float(energy) < 100 and np.all(np.asarray(slope) == 0)
