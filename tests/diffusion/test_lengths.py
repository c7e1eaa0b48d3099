"""The distribution of text lengths: smoothed frequencies, their likelihood, samples with a minimum length."""

import jax
import jax.numpy as jnp
import numpy as np

from jtextdiff.diffusion.lengths import length_log_probs, length_nll, sample_length
from jtextdiff.diffusion.randomness import keys_for


def test_length_probabilities_are_smoothed_frequencies_that_sum_to_one() -> None:
    p = jnp.exp(length_log_probs(jnp.asarray([0, 5, 0, 20, 1])))
    np.testing.assert_allclose(jnp.sum(p), 1.0, rtol=1e-6)
    assert float(p[0]) == 0.0
    assert float(jnp.min(p[1:])) > 0
    np.testing.assert_allclose(p[3] / p[1], 20.01 / 5.01, rtol=1e-5)


def test_length_nll_is_the_negative_log_probability() -> None:
    counts, lengths = jnp.asarray([0, 5, 0, 20, 1]), jnp.asarray([3, 1, 2])
    p = jnp.exp(length_log_probs(counts))
    np.testing.assert_allclose(jnp.exp(-length_nll(counts, lengths)), p[lengths], rtol=1e-6)


def test_a_minimum_length_conditions_the_distribution() -> None:
    counts, num = jnp.asarray([0, 5, 3, 2, 10]), 4_000
    samples = np.asarray(sample_length(counts, keys_for(jax.random.key(2), jnp.arange(num)), jnp.full(num, -3)))
    p = 2.01 / 12.02
    assert set(samples.tolist()) == {3, 4}
    assert abs(np.mean(samples == 3) - p) < 5 * np.sqrt(p * (1 - p) / num)
