"""Remasking: as many tokens are masked as in the diffusion, fixed ones never, and samples are those of theory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion.schedules import TOKEN_SCHEDULES
from jtextdiff.sampling.loop import unroll
from jtextdiff.sampling.masked_samplers import unmasking_times
from jtextdiff.sampling.masked_state import MaskedState
from jtextdiff.sampling.remasking import REMASKING, remasking, remasking_probability

JOINT = np.asarray([[0.45, 0.05], [0.05, 0.45]])
"""Of two tokens that nearly always agree; both values are equally frequent."""

MASK = 2
SCHEDULE = TOKEN_SCHEDULES["linear"](1000)


def predict(x_t: jax.Array, t: jax.Array, hidden: None) -> tuple[jax.Array, None]:
    """The exact log p of each of two tokens given the other, which may be masked."""
    given_other = jnp.asarray(np.concatenate([JOINT / 0.5, [[0.5, 0.5]]]), float)
    return jnp.log(given_other[x_t[:, ::-1]]), hidden


@functools.cache
def path_of(strategy: str, steps: int, rate: float = 0.3, rows: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Tokens at the end, and which were masked after each step."""
    start = MaskedState(jnp.full((rows, 2), MASK), jnp.ones((rows, 2), bool), jnp.zeros(rows, int))
    step = remasking(SCHEDULE, predict, start, strategy=strategy, rate=rate)
    keys = jax.random.split(jax.random.key(0), rows)
    run = jax.jit(lambda keys: unroll(step, start, keys, unmasking_times(steps, "uniform"), record=lambda s: s.masked))
    end, masked = run(keys)
    return np.asarray(end.tokens), np.asarray(masked)


@pytest.mark.parametrize("strategy", REMASKING)
def test_as_many_tokens_are_masked_as_in_the_diffusion(strategy: str) -> None:
    tokens, masked = path_of(strategy, 10)
    share = masked.mean(axis=(1, 2))
    alpha_bar = np.exp([float(SCHEDULE(t)) for t in np.linspace(1, 0, 11)])
    np.testing.assert_allclose(share, 1 - alpha_bar, atol=5 / np.sqrt(masked[0].size))
    assert MASK not in tokens
    again = masked[1:] & ~masked[:-1]
    assert again.any()  # some tokens are masked again


@pytest.mark.parametrize(("strategy", "rate"), [("cap", 0.05), ("rescale", 0.05)])
def test_many_steps_with_exact_predictions_lead_to_the_exact_distribution(strategy: str, rate: float) -> None:
    tokens, _ = path_of(strategy, 150, rate, rows=8_000)
    counts = np.bincount(tokens[:, 0] * 2 + tokens[:, 1], minlength=4)
    assert np.abs(counts / len(tokens) - JOINT.ravel()).sum() < 0.04


def test_renoising_is_biased_even_with_exact_predictions() -> None:
    """Both tokens are drawn at once, independently, and some pairs stay: they agree less often than in the text."""
    tokens, _ = path_of("renoise", 60)
    agree = np.mean(tokens[:, 0] == tokens[:, 1])
    assert 0.8 < agree < 0.9 - 4 * 0.0021  # standard errors of 20,000 pairs
    assert np.mean(tokens[:, 0]) == pytest.approx(0.5, abs=0.02)  # each token alone is right


@pytest.mark.parametrize("strategy", REMASKING)
def test_probabilities_stay_in_range_at_both_ends(strategy: str) -> None:
    grid = np.linspace(0, 1, 21)
    for alpha_t, alpha_s in zip(grid[:-1], grid[1:], strict=True):
        sigma = float(remasking_probability(strategy, 0.7, jnp.asarray(alpha_t), jnp.asarray(alpha_s)))
        assert 0 <= sigma <= 1
        assert -1e-6 <= (alpha_s - (1 - sigma) * alpha_t) / (1 - alpha_t) <= 1 + 1e-6
    assert float(remasking_probability(strategy, 0.7, jnp.asarray(0.95), jnp.asarray(1.0))) == 0  # the last step


def test_fixed_tokens_are_never_masked() -> None:
    rows = 500
    masked = jnp.broadcast_to(jnp.asarray([False, True]), (rows, 2))
    start = MaskedState(jnp.where(masked, MASK, 1), masked, jnp.zeros(rows, int))
    step = remasking(SCHEDULE, predict, start, strategy="renoise", rate=0.0)
    keys = jax.random.split(jax.random.key(0), rows)
    end, path = unroll(step, start, keys, unmasking_times(20, "uniform"), record=lambda state: state.tokens)
    assert np.all(path[:, :, 0] == 1)
    assert np.mean(end.tokens[:, 1]) == pytest.approx(0.9, abs=0.07)
