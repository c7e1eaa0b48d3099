"""Schedules: ᾱ falls from 1 to almost 0, and equals the published tables to the digit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion.schedules import SCHEDULES, TOKEN_SCHEDULES

RELEASED = {
    ("sqrt", 200): lambda u: 1 - np.sqrt(u + 1e-4),
    ("sqrt", 2000): lambda u: 1 - np.sqrt(u + 1e-4),
    ("cosine", 200): lambda u: np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2,
    ("cosine", 1000): lambda u: np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2,
}
"""(schedule, T) ↦ the function g whose ratios g((i+1)/T)/g(i/T) give the published βs."""


def alpha_bars(g, num_steps: int) -> np.ndarray:
    """ᾱ by index, from the βs, in float64."""
    i = np.arange(num_steps)
    betas = np.minimum(1 - g((i + 1) / num_steps) / g(i / num_steps), 0.999)
    return np.cumprod(1 - betas)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("num_steps", [10, 2000])
def test_data_at_zero(name: str, num_steps: int) -> None:
    assert float(SCHEDULES[name](num_steps)(0.0)) == 0.0


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("num_steps", [10, 2000])
def test_almost_no_signal_at_one(name: str, num_steps: int) -> None:
    end = float(SCHEDULES[name](num_steps)(1.0))
    assert np.isfinite(end)
    assert np.exp(end) < 1e-3 * 0.25


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("num_steps", [10, 200, 2000])
def test_signal_only_falls(name: str, num_steps: int) -> None:
    log_alpha_bar = np.asarray(SCHEDULES[name](num_steps)(jnp.linspace(0.0, 1.0, 4001)))
    assert np.all(np.isfinite(log_alpha_bar))
    assert np.all(np.diff(log_alpha_bar) < 0)


@pytest.mark.parametrize(("name", "num_steps"), RELEASED)
def test_products_of_the_released_betas(name: str, num_steps: int) -> None:
    expected = alpha_bars(RELEASED[name, num_steps], num_steps)
    times = (np.arange(num_steps) + 1) / num_steps
    log_alpha_bar = np.asarray(SCHEDULES[name](num_steps)(jnp.asarray(times, jnp.float32)), np.float64)
    # A float32 time near 1 is accurate to 6e-8, which is this share of 1 − t.
    tolerance = 2e-6 + 4e-7 / np.maximum(1 - times, 1 / num_steps)
    assert np.all(np.abs(log_alpha_bar - np.log(expected)) < tolerance)
    # Near the data the noise is small, and is as accurate.
    early = times < 0.1
    np.testing.assert_allclose(-np.expm1(log_alpha_bar[early]), 1 - expected[early], rtol=3e-6)


@pytest.mark.parametrize(
    ("num_steps", "index", "alpha_bar", "digits"),
    [
        (2000, 0, 0.9853586895, 1e-7),
        (2000, 1998, 2.02e-4, 0.005e-4),
        (2000, 1999, 2.0204e-7, 0.00005e-7),
        (200, 0, 0.9379653694, 1e-7),
        (200, 199, 2.48e-6, 0.005e-6),
    ],
)
def test_sqrt_golden_values(num_steps: int, index: int, alpha_bar: float, digits: float) -> None:
    result = jnp.exp(SCHEDULES["sqrt"](num_steps)((index + 1) / num_steps))
    assert abs(float(result) - alpha_bar) <= digits * 1.01


TOKEN_FORMULAS = {
    "reciprocal": lambda t: 1 - t,
    "log_linear": lambda t: 1 - 0.999 * t,
    "linear": lambda t: np.exp(-(0.1 * t + 9.95 * t**2)),
    "cosine_d3pm": lambda t: np.cos((t + 0.008) / 1.008 * np.pi / 2) / np.cos(0.008 / 1.008 * np.pi / 2),
    "cosine_md4": lambda t: 1 - np.cos(np.pi / 2 * (1 - t)),
}


@pytest.mark.parametrize("name", TOKEN_SCHEDULES)
def test_token_schedules_equal_their_formulas(name: str) -> None:
    """The share of unchanged tokens and that of changed ones, each to the digits of float32."""
    times = np.float32([1e-3, 0.01, 0.1, 0.3, 0.49, 0.51, 0.7, 0.9, 0.99])
    log_alpha_bar = np.asarray(TOKEN_SCHEDULES[name](1000)(jnp.asarray(times)), np.float64)
    expected = TOKEN_FORMULAS[name](times.astype(np.float64))
    np.testing.assert_allclose(np.exp(log_alpha_bar), expected, rtol=2e-5)
    np.testing.assert_allclose(-np.expm1(log_alpha_bar), 1 - expected, rtol=2e-5)


@pytest.mark.parametrize("name", ["sqrt", "cosine"])
def test_last_beta_is_clipped(name: str) -> None:
    schedule = SCHEDULES[name](2000)
    assert float(schedule(1.0) - schedule(1.0 - 1 / 2000)) == pytest.approx(np.log(1 - 0.999), rel=1e-4)


def test_linear_is_the_integral_of_its_beta() -> None:
    times = np.linspace(0.0, 1.0, 11)
    beta = lambda u: 0.1 + u * (20 - 0.1)
    integral = [np.mean(beta((np.arange(1000) + 0.5) / 1000 * t)) * t for t in times]
    np.testing.assert_allclose(SCHEDULES["linear"](7)(jnp.asarray(times)), -np.asarray(integral), rtol=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_elementwise(name: str) -> None:
    schedule = SCHEDULES[name](100)
    times = jnp.asarray([0.0, 0.3, 0.6, 0.995, 1.0])
    np.testing.assert_allclose(schedule(times), jnp.stack([schedule(t) for t in times]), rtol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_slope_is_finite_and_negative(name: str) -> None:
    slopes = jax.vmap(jax.grad(SCHEDULES[name](1000)))(jnp.linspace(0.0, 1.0, 101))
    assert np.all(np.isfinite(slopes))
    assert np.all(np.asarray(slopes) < 0)
