"""Gaussian diffusion: marginals, posteriors and limits are consistent at any pair of times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.schedules import SCHEDULES

PAIRS = [(0.0, 0.2), (0.01, 0.02), (0.1, 0.9), (0.5, 0.51), (0.3, 1.0), (0.0, 1.0), (0.998, 0.9995)]
X_0 = jnp.asarray([[[0.3, -2.0], [1.5, 0.0]]])


@pytest.fixture(params=SCHEDULES)
def process(request: pytest.FixtureRequest) -> Gaussian:
    return Gaussian(log_alpha_bar=SCHEDULES[request.param](1000))


def coefficients(process: Gaussian, x_0: jax.Array, s: float, t: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(offset, slope, std) of the posterior, whose mean is offset + slope · x_t."""
    offset = process.posterior(x_0, jnp.zeros_like(x_0), s, t)
    slope = process.posterior(x_0, jnp.ones_like(x_0), s, t).mean - offset.mean
    return offset.mean, slope, jnp.broadcast_to(offset.std, x_0.shape)


@pytest.mark.parametrize(("s", "t"), PAIRS)
def test_chapman_kolmogorov(process: Gaussian, s: float, t: float) -> None:
    """∫ q(x_s | x_t, x_0) q(x_t | x_0) dx_t = q(x_s | x_0)."""
    offset, slope, std = coefficients(process, X_0, s, t)
    at_t, at_s = process.marginal(X_0, t), process.marginal(X_0, s)
    np.testing.assert_allclose(offset + slope * at_t.mean, at_s.mean, rtol=2e-6, atol=2e-6)
    mixed = slope**2 * at_t.std**2 + std**2
    np.testing.assert_allclose(mixed, jnp.broadcast_to(at_s.std**2, mixed.shape), rtol=5e-6, atol=1e-9)


@pytest.mark.parametrize(("u", "s", "t"), [(0.1, 0.4, 0.8), (0.0, 0.3, 1.0), (0.5, 0.6, 0.7)])
def test_posteriors_compose(process: Gaussian, u: float, s: float, t: float) -> None:
    """Two strides equal one: q(x_u | x_s, x_0) mixed over q(x_s | x_t, x_0) is q(x_u | x_t, x_0)."""
    offset_1, slope_1, std_1 = coefficients(process, X_0, s, t)
    offset_2, slope_2, std_2 = coefficients(process, X_0, u, s)
    offset, slope, std = coefficients(process, X_0, u, t)
    np.testing.assert_allclose(offset_2 + slope_2 * offset_1, offset, rtol=5e-6, atol=5e-6)
    np.testing.assert_allclose(slope_2 * slope_1, slope, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose((slope_2 * std_1) ** 2 + std_2**2, std**2, rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize(("s", "t"), [(0.05, 0.2), (0.1, 0.9), (0.4, 0.5)])
def test_posterior_is_bayes_on_a_grid(process: Gaussian, s: float, t: float) -> None:
    """q(x_s | x_t, x_0) ∝ q(x_s | x_0) q(x_t | x_s), with the right side on a grid."""
    x_0, x_t = 0.7, -0.4
    bar_s, bar_t = float(process.alpha_bar(s)), float(process.alpha_bar(t))
    grid = np.linspace(-8.0, 8.0, 400_001)
    prior = -((grid - np.sqrt(bar_s) * x_0) ** 2) / (2 * (1 - bar_s))
    likelihood = -((x_t - np.sqrt(bar_t / bar_s) * grid) ** 2) / (2 * (1 - bar_t / bar_s))
    density = np.exp(prior + likelihood - np.max(prior + likelihood))
    density /= density.sum()
    mean = np.sum(density * grid)
    std = np.sqrt(np.sum(density * (grid - mean) ** 2))
    result = process.posterior(jnp.full((1, 1, 1), x_0), jnp.full((1, 1, 1), x_t), s, t)
    assert result.mean.item() == pytest.approx(mean, rel=1e-5, abs=1e-5)
    assert result.std.item() == pytest.approx(std, rel=1e-5)


def test_marginal_at_zero_is_the_data(process: Gaussian) -> None:
    point = process.marginal(X_0, 0.0)
    np.testing.assert_array_equal(point.mean, X_0)
    assert float(jnp.max(point.std)) == 0.0
    np.testing.assert_array_equal(point.sample(jax.random.key(0)), X_0)


def test_marginal_at_one_is_the_prior(process: Gaussian) -> None:
    end, prior = process.marginal(X_0, 1.0), process.prior(X_0.shape)
    assert float(jnp.max(jnp.abs(end.mean - prior.mean))) < 0.02
    assert float(jnp.max(jnp.abs(end.std - prior.std))) < 1e-4


@pytest.mark.parametrize("t", [0.001, 0.5, 1.0])
def test_posterior_at_zero_is_the_point_x_0(process: Gaussian, t: float) -> None:
    point = process.posterior(X_0, X_0 + 3.0, 0.0, t)
    np.testing.assert_allclose(point.mean, X_0, rtol=1e-6, atol=1e-7)
    assert float(jnp.max(point.std)) == 0.0


@pytest.mark.parametrize("t", [0.001, 0.3, 1.0])
def test_signal_and_noise_share_the_variance(process: Gaussian, t: float) -> None:
    signal, noise = process.signal(t, X_0), process.noise(t, X_0)
    assert float(jnp.max(jnp.abs(signal**2 + noise**2 - 1))) < 1e-6
    np.testing.assert_allclose(signal.ravel() ** 2, process.alpha_bar(t), rtol=1e-5)
    np.testing.assert_allclose(jnp.log(signal / noise).ravel(), process.half_log_snr(t), rtol=1e-5, atol=1e-5)


def test_no_noise_has_infinite_snr(process: Gaussian) -> None:
    assert float(process.half_log_snr(0.0)) == np.inf


def test_each_row_may_have_its_own_time(process: Gaussian) -> None:
    times = jnp.asarray([0.2, 0.7, 1.0])
    rows = jax.random.normal(jax.random.key(1), (3, 2, 4))
    together = process.posterior(rows, rows + 1.0, 0.5 * times, times)
    for row, t in enumerate(times):
        alone = process.posterior(rows[row : row + 1], rows[row : row + 1] + 1.0, 0.5 * t, t)
        np.testing.assert_allclose(together.mean[row], alone.mean[0], rtol=1e-6)
        np.testing.assert_allclose(together.std[row].ravel(), alone.std.ravel(), rtol=1e-6)


def test_the_linear_estimate_is_the_regression_of_x_0_on_x_t(process: Gaussian) -> None:
    """With x_0 of deviation σ: the slope cov(x_0, x_t) / var(x_t), by sampling, in units of σ."""
    spread, t = 0.7, 0.4
    x_0 = spread * jax.random.normal(jax.random.key(1), (1, 100_000, 1))
    x_t = process.marginal(x_0, t).sample(jax.random.key(2))
    slope = jnp.mean(x_0 * x_t) / jnp.mean(x_t**2)
    result = process.linear_estimate(jnp.ones((1, 1, 1)), t, spread)
    residual = jnp.std(x_0 - slope * x_t) / jnp.std(x_t) / spread
    assert abs(float(result.squeeze()) - float(slope) / spread) <= 5 * float(residual) / 100_000**0.5
