"""Rounding: the nearest token by distance, the posterior of tokens by Bayes, the spread of embeddings."""

import jax
import jax.numpy as jnp
import numpy as np

from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.rounding import embedding_spread, nearest_token, token_log_probs
from jtextdiff.diffusion.schedules import SCHEDULES

PROCESS = Gaussian(log_alpha_bar=SCHEDULES["cosine"](1000))
EMBEDDING = 3.0 * jax.random.normal(jax.random.key(0), (6, 8)) / 8**0.5


def test_the_nearest_token_minimises_the_distance_among_the_possible() -> None:
    x = jax.random.normal(jax.random.key(1), (2, 5, 8))
    distance = np.asarray(jnp.linalg.norm(x[:, :, None] - EMBEDDING[None, None], axis=-1))
    np.testing.assert_array_equal(nearest_token(EMBEDDING, x), distance.argmin(-1))
    np.testing.assert_array_equal(nearest_token(EMBEDDING, EMBEDDING[None]), [np.arange(6)])
    possible = np.arange(6) % 2 == 0
    result = nearest_token(EMBEDDING, x, jnp.asarray(possible)[None, None])
    np.testing.assert_array_equal(result, np.where(possible, distance, np.inf).argmin(-1))


def test_token_probabilities_follow_bayes() -> None:
    x_t, t = jax.random.normal(jax.random.key(1), (2, 3, 8)), 0.6
    marginal = PROCESS.marginal(EMBEDDING[None, None], t)
    density = np.sum(np.asarray(marginal.log_prob(x_t[:, :, None]), np.float64), axis=-1)
    density -= density.max(-1, keepdims=True)
    expected = density - np.log(np.sum(np.exp(density), -1, keepdims=True))
    np.testing.assert_allclose(token_log_probs(EMBEDDING, PROCESS, x_t, t), expected, atol=1e-4)


def test_the_spread_is_the_distance_to_the_nearest_other_row() -> None:
    rows = jnp.asarray([[3.0, 4.0], [3.0, -4.0], [-5.0, 0.0]])
    result = embedding_spread(rows)
    np.testing.assert_allclose(result["embedding_norm"], 5.0)
    np.testing.assert_allclose(result["nearest_word"], (8 + 8 + np.sqrt(80)) / 3 / 5, rtol=1e-5)
