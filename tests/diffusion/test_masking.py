"""Masking: size and members of subsets of positions, and reveal rates as limits of probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion.masking import first_of_ties, random_mask, reveal_probability, reveal_rate, top_k_mask
from jtextdiff.diffusion.schedules import TOKEN_SCHEDULES


def test_top_k_marks_the_largest_and_of_ties_the_first() -> None:
    values = jnp.asarray([[1.0, 3.0, 2.0, 3.0], [5.0, 5.0, 5.0, 5.0], [0.0, -jnp.inf, 4.0, 1.0]])
    expected = [[False, True, True, True], [True, True, False, False], [False, False, False, False]]
    np.testing.assert_array_equal(top_k_mask(values, jnp.asarray([3, 2, 0])), expected)


def test_rounding_decides_no_tie() -> None:
    equal = jnp.full((50, 1024), -9.0) + 1e-6 * jax.random.normal(jax.random.key(0), (50, 1024))
    marked = top_k_mask(first_of_ties(equal), jnp.full(50, 3))
    np.testing.assert_array_equal(marked, np.tile(np.arange(1024) < 3, (50, 1)))
    values = jnp.asarray([[1.0, 3.0, 2.0, 3.1], [-jnp.inf, -2.0, jnp.inf, 0.0]])
    np.testing.assert_array_equal(jnp.argsort(first_of_ties(values)), jnp.argsort(values))


def test_a_random_mask_has_its_count_of_valid_positions() -> None:
    valid = jnp.arange(6)[None] < jnp.asarray([[6], [3], [1]])
    mask = random_mask(jax.random.key(0), valid, jnp.asarray([4, 3, 0]))
    np.testing.assert_array_equal(jnp.sum(mask, axis=-1), [4, 3, 0])
    assert not np.any(mask & ~valid)


@pytest.mark.parametrize("name", TOKEN_SCHEDULES)
def test_the_reveal_rate_is_the_limit_of_the_reveal_probability(name: str) -> None:
    schedule, step = TOKEN_SCHEDULES[name](1000), 1e-4
    for t in (0.1, 0.5, 0.9):
        rate = reveal_rate(schedule, jnp.asarray(t))
        np.testing.assert_allclose(reveal_probability(schedule, t - step, t) / step, rate, rtol=0.02)
    assert jnp.isfinite(reveal_rate(schedule, jnp.ones(())))
