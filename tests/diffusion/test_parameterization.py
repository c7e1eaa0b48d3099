"""Parameterizations: x_0, noise, score and v convert into each other and give the reverse means of the literature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.parameterization import FROM_X_0, TO_X_0
from jtextdiff.diffusion.schedules import SCHEDULES

PROCESS = Gaussian(log_alpha_bar=SCHEDULES["cosine"](100))
TIMES = [0.02, 0.3, 0.7, 0.95]


def pair(t: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """x_0, the noise, and x_t."""
    x_0, noise = jax.random.normal(jax.random.key(3), (2, 2, 3, 4))
    return x_0, noise, jnp.exp(0.5 * PROCESS.log_alpha_bar(t)) * x_0 + jnp.sqrt(1 - PROCESS.alpha_bar(t)) * noise


@pytest.mark.parametrize("name", TO_X_0)
@pytest.mark.parametrize("t", TIMES)
def test_round_trip(name: str, t: float) -> None:
    x_0, _, x_t = pair(t)
    target = FROM_X_0[name](PROCESS, x_0, x_t, t)
    np.testing.assert_allclose(TO_X_0[name](PROCESS, target, x_t, t), x_0, rtol=1e-4, atol=1e-4)


def test_every_parameterization_has_both_directions() -> None:
    assert set(TO_X_0) == set(FROM_X_0) == {"x_0", "noise", "score", "v"}


@pytest.mark.parametrize("t", TIMES)
def test_each_target_matches_its_definition(t: float) -> None:
    x_0, noise, x_t = pair(t)
    signal, spread = np.sqrt(PROCESS.alpha_bar(t)), np.sqrt(1 - PROCESS.alpha_bar(t))
    density = lambda x: jnp.sum(-0.5 * ((x - signal * x_0) / spread) ** 2)
    expected = {"x_0": x_0, "noise": noise, "score": jax.grad(density)(x_t), "v": signal * noise - spread * x_0}
    for name, value in expected.items():
        result = FROM_X_0[name](PROCESS, x_0, x_t, t)
        np.testing.assert_allclose(result, value, rtol=2e-4, atol=2e-4 / float(spread) ** 2, err_msg=name)


@pytest.mark.parametrize("index", [1, 30, 70, 95])
def test_reverse_means_of_luo(index: int) -> None:
    """Luo (2022) gives the reverse mean by x̂_0, noise and score: each is the posterior mean at that x̂_0."""
    t, s = (index + 1) / 100, index / 100
    x_0, noise, x_t = pair(t)
    score = FROM_X_0["score"](PROCESS, x_0, x_t, t)
    bar_t, bar_s = float(PROCESS.alpha_bar(t)), float(PROCESS.alpha_bar(s))
    alpha = bar_t / bar_s
    means = {
        "x_0": (np.sqrt(alpha) * (1 - bar_s) * x_t + np.sqrt(bar_s) * (1 - alpha) * x_0) / (1 - bar_t),
        "noise": x_t / np.sqrt(alpha) - (1 - alpha) / (np.sqrt(1 - bar_t) * np.sqrt(alpha)) * noise,
        "score": x_t / np.sqrt(alpha) + (1 - alpha) / np.sqrt(alpha) * score,
    }
    for name, target in {"x_0": x_0, "noise": noise, "score": score}.items():
        x_0_hat = TO_X_0[name](PROCESS, target, x_t, t)
        result = PROCESS.posterior(x_0_hat, x_t, s, t).mean
        np.testing.assert_allclose(result, means[name], rtol=1e-4, atol=1e-4, err_msg=name)
