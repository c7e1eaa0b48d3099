"""The three families on a GPU: losses, gradients, samples and likelihoods of the CPU; determinism; latent flows."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.mesh_world import LENGTH, METHODS, OPTIM, batch_of

from jtextdiff.diffusion import schedules
from jtextdiff.diffusion.distributions import Categorical
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.inference.sample_batches import run_batched
from jtextdiff.methods.components.types import nothing_given
from jtextdiff.sampling.energies import Learned
from jtextdiff.sampling.latent_flow import descend
from jtextdiff.training.train_step import init_state, mean_loss, train_step


def key() -> jax.Array:
    """A key that nothing has consumed yet."""
    return jax.random.key(3)


@pytest.fixture(autouse=True)
def float32_products():
    with jax.default_matmul_precision("highest"):
        yield


def gradient(name: str, params: Any) -> Any:
    """The loss, its terms and its gradient at the first batch."""
    loss = functools.partial(mean_loss, METHODS[name])
    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params, key(), batch_of(0))


def sample(name: str, params: Any, num: int = 24, first: int = 0) -> np.ndarray:
    keys = keys_for(jax.random.key(1), first + jnp.arange(num))
    return np.asarray(run_batched(METHODS[name], "sample", params, keys, nothing_given(num, LENGTH), [None]).tokens)


@pytest.mark.parametrize("name", METHODS)
def test_losses_and_gradients_are_those_of_the_cpu(name: str, on_cpu: Callable[..., Any]) -> None:
    """In float32 on both, of the same random bits: a relative error of 1e-4 leaves room for sums in other orders."""
    params = METHODS[name].init(key())
    (loss, _), ours = gradient(name, params)
    (reference_loss, _), reference = on_cpu(functools.partial(gradient, name), params)
    np.testing.assert_allclose(loss, reference_loss, rtol=1e-5)
    flat, expected = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (ours, reference))
    assert np.linalg.norm(flat - expected) < 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize("name", METHODS)
def test_samples_are_those_of_the_cpu(name: str, on_cpu: Callable[..., Any]) -> None:
    """Parameters made on one device and sampled on the other: the same tokens, but where rounding decides a tie."""
    params = METHODS[name].init(key())
    ours, reference = sample(name, params), on_cpu(functools.partial(sample, name), params)
    assert np.mean(ours == reference) > 0.98


@pytest.mark.parametrize("name", METHODS)
def test_a_sample_depends_on_its_seed_alone(name: str) -> None:
    params = METHODS[name].init(key())
    whole = sample(name, params)
    np.testing.assert_array_equal(whole, sample(name, params))
    assert np.mean(whole[8:16] == sample(name, params, num=8, first=8)) > 0.98  # other products for another batch


@pytest.mark.parametrize("name", METHODS)
def test_training_is_deterministic_and_resumes(name: str) -> None:
    """Four steps twice, the second time with the state copied to the host and back after two: equal bit for bit."""
    step = jax.jit(functools.partial(train_step, METHODS[name], OPTIM))

    def after_four(stop_at: int | None) -> Any:
        state = init_state(METHODS[name], OPTIM, jax.random.key(0))
        for index in range(4):
            if index == stop_at:
                state = jax.device_put(jax.device_get(state))
            state, _ = step(state, key(), batch_of(index))
        return state["ema"]

    jax.tree.map(np.testing.assert_array_equal, after_four(None), after_four(2))


@pytest.mark.parametrize("name", METHODS)
def test_likelihoods_are_those_of_the_cpu(name: str, on_cpu: Callable[..., Any]) -> None:
    def nll(params: Any) -> Any:
        return jax.jit(METHODS[name].nll)(params, key(), batch_of(1))

    params = METHODS[name].init(key())
    np.testing.assert_allclose(nll(params), on_cpu(nll, params), rtol=1e-4)


def test_latent_flow_ends_where_it_does_on_the_cpu(on_cpu: Callable[..., Any]) -> None:
    energy = Learned(
        params=jnp.linspace(-1, 1, 3),
        target=(),
        log_prob=lambda params, target, z, t, valid: -jnp.sum(jax.nn.softplus(params * z) + 0.1 * z**2, axis=-1),
    )
    flow = jax.jit(lambda z: descend(energy, z, schedules.linear(0), tolerance=1e-6).z)
    z = jax.random.normal(key(), (16, 3))
    np.testing.assert_allclose(flow(z), on_cpu(flow, z), atol=2e-5)


def test_rare_tokens_are_drawn_as_often_as_their_probability() -> None:
    """1,000 of 50,257 tokens with p = 1e-6 each, 4 million draws: 4,000 of them, within five standard deviations."""
    size, rare, rows, calls = 50_257, 1000, 4000, 10
    logits = jnp.log(jnp.full(size, (1 - rare * 1e-6) / (size - rare)).at[:rare].set(1e-6))
    draws = 100

    @jax.jit
    def count(key: Any) -> Any:
        def draw(total: Any, key: Any) -> tuple[Any, None]:
            drawn = Categorical(logits=jnp.broadcast_to(logits, (rows, size))).sample(key)
            return total + jnp.sum(drawn < rare), None

        return jax.lax.scan(draw, jnp.zeros((), jnp.int32), jax.random.split(key, draws))[0]

    total = sum(int(count(jax.random.fold_in(key(), call))) for call in range(calls))
    expected = rare * 1e-6 * rows * draws * calls
    assert abs(total - expected) < 5 * expected**0.5
