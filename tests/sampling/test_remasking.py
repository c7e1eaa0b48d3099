"""Remasking: as many tokens are masked as in the diffusion, fixed ones never, and samples are those of theory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.cases import slow_but

from jtextdiff.diffusion.schedules import TOKEN_SCHEDULES
from jtextdiff.sampling.loop import unroll
from jtextdiff.sampling.masked_samplers import Unmasking, nll_in_order, unmasking_times
from jtextdiff.sampling.masked_state import MaskedState
from jtextdiff.sampling.remasking import REMASKING, corrected, loop_times, remasking, remasking_probability

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
    start = MaskedState.start(jnp.full((rows, 2), MASK), jnp.ones((rows, 2), bool))
    step = remasking(SCHEDULE, predict, start, strategy=strategy, rate=rate)
    keys = jax.random.split(jax.random.key(0), rows)
    times = loop_times(steps) if strategy == "loop" else unmasking_times(steps, "uniform")
    run = jax.jit(lambda keys: unroll(step, start, keys, times, record=lambda state: state.masked))
    end, masked = run(keys)
    return np.asarray(end.tokens), np.asarray(masked)


@pytest.mark.parametrize("strategy", REMASKING)
def test_as_many_tokens_are_masked_as_in_the_diffusion(strategy: str) -> None:
    tokens, masked = path_of(strategy, 10)
    share = masked.mean(axis=(1, 2))
    times = np.append(loop_times(10)[0], 0) if strategy == "loop" else np.linspace(1, 0, 11)
    alpha_bar = np.exp([float(SCHEDULE(t)) for t in times])
    np.testing.assert_allclose(share, 1 - alpha_bar, atol=5 / np.sqrt(masked[0].size))
    assert MASK not in tokens
    again = masked[1:] & ~masked[:-1]
    assert again.any()  # some tokens are masked again


@pytest.mark.parametrize("strategy", slow_but(["cap"], ["cap", "rescale"]))
def test_many_steps_with_exact_predictions_lead_to_the_exact_distribution(strategy: str) -> None:
    tokens, _ = path_of(strategy, 150, 0.05, rows=8_000)
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


def test_confidence_masks_by_a_softmax_of_the_negative_probability() -> None:
    """Two tokens were drawn with p = .9 and p = .1, a third is masked."""
    rows = 5_000
    start = MaskedState.start(jnp.full((rows, 3), MASK), jnp.ones((rows, 3), bool))
    masked = start.masked.at[:, :2].set(False)
    log_p = jnp.broadcast_to(jnp.log(jnp.asarray([0.9, 0.1, 1.0])), masked.shape)
    state = start._replace(tokens=jnp.where(masked, MASK, 0), masked=masked, log_p=log_p)
    uniform = lambda x_t, t, hidden: (jnp.full((*x_t.shape, 2), -jnp.log(2)), hidden)
    step = remasking(SCHEDULE, uniform, start, strategy="confidence", rate=0.0)
    times, keys = (jnp.asarray(0.3), jnp.asarray(0.25)), jax.random.split(jax.random.key(0), rows)
    share = np.mean(jax.jit(step)(keys, state, times).masked, axis=0)
    assert share[1] / (share[0] + share[1]) == pytest.approx(1 / (1 + np.exp(0.1 - 0.9)), abs=0.03)


def test_fixed_tokens_are_never_masked() -> None:
    rows = 500
    masked = jnp.broadcast_to(jnp.asarray([False, True]), (rows, 2))
    start = MaskedState.start(jnp.where(masked, MASK, 1), masked)
    step = remasking(SCHEDULE, predict, start, strategy="renoise", rate=0.0)
    keys = jax.random.split(jax.random.key(0), rows)
    end, path = unroll(step, start, keys, unmasking_times(20, "uniform"), record=lambda state: state.tokens)
    assert np.all(path[:, :, 0] == 1)
    assert np.mean(end.tokens[:, 1]) == pytest.approx(0.9, abs=0.07)


def corrected_pairs(start: MaskedState, choice: str, *, count: int = 1, calls: int = 13) -> MaskedState:
    """Drafts drawn in one call, both tokens at once, and corrected in the calls that are left."""
    sampler = Unmasking(steps=calls, entropy=99.0, correct=choice, correct_tokens=count)
    step, grid = sampler.step_and_grid(SCHEDULE, predict, jax.random.key(1), start)
    keys = jax.random.split(jax.random.key(0), len(start.tokens))
    return jax.jit(lambda keys: unroll(step, start, keys, grid)[0])(keys)


def all_masked(rows: int) -> MaskedState:
    return MaskedState.start(jnp.full((rows, 2), MASK), jnp.ones((rows, 2), bool))


def test_random_corrections_lead_to_the_exact_distribution_and_stay_there() -> None:
    """Gibbs sampling: one of two tokens is drawn again given the other, until they agree as often as in the text."""
    draft = corrected_pairs(all_masked(8_000), "off")
    assert np.mean(np.asarray(draft.tokens[:, 0] == draft.tokens[:, 1])) == pytest.approx(0.5, abs=0.03)
    end = corrected_pairs(all_masked(8_000), "random")
    counts = np.bincount(np.asarray(end.tokens) @ [2, 1], minlength=4)
    assert np.abs(counts / 8_000 - JOINT.ravel()).sum() < 0.04
    np.testing.assert_array_equal(end.calls, 13)
    assert not end.masked.any()


@pytest.mark.parametrize(("choice", "share"), [("doubtful", 9 / (9 + 1 / 9)), ("random", 0.5)])
def test_doubtful_tokens_are_masked_by_the_odds_against_them(choice: str, share: float) -> None:
    """Of tokens drawn with p = .9 and p = .1 the odds against are 1/9 and 9."""
    start = all_masked(20_000)
    log_p = jnp.broadcast_to(jnp.log(jnp.asarray([0.9, 0.1])), start.tokens.shape)
    finished = start._replace(tokens=jnp.zeros_like(start.tokens), masked=jnp.zeros_like(start.masked), log_p=log_p)
    mask_only = corrected(lambda keys, state, point: state, start, choice=choice, count=1)
    state = mask_only(jax.random.split(jax.random.key(0), 20_000), finished, jnp.asarray(1))
    assert np.all(state.masked.sum(axis=1) == 1) and np.all((np.asarray(state.tokens) == MASK) == state.masked)
    assert np.mean(np.asarray(state.masked[:, 1])) == pytest.approx(share, abs=0.015)


@pytest.mark.parametrize("choice", ["random", "doubtful"])
def test_corrections_of_several_tokens_end_with_none_masked_and_leave_fixed_ones(choice: str) -> None:
    masked = jnp.broadcast_to(jnp.asarray([False, True]), (500, 2))
    fixed = MaskedState.start(jnp.where(masked, MASK, 1), masked)
    assert np.all(corrected_pairs(fixed, choice).tokens[:, 0] == 1)
    end = corrected_pairs(all_masked(500), choice, count=2)
    assert not end.masked.any() and MASK not in np.asarray(end.tokens)


@pytest.mark.parametrize("name", ["ancestral", "first_hitting", "confidence", "ordered"])
def test_every_unmasking_sampler_can_be_corrected(name: str) -> None:
    sampler = Unmasking(name=name, steps=12, correct="random", correct_tokens=2)
    step, grid = sampler.step_and_grid(SCHEDULE, predict, jax.random.key(1), all_masked(4_000))
    keys = jax.random.split(jax.random.key(0), 4_000)
    end = jax.jit(lambda keys: unroll(step, all_masked(4_000), keys, grid)[0])(keys)
    assert not end.masked.any()
    np.testing.assert_array_equal(end.calls, 12)


@pytest.mark.parametrize("order", ["margin", "entropy", "probability", "left_to_right"])
@pytest.mark.parametrize("steps", [1, 2])
def test_the_likelihood_in_order_is_how_often_the_sampler_draws_a_text(order: str, steps: int) -> None:
    """By enumeration: in two steps the exact distribution, in one step that of independent tokens."""
    texts = jnp.asarray([[0, 0], [0, 1], [1, 0], [1, 1]])
    sampler = Unmasking(name="ordered", order=order, steps=steps)
    p = np.exp(-np.asarray(nll_in_order(sampler, SCHEDULE, predict, all_masked(4), texts)))
    np.testing.assert_allclose(p, JOINT.ravel() if steps == 2 else 0.25, rtol=1e-5)
