"""Discrete diffusion: the O(K) formulas equal dense matrices and Bayes over all paths."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.cases import slow_but

from jtextdiff.diffusion import discrete, masking
from jtextdiff.diffusion.discrete import Discrete, delta
from jtextdiff.diffusion.schedules import TOKEN_SCHEDULES

NUM_TOKENS, STEPS = 3, 5
KINDS = {"absorbing": discrete.absorbing, "uniform": discrete.uniform}


def skewed(schedule: object, num_words: int) -> Discrete:
    """A kernel with a non-uniform stationary distribution."""
    log_pi = jnp.log(jnp.asarray([0.6, 0.3, 0.1]))
    return Discrete(log_alpha_bar=schedule, log_pi=log_pi, log_guess=log_pi)


PROCESSES = [*itertools.product(["absorbing", "uniform", "skewed"], TOKEN_SCHEDULES)]
FAST_PROCESSES = [(kind, name) for kind, name in PROCESSES if kind == "absorbing" or name == "cosine_d3pm"]


@pytest.fixture(params=slow_but(FAST_PROCESSES, PROCESSES), ids=lambda case: "-".join(case))
def process(request: pytest.FixtureRequest) -> Discrete:
    kind, schedule = request.param
    return (KINDS | {"skewed": skewed})[kind](TOKEN_SCHEDULES[schedule](STEPS), NUM_TOKENS)


def matrix(process: Discrete, s: float, t: float) -> np.ndarray:
    """Q from s to t as a dense matrix in float64, in row form: α I + (1 − α) 1πᵀ."""
    log_s, log_t = (np.float64(process.log_alpha_bar(time)) for time in (s, t))
    alpha = np.exp(log_t - log_s)
    pi = np.exp(np.asarray(process.log_pi, np.float64))
    return alpha * np.eye(len(pi)) + (1 - alpha) * pi


def states(process: Discrete) -> int:
    return len(process.log_pi)


def prediction(process: Discrete) -> jax.Array:
    """log p(x_0) of a prediction that is never MASK."""
    p = jnp.asarray([0.5, 0.2, 0.3] + [0.0] * (states(process) - NUM_TOKENS))
    return jnp.log(p)


@pytest.mark.parametrize("steps", [10, 100])
def test_marginals_are_products_of_matrices(process: Discrete, steps: int) -> None:
    product = np.eye(states(process))
    for i in range(steps):
        product = product @ matrix(process, i / steps, (i + 1) / steps)
        if (i + 1) % (steps // 5) == 0:
            result = jnp.exp(process.marginal(jnp.log(jnp.eye(states(process))), (i + 1) / steps).logits)
            np.testing.assert_allclose(result, product, atol=2e-6)
            np.testing.assert_allclose(jnp.sum(result, axis=-1), 1.0, atol=2e-6)


def test_posteriors_are_bayes_over_all_paths(process: Discrete) -> None:
    """q(x_s | x_t, x_0) summed over all paths x_1 … x_T, for a known x_0 and for a prediction."""
    k, grid = states(process), np.arange(STEPS + 1) / STEPS
    one_step = [matrix(process, s, t) for s, t in itertools.pairwise(grid)]
    s, t = 2, 4
    before = functools.reduce(np.matmul, one_step[:s])
    between = functools.reduce(np.matmul, one_step[s:t])
    for y in range(k):
        paths = before[:NUM_TOKENS] * between[:, y]  # over x_s, for each x_0
        possible = paths.sum(-1) > 0
        exact = paths[possible] / paths[possible].sum(-1, keepdims=True)
        x_t = jnp.full((NUM_TOKENS,), y)
        known = process.posterior(delta(jnp.arange(NUM_TOKENS), k), x_t, grid[s], grid[t])
        np.testing.assert_allclose(jnp.exp(known.logits)[possible], exact, atol=5e-6)
        p = np.exp(np.asarray(prediction(process), np.float64))[:NUM_TOKENS] * possible
        mixed = jax.nn.softmax(process.posterior(prediction(process), jnp.asarray(y), grid[s], grid[t]).logits)
        np.testing.assert_allclose(mixed, p[possible] @ exact / p.sum(), atol=5e-6)
        d3pm = jax.nn.softmax(
            process.posterior(
                process.joint(prediction(process), jnp.asarray(y), grid[t]), jnp.asarray(y), grid[s], grid[t]
            ).logits
        )
        weighted = p @ paths
        np.testing.assert_allclose(d3pm, weighted / weighted.sum(), atol=5e-6)


def test_chapman_kolmogorov(process: Discrete) -> None:
    """Σ q(x_t | x_0) q(x_s | x_t, x_0) = q(x_s | x_0)."""
    x_0, k = delta(jnp.arange(NUM_TOKENS), states(process)), states(process)
    for s, t in ((0.0, 0.3), (0.2, 0.9), (0.5, 1.0)):
        at_t = jnp.exp(process.marginal(x_0, t).logits)
        back = [jax.nn.softmax(process.posterior(x_0, jnp.full((NUM_TOKENS,), y), s, t).logits) for y in range(k)]
        mixed = sum(at_t[:, y, None] * jnp.where(at_t[:, y, None] > 0, back[y], 0.0) for y in range(k))
        np.testing.assert_allclose(mixed, jnp.exp(process.marginal(x_0, s).logits), atol=5e-6)


def test_the_published_posterior() -> None:
    """Uniform, K = 3, T = 4, cosine: q(x_2 | x_3 = 1, x_0 = 0)."""
    process = discrete.uniform(TOKEN_SCHEDULES["cosine_d3pm"](4), 3)
    result = jnp.exp(process.posterior(delta(jnp.asarray(0), 3), jnp.asarray(1), 0.5, 0.75).logits)
    np.testing.assert_allclose(result, [0.59409452, 0.33248958, 0.07341591], atol=2e-6)
    bars = jnp.exp(jnp.stack([process.log_alpha_bar(i / 4) for i in (1, 2, 3, 4)]))
    np.testing.assert_allclose(bars, [0.92033264, 0.70274006, 0.37983168, 0.00037983], rtol=2e-5)


def test_the_posterior_reveals_masked_tokens_with_the_reveal_probability(process: Discrete) -> None:
    if states(process) == NUM_TOKENS:
        pytest.skip("no MASK")
    for s, t in ((0.0, 0.3), (0.2, 0.9), (0.5, 1.0)):
        posterior = jnp.exp(process.posterior(prediction(process), jnp.asarray(NUM_TOKENS), s, t).logits)
        p_reveal = masking.reveal_probability(process.log_alpha_bar, s, t)
        np.testing.assert_allclose(
            posterior[:NUM_TOKENS], p_reveal * jnp.exp(prediction(process))[:NUM_TOKENS], atol=2e-6
        )


@pytest.mark.parametrize("kind", KINDS)
def test_the_prior_includes_tokens_that_survive_the_schedule(kind: str) -> None:
    process = KINDS[kind](TOKEN_SCHEDULES["log_linear"](STEPS), NUM_TOKENS)
    prior = process.prior((1,))
    np.testing.assert_allclose(jnp.sum(jnp.exp(prior.logits)), 1.0, atol=1e-6)
    kl = process.marginal(delta(jnp.asarray([0]), states(process)), 1.0).kl(prior)[0]
    if kind == "absorbing":
        np.testing.assert_allclose(kl, 0.001 * np.log(NUM_TOKENS), rtol=1e-3)
    assert 0 <= kl < 0.01


def test_noised_tokens_have_the_marginal_distribution(process: Discrete) -> None:
    """χ² for each token, with one time per text."""
    tokens, num = np.arange(NUM_TOKENS), 4_000
    x_0, t = jnp.tile(jnp.asarray(tokens), (num, 1)), jnp.full(num, 0.4)
    x_t = np.asarray(process.noised(jax.random.key(4), x_0, t))
    p = np.asarray(jnp.exp(process.marginal(delta(jnp.asarray(tokens), states(process)), 0.4).logits), np.float64)
    for token in tokens:
        counts, expected = np.bincount(x_t[:, token], minlength=states(process)), num * p[token]
        assert np.all(counts[expected < 1e-6] == 0)
        likely = expected >= 1e-6
        assert np.sum((counts - expected)[likely] ** 2 / expected[likely]) < 21.1  # 3 degrees of freedom, p = 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_a_schedule_with_too_much_final_signal_raises(kind: str) -> None:
    with pytest.raises(ValueError, match="leaves 0.5 of the tokens"):
        KINDS[kind](lambda t: -np.log(2) * t, NUM_TOKENS)
