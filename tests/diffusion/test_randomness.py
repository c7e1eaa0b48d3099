"""Randomness: a sample depends on its own key alone, and stratified times are unbiased."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion.randomness import fold_in, keys_for, per_row, stratified


def data(keys: jax.Array) -> np.ndarray:
    return np.asarray(jax.random.key_data(keys))


def test_keys_do_not_depend_on_the_batch_size() -> None:
    eight = keys_for(jax.random.key(0), jnp.arange(8))
    four = keys_for(jax.random.key(0), jnp.arange(4))
    np.testing.assert_array_equal(data(eight)[:4], data(four))


def test_keys_depend_on_the_sample_and_not_on_the_row() -> None:
    order = jnp.asarray([5, 0, 3])
    np.testing.assert_array_equal(
        data(keys_for(jax.random.key(1), order)), data(keys_for(jax.random.key(1), jnp.arange(6)))[order]
    )


def test_keys_differ() -> None:
    keys = keys_for(jax.random.key(2), jnp.arange(50))
    assert len(np.unique(np.concatenate([data(keys), data(fold_in(keys, 0)), data(fold_in(keys, 1))]), axis=0)) == 150


def test_fold_in_applies_row_by_row() -> None:
    keys = keys_for(jax.random.key(3), jnp.arange(3))
    together = data(fold_in(keys, 7))
    for row in range(3):
        np.testing.assert_array_equal(together[row], data(fold_in(keys[row], 7)))


def test_a_row_is_sampled_from_its_own_key() -> None:
    ids = jnp.asarray([4, 1])
    two_rows = per_row(jax.random.normal, keys_for(jax.random.key(4), ids), (2, 3, 5))
    six_rows = per_row(jax.random.normal, keys_for(jax.random.key(4), jnp.arange(6)), (6, 3, 5))
    np.testing.assert_array_equal(six_rows[ids], two_rows)
    assert len(np.unique(np.asarray(six_rows))) == six_rows.size


def test_one_key_samples_a_whole_batch() -> None:
    samples = per_row(jax.random.normal, jax.random.key(5), (6, 3))
    assert len(np.unique(np.asarray(samples))) == samples.size


@pytest.mark.parametrize("num", [1, 5, 64])
def test_one_time_in_each_stratum(num: int) -> None:
    for seed in range(10):
        times = np.asarray(stratified(jax.random.key(seed), num), np.float64)
        assert np.all((times > 0) & (times <= 1))
        # Strata are (i/num, (i+1)/num]; rounding may put a time on the upper edge of the one below.
        strata = np.clip(np.ceil(times * num - 1e-4).astype(int) - 1, 0, num - 1)
        np.testing.assert_array_equal(np.sort(strata), np.arange(num))


def test_each_row_is_uniform() -> None:
    draws = np.asarray(jax.vmap(lambda key: stratified(key, 4))(jax.random.split(jax.random.key(6), 10_000)))
    for power in (1, 2, 3):
        moments = draws**power
        error = moments.std(axis=0) / np.sqrt(len(draws))
        assert np.all(np.abs(moments.mean(axis=0) - 1 / (power + 1)) <= 5 * error)


def test_stratified_mean_varies_less() -> None:
    """The variance of the batch mean is that of the jitter alone, 1/(12 n³), instead of 1/(12 n)."""
    means = np.asarray(jax.vmap(lambda key: stratified(key, 8).mean())(jax.random.split(jax.random.key(7), 4000)))
    squares = (means - 0.5) ** 2
    assert abs(squares.mean() - 1 / (12 * 8**3)) <= 5 * squares.std() / np.sqrt(len(means))
