"""Transforms of denoisers: clamping, temperature, infilling and self-conditioning, each at its own times and places."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.diffusion.schedules import SCHEDULES
from jtextdiff.sampling.denoiser_transforms import LogitShaping, clamp, infill, self_condition, temper
from jtextdiff.sampling.gaussian_samplers import Sampler
from jtextdiff.sampling.loop import State, time_grid, unroll

SHAPE = (2, 4, 3)
PREVIOUS = jnp.zeros(SHAPE)


def denoise(x_t: jax.Array, t: jax.Array, previous: jax.Array) -> jax.Array:
    return 0.5 * x_t + t + 0.1 * previous


def test_clamp_projects_only_at_or_below_its_time() -> None:
    x_t = jax.random.normal(jax.random.key(0), SHAPE)
    clamped = clamp(denoise, jnp.round, below=0.5)
    for t in (0.0, 0.25, 0.5):
        at = jnp.asarray(t)
        np.testing.assert_array_equal(clamped(x_t, at, PREVIOUS), jnp.round(denoise(x_t, at, PREVIOUS)))
    for t in (0.5001, 1.0):
        at = jnp.asarray(t)
        np.testing.assert_array_equal(clamped(x_t, at, PREVIOUS), denoise(x_t, at, PREVIOUS))


def test_clamp_is_idempotent() -> None:
    x_t = jax.random.normal(jax.random.key(1), SHAPE)
    once = clamp(denoise, jnp.round, below=0.7)
    twice = clamp(once, jnp.round, below=0.7)
    for t in (0.2, 0.9):
        at = jnp.asarray(t)
        np.testing.assert_array_equal(twice(x_t, at, PREVIOUS), once(x_t, at, PREVIOUS))


def test_clamp_always_and_never() -> None:
    x_t, end = jax.random.normal(jax.random.key(2), SHAPE), jnp.ones(())
    always, never = clamp(denoise, jnp.round, below=1.0), clamp(denoise, jnp.round, below=0.0)
    np.testing.assert_array_equal(always(x_t, end, PREVIOUS), jnp.round(denoise(x_t, end, PREVIOUS)))
    np.testing.assert_array_equal(never(x_t, 0 * end, PREVIOUS), denoise(x_t, 0 * end, PREVIOUS))


def test_temperature_one_normalises_and_changes_nothing_else() -> None:
    x_t, t = jax.random.normal(jax.random.key(3), SHAPE), jnp.asarray(0.3)
    result = temper(denoise, 1.0)(x_t, t, PREVIOUS)
    np.testing.assert_allclose(result, jax.nn.log_softmax(denoise(x_t, t, PREVIOUS)), rtol=1e-6)
    np.testing.assert_allclose(jnp.sum(jnp.exp(result), axis=-1), np.ones(SHAPE[:2]), rtol=1e-6)


def test_low_temperature_is_argmax_and_high_temperature_is_uniform() -> None:
    x_t, t = jax.random.normal(jax.random.key(4), SHAPE), jnp.asarray(0.3)
    best = jax.nn.one_hot(jnp.argmax(denoise(x_t, t, PREVIOUS), axis=-1), SHAPE[-1])
    np.testing.assert_allclose(jnp.exp(temper(denoise, 1e-4)(x_t, t, PREVIOUS)), best, atol=1e-6)
    np.testing.assert_allclose(jnp.exp(temper(denoise, 1e6)(x_t, t, PREVIOUS)), np.full(SHAPE, 1 / 3), atol=1e-5)


@pytest.mark.parametrize("name", ["ancestral", "ddim", "dpm_solver"])
@pytest.mark.parametrize("steps", [1, 6])
def test_fixed_positions_end_at_the_given_vectors(name: str, steps: int) -> None:
    process = Gaussian(log_alpha_bar=SCHEDULES["sqrt"](1000))
    x_0 = jax.random.normal(jax.random.key(5), SHAPE)
    fixed = jnp.asarray([[True, False, True, False], [False, False, False, True]])
    step = Sampler(name=name, eta=0.5).step(process, infill(denoise, x_0, fixed))
    start = State(jax.random.normal(jax.random.key(6), SHAPE), PREVIOUS, jnp.ones(()))
    keys = keys_for(jax.random.key(7), jnp.arange(2))
    end, path = unroll(step, start, keys, time_grid(steps), record=lambda state: state.x_0_hat)
    np.testing.assert_allclose(end.x_t[fixed], x_0[fixed], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(path[1:, fixed], jnp.broadcast_to(x_0[fixed], path[1:, fixed].shape))
    assert float(jnp.min(jnp.abs(end.x_t - x_0)[~fixed])) > 1e-6


def test_infill_leaves_free_positions_to_the_network() -> None:
    x_t, t = jax.random.normal(jax.random.key(8), SHAPE), jnp.asarray(0.4)
    nothing = infill(denoise, jnp.full(SHAPE, 9.0), jnp.zeros(SHAPE[:2], bool))
    np.testing.assert_array_equal(nothing(x_t, t, PREVIOUS), denoise(x_t, t, PREVIOUS))


def test_self_conditioning_reads_a_constant() -> None:
    """No gradient passes through the estimate: that of Σ w · 2w with a constant second factor is 2w. Without it, 0."""
    weights = jax.random.normal(jax.random.key(9), SHAPE)
    loss = lambda w, use: jnp.sum(w * self_condition(lambda: 2 * w, use))
    slope = jax.grad(loss)
    np.testing.assert_allclose(slope(weights, jnp.asarray(True)), 2 * weights, rtol=1e-6)
    np.testing.assert_array_equal(slope(weights, jnp.asarray(False)), np.zeros(SHAPE))


def test_shaped_logits_penalise_used_tokens_then_temper_then_cut() -> None:
    """Token 1 occurs three times: log 4 is taken twice from its logit; then T is halfway between 2 and 1."""
    logits, tokens = jnp.log(jnp.asarray([[[0.5, 0.3, 0.2, 0.0]]])), jnp.asarray([[1, 1, 7, 1]])
    share = 0.5 ** (2 / 3)
    p = jnp.exp(LogitShaping(2.0, 1.0, 0.5, 2.0)(logits, tokens, share))[0, 0]
    expected = np.asarray([0.5, 0.3 / 16, 0.2, 0.0]) ** (1 / 1.5)
    np.testing.assert_allclose(p, expected / expected.sum(), rtol=1e-5)
    cut = jnp.exp(LogitShaping(2.0, 0.7, 0.5, 2.0)(logits, tokens, share))[0, 0]
    np.testing.assert_allclose(cut, [expected[0], 0, expected[2], 0] / (expected[0] + expected[2]), rtol=1e-5)


def test_each_text_anneals_by_its_own_share() -> None:
    logits = jnp.log(jnp.asarray([[[0.8, 0.2]], [[0.8, 0.2]]]))
    p = jnp.exp(LogitShaping(anneal=0.5)(logits, jnp.zeros((2, 1), int), jnp.asarray([1.0, 0.0])))
    np.testing.assert_allclose(p[:, 0, 0], [0.8, 0.64 / 0.68], rtol=1e-5)


@pytest.mark.parametrize("bad", [{"anneal": 0.0}, {"frequency_penalty": -1.0}, {"temperature": 0.0}, {"top_p": 2.0}])
def test_invalid_shaping_is_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        LogitShaping(**bad).check()
