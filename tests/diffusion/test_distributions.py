"""Distributions: normalised densities, divergences, and samples that depend on their own key alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion.distributions import UNDEFINED, Categorical, Normal, temper_and_top_p
from jtextdiff.diffusion.randomness import keys_for

SAMPLES = 20_000


def keys(seed: int, num: int) -> jax.Array:
    return keys_for(jax.random.key(seed), jnp.arange(num))


def same_mean(samples: np.ndarray, expected: np.ndarray) -> None:
    """The mean over the first axis is the expected one, within five of its own standard errors."""
    samples = np.asarray(samples, np.float64)
    error = samples.std(axis=0) / np.sqrt(len(samples))
    assert np.all(np.abs(samples.mean(axis=0) - np.asarray(expected)) <= 5 * error)


def test_normal_density_sums_to_one() -> None:
    grid = jnp.linspace(-30.0, 30.0, 60_001)
    density = jnp.exp(Normal(mean=jnp.asarray(1.5), std=jnp.asarray(2.5)).log_prob(grid))
    assert float(jnp.sum(density) * 60 / 60_000) == pytest.approx(1.0, abs=1e-4)


def test_normal_moments() -> None:
    mean, std = jnp.asarray([-1.0, 0.0, 4.0]), jnp.asarray([0.1, 1.0, 3.0])
    p = Normal(mean=jnp.broadcast_to(mean, (SAMPLES, 3)), std=jnp.broadcast_to(std, (SAMPLES, 3)))
    samples = p.sample(keys(0, SAMPLES))
    same_mean(samples, mean)
    same_mean((samples - mean[None]) ** 2, std**2)


def test_normal_kl_is_the_mean_log_ratio() -> None:
    shape = (SAMPLES, 2)
    p = Normal(mean=jnp.broadcast_to(jnp.asarray([0.0, 2.0]), shape), std=jnp.asarray(0.7))
    q = Normal(mean=jnp.broadcast_to(jnp.asarray([0.5, 1.0]), shape), std=jnp.asarray(1.3))
    samples = p.sample(keys(1, SAMPLES))
    same_mean(p.log_prob(samples) - q.log_prob(samples), p.kl(q)[0])


def test_a_point_mass_samples_its_mean() -> None:
    mean = jnp.asarray([[1.0, -2.0]])
    np.testing.assert_array_equal(Normal(mean=mean, std=jnp.zeros(())).sample(jax.random.key(2)), mean)


def test_categorical_probabilities_sum_to_one() -> None:
    logits = jax.random.normal(jax.random.key(3), (7,)) * 4
    p = Categorical(logits=jnp.broadcast_to(logits, (7, 7)))
    np.testing.assert_allclose(jnp.sum(jnp.exp(p.log_prob(jnp.arange(7)))), 1.0, rtol=1e-6)


def test_categorical_frequencies_are_its_probabilities() -> None:
    logits = jnp.asarray([0.0, 1.0, -1.0, -jnp.inf, 2.5])
    samples = Categorical(logits=jnp.broadcast_to(logits, (SAMPLES, 5))).sample(keys(4, SAMPLES))
    same_mean(np.eye(5)[np.asarray(samples)], jax.nn.softmax(logits))


def test_categorical_kl_is_the_mean_log_ratio() -> None:
    p, q = (Categorical(logits=row) for row in jax.random.normal(jax.random.key(5), (2, SAMPLES, 6))[:, :1])
    p_rows = Categorical(logits=jnp.broadcast_to(p.logits, (SAMPLES, 6)))
    samples = p_rows.sample(keys(6, SAMPLES))
    ratio = p_rows.log_prob(samples) - Categorical(logits=jnp.broadcast_to(q.logits, (SAMPLES, 6))).log_prob(samples)
    same_mean(ratio, p.kl(q)[0])


def test_impossible_categories_contribute_nothing() -> None:
    p = Categorical(logits=jnp.asarray([0.0, -jnp.inf, 0.0]))
    q = Categorical(logits=jnp.asarray([0.0, 5.0, 0.0]))
    total = 2 + np.exp(5.0)
    np.testing.assert_allclose(p.kl(q), np.log(total / 2), rtol=1e-6)
    assert float(p.kl(p)) == 0.0


def test_kl_is_infinite_where_the_other_is_impossible() -> None:
    p = Categorical(logits=jnp.asarray([0.0, 0.0]))
    assert float(p.kl(Categorical(logits=jnp.asarray([0.0, -jnp.inf])))) == np.inf


@pytest.mark.parametrize("shift", [-3.0, 100.0])
def test_logits_are_unnormalised(shift: float) -> None:
    logits = jax.random.normal(jax.random.key(7), (4, 5))
    plain, shifted = Categorical(logits=logits), Categorical(logits=logits + shift)
    tokens = jnp.asarray([0, 4, 2, 1])
    np.testing.assert_allclose(plain.log_prob(tokens), shifted.log_prob(tokens), atol=2e-5)
    np.testing.assert_allclose(plain.kl(shifted), 0.0, atol=2e-5)


@pytest.mark.parametrize("kind", ["normal", "categorical"])
def test_a_row_depends_on_its_own_key_alone(kind: str) -> None:
    values = jax.random.normal(jax.random.key(8), (4, 3, 5))
    changed = values.at[1:].add(1.0)
    make = lambda x: Normal(mean=x, std=jnp.ones(())) if kind == "normal" else Categorical(logits=x)
    together = make(values).sample(keys(9, 4))
    np.testing.assert_array_equal(make(changed).sample(keys(9, 4))[0], together[0])
    for row in range(4):
        alone = make(values[row : row + 1]).sample(keys(9, 4)[row : row + 1])
        np.testing.assert_array_equal(together[row], alone[0])


def test_mode_is_the_most_probable() -> None:
    logits = jax.random.normal(jax.random.key(10), (5, 4))
    p = Categorical(logits=logits)
    each = jnp.stack([p.log_prob(jnp.full(5, token)) for token in range(4)])
    np.testing.assert_array_equal(p.mode(), jnp.argmax(each, axis=0))
    assert float(jnp.max(jnp.abs(Normal(mean=logits, std=jnp.ones(())).mode() - logits))) == 0.0


def test_frequencies_of_many_categories() -> None:
    """50 categories in 8 blocks: χ², with blocks of probability 0 and one rare category."""
    p = np.where(np.arange(50) % 3 == 0, 1.0 + np.arange(50), 0.0)
    p[16:24], p[49] = 0.0, 1.0
    p /= p.sum()
    categorical = Categorical(logits=jnp.broadcast_to(jnp.log(jnp.asarray(p)), (SAMPLES, 50)))
    counts = np.bincount(categorical.sample(keys(7, SAMPLES)), minlength=50)
    possible = p > 0
    assert np.all(counts[~possible] == 0)
    expected = SAMPLES * p[possible]
    assert np.sum((counts[possible] - expected) ** 2 / expected) < 42.0  # 15 degrees of freedom, p = 2e-4


def test_temperature_and_top_p_renormalise_the_most_likely_tokens() -> None:
    logits = jnp.log(jnp.asarray([[0.1, 0.4, 0.3, 0.2]]))
    np.testing.assert_allclose(jnp.exp(temper_and_top_p(logits, 1.0, 1.0)), jnp.exp(logits), atol=1e-6)
    np.testing.assert_allclose(jnp.exp(temper_and_top_p(logits, 1.0, 0.6)), [[0, 4 / 7, 3 / 7, 0]], atol=1e-6)
    np.testing.assert_allclose(jnp.exp(temper_and_top_p(logits, 1.0, 1e-9)), [[0, 1, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(jnp.exp(temper_and_top_p(logits, 0.5, 1.0)), jnp.exp(2 * logits) / 0.3, atol=1e-6)


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999])
def test_top_p_keeps_the_shortest_list_of_most_likely_tokens_that_makes_up_the_share(top_p: float) -> None:
    p = np.random.default_rng(0).dirichlet(np.full(60, 0.3), 50)
    kept = np.isfinite(temper_and_top_p(jnp.log(jnp.asarray(p)), 1.0, top_p))
    for row, in_row in zip(p, kept, strict=True):
        order = np.argsort(-row)
        count = int(np.searchsorted(np.cumsum(row[order]), top_p)) + 1
        assert set(np.flatnonzero(in_row)) == set(order[:count])


def test_logits_without_a_distribution_give_no_category() -> None:
    nan, inf = jnp.nan, jnp.inf
    logits = jnp.asarray([[0.0, 1.0, 2.0], [0.0, nan, 1.0], [-inf, -inf, -inf], [0.0, inf, 1.0], [-inf, -inf, 3.0]])
    distribution = Categorical(logits=logits)
    drawn = distribution.sample(keys_for(jax.random.key(0), jnp.arange(5)))
    for tokens in (drawn, distribution.mode()):
        assert tokens[1:4].tolist() == [UNDEFINED] * 3 and tokens[4] == 2 and 0 <= int(tokens[0]) < 3
