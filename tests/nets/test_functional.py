"""Functional networks: parameters are plain dictionaries, and a bound module equals the module that made them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jtextdiff.nets.denoisers import EmbeddingDenoiser, TokenDenoiser
from jtextdiff.nets.functional import Net
from jtextdiff.nets.transformer import Transformer

TRUNK = Transformer(num_layers=2, width=16, num_heads=2, expansion=2, time_features=8, max_length=8)
TOKENS = jnp.asarray([[1, 2, 3, 4], [4, 0, 2, 1]])
MAKERS = {
    "tokens": functools.partial(TokenDenoiser, TRUNK, num_inputs=7, vocab_size=6, num_times=4, num_lengths=9),
    "vectors": functools.partial(
        EmbeddingDenoiser,
        TRUNK,
        vocab_size=6,
        embed_dim=4,
        embed_norm=2.0,
        learned=True,
        output="logits",
        projections="deep",
        self_conditioned=True,
        num_lengths=9,
    ),
}


@pytest.fixture(scope="module", params=MAKERS)
def net(request: pytest.FixtureRequest) -> Net:
    maker = MAKERS[request.param]
    return Net(lambda rngs: maker(rngs=rngs))


def leaves(tree: object) -> list[tuple[str, jax.Array]]:
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def all_keys(tree: object) -> set[object]:
    if not isinstance(tree, dict):
        return set()
    return set(tree) | set().union(*(all_keys(child) for child in tree.values()))


def test_parameters_are_arrays_under_strings(net: Net) -> None:
    params = net.init(jax.random.key(0))
    assert {type(name) for name in all_keys(params)} == {str}
    assert all(isinstance(leaf, jax.Array) for _, leaf in leaves(params))


def test_same_key_same_parameters(net: Net) -> None:
    one, again, other = (net.init(jax.random.key(seed)) for seed in (1, 1, 2))
    for (name, a), (_, b) in zip(leaves(one), leaves(again), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
    assert any(np.any(a != b) for (_, a), (_, b) in zip(leaves(one), leaves(other), strict=True))


def test_modules_hold_only_parameters(net: Net) -> None:
    _, state = nnx.split(net.make(nnx.Rngs(0)))
    kinds = {type(variable) for _, variable in nnx.to_flat_state(state)}
    assert kinds == {nnx.Param}


def test_a_bound_module_has_the_parameters(net: Net) -> None:
    params = net.init(jax.random.key(3))
    doubled = jax.tree.map(lambda leaf: 2 * leaf, params)
    bound = dict(leaves(nnx.to_pure_dict(nnx.state(net.bind(doubled), nnx.Param))))
    expected = [leaf for _, leaf in leaves(doubled)]
    assert sorted(float(jnp.sum(leaf)) for leaf in bound.values()) == sorted(float(jnp.sum(leaf)) for leaf in expected)


def test_binding_does_not_change_other_bindings(net: Net) -> None:
    params = net.init(jax.random.key(4))
    first = net.bind(params)
    before = [np.asarray(leaf) for _, leaf in leaves(nnx.to_pure_dict(nnx.state(first, nnx.Param)))]
    net.bind(jax.tree.map(jnp.zeros_like, params))
    after = [np.asarray(leaf) for _, leaf in leaves(nnx.to_pure_dict(nnx.state(first, nnx.Param)))]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_bound_module_under_jit_equals_the_original() -> None:
    net = Net(lambda rngs: MAKERS["tokens"](rngs=rngs))
    params = net.init(jax.random.key(5))
    module = net.make(nnx.Rngs(jax.random.key(5)))
    result = jax.jit(lambda params: net.bind(params)(TOKENS))(params)
    np.testing.assert_allclose(result, module(TOKENS), rtol=1e-5, atol=1e-5)


def test_gradients_have_the_shape_of_the_parameters() -> None:
    net = Net(lambda rngs: MAKERS["tokens"](rngs=rngs))
    params = net.init(jax.random.key(6))
    gradient = jax.jit(jax.grad(lambda params: jnp.sum(net.bind(params)(TOKENS) ** 2)))(params)
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, params)
    assert all(np.all(np.isfinite(leaf)) for _, leaf in leaves(gradient))
    assert sum(float(jnp.sum(leaf**2)) for _, leaf in leaves(gradient)) > 0
