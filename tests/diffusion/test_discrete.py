"""Discrete diffusion: its O(K) answers are those of dense matrices and of Bayes over every path."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion import discrete
from jtextdiff.diffusion.discrete import Discrete, delta
from jtextdiff.diffusion.schedules import WORD_SCHEDULES

WORDS, STEPS = 3, 5
KINDS = {"absorbing": discrete.absorbing, "uniform": discrete.uniform}


def skewed(schedule: object, num_words: int) -> Discrete:
    """A kernel that is not symmetric: words become others by a law of their own."""
    law = jnp.log(jnp.asarray([0.6, 0.3, 0.1]))
    return Discrete(log_alpha_bar=schedule, log_pi=law, log_guess=law)


@pytest.fixture(params=[*itertools.product(["absorbing", "uniform", "skewed"], WORD_SCHEDULES)], ids="-".join)
def process(request: pytest.FixtureRequest) -> Discrete:
    kind, schedule = request.param
    return (KINDS | {"skewed": skewed})[kind](WORD_SCHEDULES[schedule](STEPS), WORDS)


def matrix(process: Discrete, s: float, t: float) -> np.ndarray:
    """Q from s to t as a dense matrix in float64, row-form: kept · I + (1 − kept) 1πᵀ."""
    log_s, log_t = (np.float64(process.log_alpha_bar(when)) for when in (s, t))
    kept = np.exp(log_t - log_s)
    pi = np.exp(np.asarray(process.log_pi, np.float64))
    return kept * np.eye(len(pi)) + (1 - kept) * pi


def states(process: Discrete) -> int:
    return len(process.log_pi)


def belief(process: Discrete) -> jax.Array:
    """A soft x_0 that is never MASK."""
    p = jnp.asarray([0.5, 0.2, 0.3] + [0.0] * (states(process) - WORDS))
    return jnp.log(p)


@pytest.mark.parametrize("steps", [10, 100])
def test_marginals_are_products_of_matrices(process: Discrete, steps: int) -> None:
    product = np.eye(states(process))
    for i in range(steps):
        product = product @ matrix(process, i / steps, (i + 1) / steps)
        if (i + 1) % (steps // 5) == 0:
            found = jnp.exp(process.marginal(jnp.log(jnp.eye(states(process))), (i + 1) / steps).logits)
            np.testing.assert_allclose(found, product, atol=2e-6)
            np.testing.assert_allclose(jnp.sum(found, axis=-1), 1.0, atol=2e-6)


def test_posteriors_are_bayes_over_every_path(process: Discrete) -> None:
    """q(x_s | x_t, x_0) summed over all paths x_1 … x_T, for a certain x_0 and for a belief."""
    k, grid = states(process), np.arange(STEPS + 1) / STEPS
    one_step = [matrix(process, s, t) for s, t in itertools.pairwise(grid)]
    s, t = 2, 4
    before = functools.reduce(np.matmul, one_step[:s])
    between = functools.reduce(np.matmul, one_step[s:t])
    for y in range(k):
        paths = before[:WORDS] * between[:, y]  # over x_s, for each x_0
        possible = paths.sum(-1) > 0
        exact = paths[possible] / paths[possible].sum(-1, keepdims=True)
        x_t = jnp.full((WORDS,), y)
        certain = process.posterior(delta(jnp.arange(WORDS), k), x_t, grid[s], grid[t])
        np.testing.assert_allclose(jnp.exp(certain.logits)[possible], exact, atol=5e-6)
        p = np.exp(np.asarray(belief(process), np.float64))[:WORDS] * possible
        soft = jax.nn.softmax(process.posterior(belief(process), jnp.asarray(y), grid[s], grid[t]).logits)
        np.testing.assert_allclose(soft, p[possible] @ exact / p.sum(), atol=5e-6)
        twice = jax.nn.softmax(
            process.posterior(
                process.joint(belief(process), jnp.asarray(y), grid[t]), jnp.asarray(y), grid[s], grid[t]
            ).logits
        )
        weighed = p @ paths
        np.testing.assert_allclose(twice, weighed / weighed.sum(), atol=5e-6)


def test_chapman_kolmogorov(process: Discrete) -> None:
    """Σ q(x_t | x_0) q(x_s | x_t, x_0) = q(x_s | x_0)."""
    x_0, k = delta(jnp.arange(WORDS), states(process)), states(process)
    for s, t in ((0.0, 0.3), (0.2, 0.9), (0.5, 1.0)):
        at_t = jnp.exp(process.marginal(x_0, t).logits)
        back = [jax.nn.softmax(process.posterior(x_0, jnp.full((WORDS,), y), s, t).logits) for y in range(k)]
        mixed = sum(at_t[:, y, None] * jnp.where(at_t[:, y, None] > 0, back[y], 0.0) for y in range(k))
        np.testing.assert_allclose(mixed, jnp.exp(process.marginal(x_0, s).logits), atol=5e-6)


def test_the_published_posterior() -> None:
    """Uniform, K = 3, T = 4, cosine: q(x_2 | x_3 = 1, x_0 = 0)."""
    process = discrete.uniform(WORD_SCHEDULES["cosine_d3pm"](4), 3)
    found = jnp.exp(process.posterior(delta(jnp.asarray(0), 3), jnp.asarray(1), 0.5, 0.75).logits)
    np.testing.assert_allclose(found, [0.59409452, 0.33248958, 0.07341591], atol=2e-6)
    bars = jnp.exp(jnp.stack([process.log_alpha_bar(i / 4) for i in (1, 2, 3, 4)]))
    np.testing.assert_allclose(bars, [0.92033264, 0.70274006, 0.37983168, 0.00037983], rtol=2e-5)


def test_masked_words_are_revealed_as_the_posterior_says(process: Discrete) -> None:
    if states(process) == WORDS:
        pytest.skip("no MASK")
    for s, t in ((0.0, 0.3), (0.2, 0.9), (0.5, 1.0)):
        posterior = jnp.exp(process.posterior(belief(process), jnp.asarray(WORDS), s, t).logits)
        share = discrete.revealed(process.log_alpha_bar, s, t)
        np.testing.assert_allclose(posterior[:WORDS], share * jnp.exp(belief(process))[:WORDS], atol=2e-6)


@pytest.mark.parametrize("name", WORD_SCHEDULES)
def test_the_rate_is_the_limit_of_what_is_revealed(name: str) -> None:
    schedule = WORD_SCHEDULES[name](1000)
    for t in (0.1, 0.5, 0.9):
        rate = discrete.reveal_rate(schedule, jnp.asarray(t))
        step = 1e-4
        np.testing.assert_allclose(discrete.revealed(schedule, t - step, t) / step, rate, rtol=0.02)
    assert jnp.isfinite(discrete.reveal_rate(schedule, jnp.ones(())))


@pytest.mark.parametrize("kind", KINDS)
def test_the_prior_keeps_the_share_that_the_schedule_leaves(kind: str) -> None:
    process = KINDS[kind](WORD_SCHEDULES["log_linear"](STEPS), WORDS)
    prior = process.prior((1,))
    np.testing.assert_allclose(jnp.sum(jnp.exp(prior.logits)), 1.0, atol=1e-6)
    paid = process.marginal(delta(jnp.asarray([0]), states(process)), 1.0).kl(prior)[0]
    if kind == "absorbing":
        np.testing.assert_allclose(paid, 0.001 * np.log(WORDS), rtol=1e-3)
    assert 0 <= paid < 0.01


def test_certain_words_are_noised_by_the_marginal(process: Discrete) -> None:
    """χ² of what each word becomes, with a time a text."""
    words, num = np.arange(WORDS), 4_000
    x_0, t = jnp.tile(jnp.asarray(words), (num, 1)), jnp.full(num, 0.4)
    x_t = np.asarray(process.noised(jax.random.key(4), x_0, t))
    law = np.asarray(jnp.exp(process.marginal(delta(jnp.asarray(words), states(process)), 0.4).logits), np.float64)
    for word in words:
        counts, expected = np.bincount(x_t[:, word], minlength=states(process)), num * law[word]
        assert np.all(counts[expected < 1e-6] == 0)
        likely = expected >= 1e-6
        assert np.sum((counts - expected)[likely] ** 2 / expected[likely]) < 21.1  # 3 degrees of freedom, p = 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_a_schedule_that_leaves_words_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="leaves 0.5 of the words"):
        KINDS[kind](lambda t: -np.log(2) * t, WORDS)
