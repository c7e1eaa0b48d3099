"""Terms of the training losses: cross-entropy, squared error, masked sums and means."""

import jax
import jax.numpy as jnp
import numpy as np

from jtextdiff.diffusion import losses as objectives


def test_cross_entropy_is_the_negative_log_probability() -> None:
    logits = 5 * jax.random.normal(jax.random.key(3), (2, 3, 7))
    nll = jnp.stack([objectives.cross_entropy(logits, jnp.full((2, 3), token)) for token in range(7)], axis=-1)
    np.testing.assert_allclose(jnp.sum(jnp.exp(-nll), axis=-1), np.ones((2, 3)), rtol=1e-5)
    np.testing.assert_allclose(-nll, np.log(jax.nn.softmax(logits)), rtol=1e-4, atol=1e-5)


def test_squared_error_is_a_mean_over_channels() -> None:
    x = jnp.zeros((1, 2, 4))
    np.testing.assert_allclose(objectives.squared_error(x, x + 3.0), [[9.0, 9.0]])
    np.testing.assert_allclose(objectives.squared_error(x, x.at[0, 0, 0].set(2.0)), [[1.0, 0.0]])


def test_invalid_positions_are_ignored() -> None:
    values = jnp.asarray([[1.0, 3.0, jnp.nan, 7.0], [2.0, 4.0, 6.0, jnp.inf], [jnp.nan] * 4])
    valid = jnp.asarray([[True, True, False, False], [True, True, True, False], [False] * 4])
    np.testing.assert_allclose(objectives.sum_over(values, valid), [4.0, 12.0, 0.0])
    np.testing.assert_allclose(objectives.mean_over(values, valid), [2.0, 4.0, 0.0])
