"""Unmasking: rare words come as often as they should, and laws are cut where they are said to be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion.distributions import narrowed
from jtextdiff.diffusion.randomness import fold
from jtextdiff.diffusion.schedules import WORD_SCHEDULES
from jtextdiff.sampling import masked_samplers as unmasking
from jtextdiff.sampling.masked_samplers import Masking, Unmasking

STEPS, WORDS = 8192, 2000


def test_one_race_for_mask_and_words_would_lose_a_third_of_them() -> None:
    """The largest Gumbel in float32 has 23 bits: counted out, it reveals too little, and more so the rarer the words.

    Zipf's law of 2,000 words, the first of 8,192 steps: MASK weighs 1 − r, word v weighs r p_v.
    """
    bits = 2.0**-23
    largest = float(-np.log(-np.log1p(-bits)))
    drawn = jax.random.gumbel(jax.random.key(0), (1 << 22,))
    assert 15.0 < float(drawn.max()) <= largest + 1e-3  # this is the race that jax runs
    r, p = 1 / STEPS, 1 / np.arange(1, WORDS + 1)
    p = p / p.sum()
    uniform = 1 - bits * np.arange(
        1, 200_000
    )  # the values from which a word can win at all, each of probability `bits`
    gumbel = -np.log(-np.log(uniform))

    def revealed(log_p: float) -> float:
        """P(a word is drawn) = Σ P(its Gumbel) P(MASK's is smaller by enough): two words seldom meet."""
        return float(np.sum(bits * np.exp(-np.exp(-(gumbel + log_p - np.log1p(-r))))))

    assert sum(revealed(np.log(r * each)) for each in p) / r < 0.7
    assert revealed(np.log(r)) / r > 0.99  # of one word that is not rare, nothing is lost


def test_two_stages_reveal_what_the_posterior_says() -> None:
    """The same law by our step: as many words as Bernoulli(r), rare ones among them at their frequency."""
    p = 1 / np.arange(1, WORDS + 1)
    p = p / p.sum()
    rows, length = 64, 4096
    predict = lambda x_t, t: jnp.broadcast_to(jnp.log(jnp.asarray(p[:64] / p[:64].sum())), (*x_t.shape, 64))
    grid = (jnp.asarray([1.0, 1.0 - 1 / STEPS]), jnp.asarray([1.0 - 1 / STEPS, 0.0]))
    start = Masking(jnp.full((rows, length), 99), jnp.ones((rows, length), bool), jnp.zeros(rows, int))

    @jax.jit
    def first_step(keys: jax.Array) -> jax.Array:
        """The words that are revealed in the first of the two steps, 99 for the others."""
        schedule = WORD_SCHEDULES["reciprocal"](1000)
        step, ticks = unmasking.ancestral(schedule, predict, grid, fold(keys, 1), (rows, length))
        when = unmasking.reveal_ticks(schedule, grid, fold(keys, 1), (rows, length))
        return jnp.where(when == 0, step(keys, start, ticks[0]).tokens, 99)

    seen, count = np.zeros(64), 0
    for seed in range(8):
        tokens = np.asarray(first_step(jax.random.split(jax.random.key(seed), rows)))
        count += int((tokens != 99).sum())
        seen += np.bincount(tokens[tokens != 99], minlength=64)
    expected = 8 * rows * length / STEPS
    assert abs(count - expected) <= 5 * np.sqrt(expected)
    rare = p[32:64].sum() / p[:64].sum()
    assert abs(seen[32:].sum() - count * rare) <= 5 * np.sqrt(count * rare)


@pytest.mark.parametrize("grid", ["uniform", "cosine"])
def test_times_lead_from_one_to_zero(grid: str) -> None:
    t, s = unmasking.times(16, grid)
    np.testing.assert_allclose(t[1:], s[:-1], atol=1e-6)
    assert t[0] == pytest.approx(1.0) and s[-1] == 0 and np.all(np.asarray(t) > np.asarray(s))
    if grid == "cosine":  # masked after step i of 8: cos(π/2 · i/8)
        left = unmasking.times(8, grid)[1]
        np.testing.assert_allclose(left, [0.981, 0.924, 0.831, 0.707, 0.556, 0.383, 0.195, 0.0], atol=6e-4)


def test_a_law_is_cut_to_its_likeliest_words() -> None:
    law = jnp.log(jnp.asarray([[0.1, 0.4, 0.3, 0.2]]))
    np.testing.assert_allclose(jnp.exp(narrowed(law, 1.0, 1.0)), jnp.exp(law), atol=1e-6)
    np.testing.assert_allclose(jnp.exp(narrowed(law, 1.0, 0.6)), [[0, 4 / 7, 3 / 7, 0]], atol=1e-6)
    np.testing.assert_allclose(jnp.exp(narrowed(law, 1.0, 1e-9)), [[0, 1, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(jnp.exp(narrowed(law, 0.5, 1.0)), jnp.exp(2 * law) / 0.3, atol=1e-6)


@pytest.mark.parametrize(
    "bad", [{"name": "ddim"}, {"grid": "log"}, {"steps": 0}, {"temperature": 0.0}, {"top_p": 0.0}, {"entropy": -1.0}]
)
def test_impossible_settings_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Unmasking(**bad)
