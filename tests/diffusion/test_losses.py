"""Objectives: cross-entropy, errors and the law of lengths are what their names say."""

import jax
import jax.numpy as jnp
import numpy as np

from jtextdiff.diffusion import losses as objectives
from jtextdiff.diffusion.randomness import keys_for


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


def test_a_length_that_is_at_least_so_long_has_the_law_given_that() -> None:
    counts = jnp.asarray([0, 5, 3, 2, 10])
    drawn = np.asarray(
        objectives.draw_length(counts, keys_for(jax.random.key(2), jnp.arange(4_000)), jnp.full(4_000, -3))
    )
    share = 2.01 / 12.02
    assert set(drawn.tolist()) == {3, 4}
    assert abs(np.mean(drawn == 3) - share) < 5 * np.sqrt(share * (1 - share) / 4_000)
