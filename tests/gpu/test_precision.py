"""Outside the networks a GPU computes in float32, not in TF32: each function against the CPU in float64.

A float32 result differs by a few ulps of its terms, 2^-24 relative each, a TF32 product by 2^-11: the bound lies
between the two.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.rounding import embedding_spread, nearest_token, token_log_probs
from jtextdiff.diffusion.schedules import SCHEDULES, TOKEN_SCHEDULES
from jtextdiff.methods.components.affine_prior import prior_nll, whitened
from jtextdiff.nets.classifiers import LatentHead
from jtextdiff.nets.functional import Net, Params

BOUND = 2.0**-16
V, D, B, L = 1000, 128, 4, 16


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


PROCESS = Gaussian(log_alpha_bar=SCHEDULES["cosine"](1000))
HEAD = Net(lambda rngs: LatentHead(dim=D, width=256, num_outputs=7, rngs=rngs))


def embedding() -> jax.Array:
    return 3 * normal(0, V, D) / jnp.sqrt(D)


def prior() -> dict[str, jax.Array]:
    return {"scale": 0.3 * normal(2, D, D), "shift": normal(3, D)}


def head() -> Params:
    return HEAD.init(jax.random.key(5))


FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[[], tuple[Any, ...]]]] = {
    "token_log_probs": (lambda e, x: token_log_probs(e, PROCESS, x, 0.3), lambda: (embedding(), normal(1, B, L, D))),
    "embedding_spread": (embedding_spread, lambda: (embedding(),)),
    "whitened": (whitened, lambda: (prior(), normal(4, 64, D))),
    "prior_nll": (prior_nll, lambda: (prior(), normal(4, 64, D))),
    "latent_head": (lambda params, z: HEAD.bind(params)(z), lambda: (head(), normal(6, 64, D))),
    "latent_head_gradient": (
        jax.grad(lambda z, params: jnp.sum(jax.nn.log_softmax(HEAD.bind(params)(z))[:, 0])),
        lambda: (normal(6, 64, D), head()),
    ),
}
"""Functions and what gives their arguments: nothing is computed where there is no GPU."""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_products_outside_the_trunk_are_float32(name: str, on_cpu: Callable[..., Any]) -> None:
    function, arguments_of = FUNCTIONS[name]
    arguments = arguments_of()
    computed, exact = jax.jit(function)(*arguments), on_cpu(function, *arguments, double=True)
    for ours, reference in zip(jax.tree.leaves(computed), jax.tree.leaves(exact), strict=True):
        error = np.linalg.norm(np.asarray(ours, np.float64) - reference) / np.linalg.norm(reference)
        assert error < BOUND, f"{name}: relative error {error:.1e}"


def test_nearest_token_is_exact(on_cpu: Callable[..., Any]) -> None:
    """Of rows that differ by 1e-4 of their norm, the nearest is found: TF32 keeps 5e-4."""
    base = normal(7, D) / jnp.sqrt(D)
    close = base + 1e-3 * normal(8, 32, D) / jnp.sqrt(D)
    x = close[None]
    np.testing.assert_array_equal(jax.jit(nearest_token)(close, x)[0], np.arange(32))


@pytest.mark.parametrize("name", [*SCHEDULES, *TOKEN_SCHEDULES])
def test_schedules_and_slopes(name: str, on_cpu: Callable[..., Any]) -> None:
    """log ᾱ at all of 1,000 times within 1e-5 of itself, and finite slopes, the ends included."""
    schedule = (SCHEDULES | TOKEN_SCHEDULES)[name](1000)
    times = jnp.arange(1, 1000) / 1000
    exact = on_cpu(schedule, times, double=True)
    np.testing.assert_allclose(jax.jit(schedule)(times), exact, rtol=2e-5)
    assert np.all(np.isfinite(jax.vmap(jax.grad(schedule))(times)))
