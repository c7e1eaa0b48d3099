"""Unmasking: rare tokens at their frequency, the order in which tokens are revealed, and the times of its grids."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.cases import slow_but

from jtextdiff.diffusion.distributions import UNDEFINED
from jtextdiff.diffusion.randomness import fold_in
from jtextdiff.diffusion.schedules import TOKEN_SCHEDULES
from jtextdiff.sampling import masked_samplers as unmasking
from jtextdiff.sampling.loop import unroll
from jtextdiff.sampling.masked_samplers import Unmasking
from jtextdiff.sampling.masked_state import MaskedState, sample_tokens

STEPS, NUM_TOKENS = 8192, 2000


@pytest.mark.slow
def test_a_single_gumbel_race_would_lose_a_third_of_the_tokens() -> None:
    """The largest Gumbel in float32 has 23 bits: by enumeration, a race reveals too few tokens, of rare ones fewer.

    Zipf's distribution over 2,000 tokens, the first of 8,192 steps: MASK has probability 1 − r, token v has r p_v.
    """
    bits = 2.0**-23
    largest = float(-np.log(-np.log1p(-bits)))
    samples = jax.random.gumbel(jax.random.key(0), (1 << 22,))
    assert 15.0 < float(samples.max()) <= largest + 1e-3  # so jax runs exactly this race
    r, p = 1 / STEPS, 1 / np.arange(1, NUM_TOKENS + 1)
    p = p / p.sum()
    uniform = 1 - bits * np.arange(
        1, 200_000
    )  # the values with which a token can win at all, each of probability `bits`
    gumbel = -np.log(-np.log(uniform))

    def revealed(log_p: float) -> float:
        """P(a token wins) = Σ P(its Gumbel) P(MASK's is smaller by enough); two tokens rarely compete."""
        return float(np.sum(bits * np.exp(-np.exp(-(gumbel + log_p - np.log1p(-r))))))

    assert sum(revealed(np.log(r * p_v)) for p_v in p) / r < 0.7
    assert revealed(np.log(r)) / r > 0.99  # a token that is not rare loses nothing


def test_two_stages_reveal_tokens_at_their_frequency() -> None:
    """The same distribution by two stages: Bernoulli(r) tokens, rare ones among them at their frequency."""
    p = 1 / np.arange(1, NUM_TOKENS + 1)
    p = p / p.sum()
    rows, length = 64, 4096
    log_p = jnp.log(jnp.asarray(p[:64] / p[:64].sum()))
    predict = lambda x_t, t, hidden: (jnp.broadcast_to(log_p, (*x_t.shape, 64)), hidden)
    grid = (jnp.asarray([1.0, 1.0 - 1 / STEPS]), jnp.asarray([1.0 - 1 / STEPS, 0.0]))
    start = MaskedState.start(jnp.full((rows, length), 99), jnp.ones((rows, length), bool))

    @jax.jit
    def first_step(keys: jax.Array) -> jax.Array:
        """The tokens revealed in the first of the two steps, 99 for the others."""
        schedule = TOKEN_SCHEDULES["reciprocal"](1000)
        step = unmasking.ancestral(schedule, predict, grid, fold_in(keys, 1), (rows, length))
        reveal_at = unmasking.reveal_steps(schedule, grid, fold_in(keys, 1), (rows, length))
        return jnp.where(reveal_at == 0, step(keys, start, jnp.asarray(2)).tokens, 99)

    counts, total = np.zeros(64), 0
    for seed in range(8):
        tokens = np.asarray(first_step(jax.random.split(jax.random.key(seed), rows)))
        total += int((tokens != 99).sum())
        counts += np.bincount(tokens[tokens != 99], minlength=64)
    expected = 8 * rows * length / STEPS
    assert abs(total - expected) <= 5 * np.sqrt(expected)
    rare = p[32:64].sum() / p[:64].sum()
    assert abs(counts[32:].sum() - total * rare) <= 5 * np.sqrt(total * rare)


@pytest.mark.parametrize("grid", ["uniform", "cosine"])
def test_times_lead_from_one_to_zero(grid: str) -> None:
    t, s = unmasking.unmasking_times(16, grid)
    np.testing.assert_allclose(t[1:], s[:-1], atol=1e-6)
    assert t[0] == pytest.approx(1.0) and s[-1] == 0 and np.all(np.asarray(t) > np.asarray(s))
    if grid == "cosine":  # masked after step i of 8: cos(π/2 · i/8)
        masked = unmasking.unmasking_times(8, grid)[1]
        np.testing.assert_allclose(masked, [0.981, 0.924, 0.831, 0.707, 0.556, 0.383, 0.195, 0.0], atol=6e-4)


CHOICES = np.asarray([3, 1, 4, 2])
"""Position i is uniform over CHOICES[i] tokens, so that each sample of it has probability 1/CHOICES[i]."""


def predict_choices(x_t: jax.Array, t: float, hidden: None) -> tuple[jax.Array, None]:
    possible = np.arange(4) < CHOICES[:, None]
    log_p = np.where(possible, -np.log(CHOICES)[:, None], -np.inf)
    return jnp.broadcast_to(jnp.asarray(log_p, float), (*x_t.shape, 4)), hidden


def test_the_surest_tokens_are_kept_first() -> None:
    """One in each of four steps: the position of n choices is masked before n steps."""
    start = MaskedState.start(jnp.full((2, 4), 9), jnp.ones((2, 4), bool))
    step, keys = unmasking.confidence(predict_choices), jax.random.split(jax.random.key(0), 2)
    end, masked = unroll(step, start, keys, jnp.arange(4, 0, -1), record=lambda state: state.masked)
    np.testing.assert_array_equal(np.sum(masked, axis=0), [CHOICES, CHOICES])
    assert np.all(np.asarray(end.tokens) < CHOICES)


def test_an_entropy_bound_reveals_the_surest_tokens_and_leaves_out_the_largest_entropy() -> None:
    """Entropies log 1, 2, 3, 4: their sums without the last are 0, 0, log 2 and log 6."""
    start = MaskedState.start(jnp.full((1, 4), 9), jnp.ones((1, 4), bool))
    revealed = {0.0: 2, np.log(2) - 0.01: 2, np.log(2) + 0.01: 3, np.log(6) + 0.01: 4}
    steps = [unmasking.entropy_bounded(predict_choices, float(bound), sample_tokens) for bound in revealed]
    keys = jax.random.split(jax.random.key(1), 1)
    masked = jax.jit(lambda: [step(jax.random.clone(keys), start, jnp.asarray(4)).masked[0] for step in steps])()
    for after, num in zip(masked, revealed.values(), strict=True):
        np.testing.assert_array_equal(~after, num >= CHOICES)


def test_mask_predict_masks_the_least_likely_tokens_again() -> None:
    """Of four steps, the position of n choices is masked in n: the network's view of tokens that stay is not read."""
    masked = []

    def predict(x_t: jax.Array, t: float, hidden: None) -> tuple[jax.Array, None]:
        masked.append(np.asarray(x_t == 9))
        return jnp.where((x_t == 9)[..., None], predict_choices(x_t, t, hidden)[0], -np.log(4)), hidden

    step = unmasking.mask_predict(predict, 9, jnp.ones((2, 4), bool), 4)
    state = MaskedState.start(jnp.full((2, 4), 9), jnp.ones((2, 4), bool))
    for index, key in enumerate(jax.random.split(jax.random.key(2), 4)):
        state = step(jax.random.split(key, 2), state, jnp.asarray(index))
    np.testing.assert_array_equal(np.sum(masked, axis=0), [CHOICES, CHOICES])


@pytest.mark.parametrize(
    "bad", [{"name": "ddim"}, {"grid": "log"}, {"steps": 0}, {"temperature": 0.0}, {"top_p": 0.0}, {"entropy": -1.0}]
)
def test_invalid_settings_raise(bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Unmasking(**bad)


@pytest.mark.parametrize(("eta", "revised"), [(0.0, False), (3.0, True)])
def test_self_planning_masks_again_what_the_network_finds_unlikely(eta: float, revised: bool) -> None:
    """Position 0 is revealed first. Once position 3 is, the network finds the token at position 0 unlikely."""

    def predict(x_t: jax.Array, t: float, hidden: None) -> tuple[jax.Array, None]:
        p = jnp.broadcast_to(jnp.asarray([0.99, 0.9, 0.8, 0.7]), x_t.shape)
        p = p.at[:, 0].set(jnp.where(x_t[:, 3] == 9, 0.99, 1e-4))
        return jnp.log(jnp.stack([p, 1 - p], axis=-1)), hidden

    fixed = jnp.asarray([[False, False, True, False]] * 50)
    start = MaskedState.start(jnp.where(fixed, 0, 9), ~fixed)
    sampler = Unmasking(name="self_planning", eta=eta, steps=12)
    step, grid = sampler.step_and_grid(TOKEN_SCHEDULES["linear"](1000), predict, jax.random.key(0), start)
    keys = jax.random.split(jax.random.key(0), 50)
    end, masked = unroll(step, start, keys, grid, record=lambda state: state.masked)
    assert not end.masked.any() and np.all(end.tokens[:, 2] == 0) and not masked[:, :, 2].any()
    assert bool(np.any(masked[1:] & ~masked[:-1])) is revised
    assert sampler.revises


@pytest.mark.parametrize("order", ["margin", "entropy", "probability", "left_to_right"])
def test_an_order_reveals_its_first_positions(order: str) -> None:
    """Position i is uniform over CHOICES[i] tokens; of left to right, the first."""
    start = MaskedState.start(jnp.full((2, 4), 9), jnp.ones((2, 4), bool))
    step = unmasking.ordered(predict_choices, order, sample_tokens)
    after = step(jax.random.split(jax.random.key(1), 2), start, jnp.asarray(4))
    first = 0 if order == "left_to_right" else 1
    np.testing.assert_array_equal(~after.masked, np.arange(4)[None] == np.full((2, 1), first))


def test_a_margin_is_a_difference_of_probabilities_and_not_their_ratio() -> None:
    log_p = jnp.log(jnp.asarray([[0.64, 0.36, 0.0, 0.0], [0.4, 0.2, 0.2, 0.2]]))
    np.testing.assert_allclose(unmasking.ORDERS["margin"](log_p[None])[0], [0.28, 0.2], rtol=1e-5)


UNMASKING = [name for name in unmasking.NAMES if name != "remasking"]
CORRECTED = [*itertools.product(UNMASKING, ["off", "random", "doubtful"])]
FAST_CORRECTED = [case for case in CORRECTED if case[1] == "off" or case[0] == "confidence"]


@pytest.mark.parametrize("case", slow_but(FAST_CORRECTED, CORRECTED), ids="-".join)
def test_a_token_without_a_distribution_is_undefined_and_never_stays_masked(case: tuple[str, str]) -> None:
    """An error after sampling looks for UNDEFINED; MASK would be printed."""

    def predict(x_t: jax.Array, t: float, hidden: None) -> tuple[jax.Array, None]:
        return predict_choices(x_t, t, hidden)[0].at[:, 0].set(jnp.nan), hidden

    name, correct = case
    start = MaskedState.start(jnp.full((2, 4), 9), jnp.ones((2, 4), bool))
    for order in unmasking.ORDERS if name == "ordered" else ["margin"]:
        sampler = Unmasking(name=name, order=order, correct=correct, steps=8)
        step, grid = sampler.step_and_grid(TOKEN_SCHEDULES["linear"](1000), predict, jax.random.key(0), start)
        end = unroll(step, start, jax.random.split(jax.random.key(1), 2), grid)[0].tokens
        assert np.all(end[:, 0] == UNDEFINED) and np.all(end[:, 1:] < 4) and np.all(end[:, 1:] >= 0)


@pytest.mark.parametrize("name", UNMASKING)
def test_corrections_make_as_many_calls_whatever_the_longest_text_of_the_batch(name: str) -> None:
    for length in (4, 12):
        start = MaskedState.start(jnp.full((2, length), 9), jnp.ones((2, length), bool))
        sampler = Unmasking(name=name, correct="random", steps=8)
        grid = sampler.step_and_grid(TOKEN_SCHEDULES["linear"](1000), predict_choices, jax.random.key(0), start)[1]
        assert len(grid) == 8


def test_self_planning_without_eta_keeps_revealed_tokens_also_if_others_become_certain() -> None:
    """Position 3 is revealed first, after which position 0 is certain: its log p of 0 must not win over position 3."""

    def predict(x_t: jax.Array, t: float, hidden: None) -> tuple[jax.Array, None]:
        p = jnp.broadcast_to(jnp.asarray([0.6, 0.6, 0.6, 0.9]), x_t.shape)
        p = p.at[:, 0].set(jnp.where(x_t[:, 3] == 9, 0.6, 1.0))
        return jnp.log(jnp.stack([p, 1 - p], axis=-1)), hidden

    start = MaskedState.start(jnp.full((200, 4), 9), jnp.ones((200, 4), bool))
    step, keys = unmasking.self_planning(predict, start, 0.0, 8), jax.random.split(jax.random.key(0), 200)
    _, masked = unroll(step, start, keys, jnp.arange(8, 0, -1), record=lambda state: state.masked)
    assert not np.any(masked[1:] & ~masked[:-1])
