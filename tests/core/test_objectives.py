"""Objectives: each term of a bound is the divergence it claims to be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.core import objectives
from jtextdiff.core.distributions import Normal
from jtextdiff.core.gaussian import Gaussian
from jtextdiff.core.schedules import SCHEDULES

SHAPE = (2, 3, 4)


@pytest.fixture(params=SCHEDULES)
def process(request: pytest.FixtureRequest) -> Gaussian:
    return Gaussian(log_alpha_bar=SCHEDULES[request.param](1000))


@pytest.mark.parametrize(("s", "t"), [(0.01, 0.02), (0.1, 0.6), (0.5, 1.0)])
def test_denoising_kl_is_that_of_the_posteriors(process: Gaussian, s: float, t: float) -> None:
    x_0, guess, x_t = jax.random.normal(jax.random.key(0), (3, *SHAPE))
    true, modelled = process.posterior(x_0, x_t, s, t), process.posterior(guess, x_t, s, t)
    full = lambda law: Normal(mean=law.mean, std=jnp.broadcast_to(law.std, SHAPE))
    expected = jnp.sum(full(true).kl(full(modelled)), axis=-1)
    found = objectives.denoising_kl(process, x_0, guess, jnp.asarray(s), jnp.asarray(t))
    np.testing.assert_allclose(found, expected, rtol=2e-3)


def test_denoising_kl_adds_up_over_strides(process: Gaussian) -> None:
    """For one x̂_0, two strides cost what one does: SNR(s) − SNR(t) telescopes."""
    x_0, guess = jax.random.normal(jax.random.key(1), (2, *SHAPE))
    kl = lambda s, t: objectives.denoising_kl(process, x_0, guess, jnp.asarray(s), jnp.asarray(t))
    np.testing.assert_allclose(kl(0.2, 0.5) + kl(0.5, 0.9), kl(0.2, 0.9), rtol=1e-5)
    assert float(jnp.min(kl(0.2, 0.5))) > 0


def test_prior_kl_in_closed_form(process: Gaussian) -> None:
    x_0 = 3.0 * jax.random.normal(jax.random.key(2), SHAPE)
    bar = np.exp(np.float64(process.log_alpha_bar(1.0)))
    square = np.sum(np.asarray(x_0, np.float64) ** 2, axis=-1)
    expected = 0.5 * (bar * square + SHAPE[-1] * (-bar - np.log1p(-bar)))
    np.testing.assert_allclose(objectives.prior_kl(process, x_0), expected, rtol=1e-2, atol=2e-7)


def test_cross_entropy_is_the_negative_log_probability() -> None:
    logits = 5 * jax.random.normal(jax.random.key(3), (2, 3, 7))
    each = jnp.stack([objectives.cross_entropy(logits, jnp.full((2, 3), token)) for token in range(7)], axis=-1)
    np.testing.assert_allclose(jnp.sum(jnp.exp(-each), axis=-1), np.ones((2, 3)), rtol=1e-5)
    np.testing.assert_allclose(-each, np.log(jax.nn.softmax(logits)), rtol=1e-4, atol=1e-5)


def test_squared_error_is_a_mean_over_channels() -> None:
    x = jnp.zeros((1, 2, 4))
    np.testing.assert_allclose(objectives.squared_error(x, x + 3.0), [[9.0, 9.0]])
    np.testing.assert_allclose(objectives.squared_error(x, x.at[0, 0, 0].set(2.0)), [[1.0, 0.0]])


def test_invalid_positions_do_not_count() -> None:
    values = jnp.asarray([[1.0, 3.0, jnp.nan, 7.0], [2.0, 4.0, 6.0, jnp.inf], [jnp.nan] * 4])
    valid = jnp.asarray([[True, True, False, False], [True, True, True, False], [False] * 4])
    np.testing.assert_allclose(objectives.sum_over(values, valid), [4.0, 12.0, 0.0])
    np.testing.assert_allclose(objectives.mean_over(values, valid), [2.0, 4.0, 0.0])


def test_length_law_sums_to_one() -> None:
    counts = jnp.asarray([0, 5, 0, 20, 1])
    law = jnp.exp(objectives.length_law(counts))
    np.testing.assert_allclose(jnp.sum(law), 1.0, rtol=1e-6)
    assert float(law[0]) == 0.0
    assert float(jnp.min(law[1:])) > 0
    np.testing.assert_allclose(law[3] / law[1], 20.01 / 5.01, rtol=1e-5)


def test_length_nll_reads_the_law() -> None:
    counts, lengths = jnp.asarray([0, 5, 0, 20, 1]), jnp.asarray([3, 1, 2])
    np.testing.assert_allclose(
        jnp.exp(-objectives.length_nll(counts, lengths)), jnp.exp(objectives.length_law(counts))[lengths], rtol=1e-6
    )
