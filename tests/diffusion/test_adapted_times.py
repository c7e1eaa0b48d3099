"""Adapted times: samples have their density, estimates stay unbiased, and the gradient leads to the best density."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion.adapted_times import density, masses, quantile, second_moment

LOGITS = jnp.asarray([0.0, 2.0, -1.0, 0.5])
U = (jnp.arange(40_000) + 0.5) / 40_000


def test_samples_have_the_density() -> None:
    t = quantile(LOGITS, U)
    shares = np.histogram(t, bins=np.linspace(0, 1, 5))[0] / len(U)
    np.testing.assert_allclose(shares, masses(LOGITS), atol=1e-4)
    np.testing.assert_allclose(density(LOGITS, t) / 4, masses(LOGITS)[np.minimum((4 * t).astype(int), 3)], rtol=1e-5)


def test_a_uniform_density_leaves_times_where_they_are() -> None:
    np.testing.assert_allclose(quantile(jnp.zeros(32), U), U, atol=1e-6)
    assert float(density(jnp.zeros(1), jnp.asarray(0.3))) == pytest.approx(1.0)


def test_an_integral_is_unbiased_under_any_density() -> None:
    t = quantile(LOGITS, U)
    assert float(jnp.mean(t**2 / density(LOGITS, t))) == pytest.approx(1 / 3, abs=1e-4)


def test_the_gradient_leads_to_the_density_of_least_variance() -> None:
    """f is 0, 1, 2 and 1 in the bins: masses in proportion to it, next to the uniform share."""
    f = jnp.asarray([0.0, 1.0, 2.0, 1.0])

    def loss(logits: jax.Array, key: jax.Array) -> jax.Array:
        t = quantile(jax.lax.stop_gradient(logits), jax.random.uniform(key, (512,)))
        return jnp.mean(second_moment(logits, t, f[jnp.minimum((4 * t).astype(int), 3)]))

    def step(logits: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        return logits - 0.05 * jax.grad(loss)(logits, key), None

    logits, _ = jax.lax.scan(step, jnp.zeros(4), jax.random.split(jax.random.key(0), 2_000))
    np.testing.assert_allclose(masses(logits), [0.025, 0.243, 0.488, 0.243], atol=0.02)
