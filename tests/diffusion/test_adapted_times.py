"""Adapted times: samples have their density, estimates stay unbiased, and the gradient leads to the best density."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion.adapted_times import density, masses, quantile, second_moment

LOGITS, START = jnp.asarray([0.0, 2.0, -1.0, 0.5]), 0.4
U = (jnp.arange(40_000) + 0.5) / 40_000


def bin_of(t: jax.Array) -> np.ndarray:
    return np.minimum((4 * (np.asarray(t) - START) / (1 - START)).astype(int), 3)


def test_samples_have_the_density() -> None:
    t = quantile(LOGITS, U, START)
    np.testing.assert_array_equal(t[U < START], U[U < START])
    above = t[U >= START]
    np.testing.assert_allclose(np.bincount(bin_of(above)) / len(above), masses(LOGITS), atol=1e-4)
    np.testing.assert_allclose(density(LOGITS, above, START) / 4, masses(LOGITS)[bin_of(above)], rtol=1e-5)
    np.testing.assert_array_equal(density(LOGITS, t[U < START], START), 1.0)


def test_a_uniform_density_leaves_times_where_they_are() -> None:
    np.testing.assert_allclose(quantile(jnp.zeros(32), U, START), U, atol=1e-6)
    assert float(density(jnp.zeros(1), jnp.asarray(0.5), START)) == pytest.approx(1.0)


def test_an_integral_is_unbiased_under_any_density() -> None:
    t = quantile(LOGITS, U, START)
    assert float(jnp.mean(t**2 / density(LOGITS, t, START))) == pytest.approx(1 / 3, abs=1e-4)


def test_the_gradient_leads_to_the_density_of_least_variance() -> None:
    """f is 0, 1, 2 and 1 in the bins: masses in proportion to it, next to the uniform share."""
    f = jnp.asarray([0.0, 1.0, 2.0, 1.0])

    def loss(logits: jax.Array, key: jax.Array) -> jax.Array:
        t = quantile(jax.lax.stop_gradient(logits), jax.random.uniform(key, (512,)), 0.0)
        return jnp.mean(second_moment(logits, t, f[jnp.minimum((4 * t).astype(int), 3)], 0.0))

    def step(logits: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        return logits - 0.05 * jax.grad(loss)(logits, key), None

    logits, _ = jax.lax.scan(step, jnp.zeros(4), jax.random.split(jax.random.key(0), 2_000))
    np.testing.assert_allclose(masses(logits), [0.025, 0.243, 0.488, 0.243], atol=0.02)
