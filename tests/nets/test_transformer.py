"""The transformer: attention masks, padding, positions, times, dropout, rematerialisation and bfloat16."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.cases import slow_but

from jtextdiff.nets.attention import XLPositions, rotary
from jtextdiff.nets.functional import Net, Params
from jtextdiff.nets.layers import dropout, sinusoid
from jtextdiff.nets.transformer import Transformer
from jtextdiff.nets.trunk import Trunk

SMALL = Transformer(num_layers=1, width=16, num_heads=2, expansion=2, time_features=8, max_length=12)
SHAPES = [
    ("learned", "pre", "add"),
    ("learned", "post", "adaln"),
    ("rotary", "post", "add"),
    ("rotary", "pre", "adaln"),
    ("relative", "pre", "add"),
    ("relative", "post", "adaln"),
    ("xl", "pre", "add"),
    ("xl", "post", "adaln"),
]
"""(positions, norm, time): every pair of choices occurs."""

TIMES = jnp.asarray([[10.0], [700.0]])


@functools.cache
def trunk(positions: str = "rotary", norm: str = "pre", time: str = "add", causal: bool = False) -> Trunk:
    """A trunk in which no parameter is zero."""
    shape = dataclasses.replace(SMALL, positions=positions, norm=norm, time=time, causal=causal)
    made = Trunk(shape, timed=True, rngs=nnx.Rngs(0))
    graph, state = nnx.split(made)
    leaves, tree = jax.tree.flatten(state)
    random = np.random.default_rng(1)
    moved = [jnp.asarray(leaf + 0.1 * random.normal(size=leaf.shape), leaf.dtype) for leaf in leaves]
    return nnx.merge(graph, jax.tree.unflatten(tree, moved))


@nnx.jit
def apply(trunk: Trunk, x: jax.Array, valid: jax.Array | None) -> jax.Array:
    return trunk(x, TIMES, valid=valid)


@nnx.jit
def at_times(trunk: Trunk, x: jax.Array, t: jax.Array) -> jax.Array:
    return trunk(x, t)


def hidden(seed: int, length: int = 6) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (2, length, SMALL.width))


@nnx.jit
def influence(trunk: Trunk, x: jax.Array) -> jax.Array:
    """[query, key]: the size of the gradient of each output position by each input position, summed over rows."""
    weights = jax.random.normal(jax.random.key(2), x.shape)
    output, vjp = jax.vjp(lambda x: trunk(x, TIMES), x)
    at = lambda query: vjp(jnp.zeros_like(output).at[:, query].set(weights[:, query]))[0]
    return jax.vmap(lambda query: jnp.sum(jnp.abs(at(query)), axis=(0, 2)))(jnp.arange(x.shape[1]))


@pytest.mark.parametrize(("positions", "norm", "time"), SHAPES)
def test_causal_gradients_from_later_positions_are_zero(positions: str, norm: str, time: str) -> None:
    gradient = np.asarray(influence(trunk(positions, norm, time, causal=True), hidden(3)))
    assert np.all(gradient[np.triu_indices(6, 1)] == 0.0)
    assert np.all(gradient[np.tril_indices(6)] > 0.0)


@pytest.mark.parametrize("positions", ["learned", "rotary", "relative", "xl"])
def test_bidirectional_gradients_are_nonzero(positions: str) -> None:
    assert np.all(np.asarray(influence(trunk(positions), hidden(4))) > 0.0)


@pytest.mark.parametrize(("positions", "norm", "time"), SHAPES)
def test_padding_changes_nothing(positions: str, norm: str, time: str) -> None:
    net, x = trunk(positions, norm, time), hidden(5)
    valid = jnp.asarray([[True] * 4 + [False] * 2, [True] * 3 + [False] * 3])
    output = apply(net, x, valid)
    other = apply(net, jnp.where(valid[..., None], x, 7.0 * hidden(6)), valid)
    np.testing.assert_array_equal(output[valid], other[valid])
    longer = jnp.concatenate([x, hidden(7, 3)], axis=1)
    padded = apply(net, longer, jnp.pad(valid, ((0, 0), (0, 3))))
    np.testing.assert_allclose(padded[:, :6][valid], output[valid], rtol=1e-4, atol=1e-5)
    unmasked = apply(net, x, jnp.ones_like(valid))
    assert float(jnp.max(jnp.abs(unmasked - output)[valid])) > 1e-3


@pytest.mark.parametrize("positions", ["learned", "rotary", "relative", "xl"])
def test_order_matters(positions: str) -> None:
    """Attention without positions is invariant to order; each kind of position breaks the invariance."""
    x = hidden(8)
    swapped = apply(trunk(positions), x[:, ::-1], None)[:, ::-1]
    assert float(jnp.max(jnp.abs(swapped - apply(trunk(positions), x, None)))) > 1e-3


def xl_positions() -> XLPositions:
    net = Net(lambda rngs: XLPositions(8, 2, init="lecun", rngs=rngs))
    random = np.random.default_rng(0)
    return net.bind(jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape)), net.init(jax.random.key(0))))


def test_xl_logits_are_those_of_every_pair_in_both_directions() -> None:
    """Dai et al. (2019), §3.3, terms (b) and (d), pair by pair in NumPy; also one row at a time, as with a cache."""
    net, query = xl_positions(), jax.random.normal(jax.random.key(1), (1, 2, 5, 4))
    expected = np.zeros((2, 5, 5))
    kernel, position = np.asarray(net.project.kernel[...]), np.asarray(net.position[...])
    for i in range(5):
        for j in range(5):
            key = (np.asarray(sinusoid(jnp.asarray(float(i - j)), 8)) @ kernel).reshape(2, 4)
            expected[:, i, j] = np.sum((np.asarray(query)[0, :, i] + position) * key, axis=-1) / 2
    np.testing.assert_allclose(net.position_logits(query)[0], expected, atol=1e-5)
    rows = [net.position_logits_at(query[:, :, i : i + 1], jnp.asarray(i), 5) for i in range(5)]
    np.testing.assert_allclose(jnp.concatenate(rows, axis=2)[0], expected, atol=1e-5)
    np.testing.assert_array_equal(net.content_query(query)[0], query[0] + net.content[...][:, None])


def test_xl_positions_depend_on_distances_alone() -> None:
    """Masked positions before a text change nothing."""
    x, net = hidden(8), trunk("xl")
    before = jnp.concatenate([hidden(9, 3), x], axis=1)
    shifted = apply(net, before, jnp.arange(9)[None] >= jnp.asarray([[3], [3]]))[:, 3:]
    np.testing.assert_allclose(shifted, apply(net, x, jnp.ones((2, 6), bool)), atol=1e-5)


@pytest.mark.parametrize("time", ["add", "adaln", "dit"])
def test_time_is_read_row_by_row(time: str) -> None:
    x, net = hidden(9), trunk(time=time)
    one, other = at_times(net, x, TIMES), at_times(net, x, TIMES.at[1, 0].set(300.0))
    np.testing.assert_array_equal(one[0], other[0])
    assert float(jnp.max(jnp.abs(one[1] - other[1]))) > 1e-3


@pytest.mark.parametrize("time", ["add", "adaln", "dit"])
def test_equal_times_per_token_are_the_time_of_the_text(time: str) -> None:
    x, net = hidden(10), trunk(time=time)
    each = jnp.broadcast_to(TIMES, x.shape[:2])
    output = at_times(net, x, each)
    np.testing.assert_allclose(output, at_times(net, x, TIMES), atol=1e-5)
    assert float(jnp.max(jnp.abs(at_times(net, x, each.at[0, 2].set(900.0))[0] - output[0]))) > 1e-3


def test_no_key_no_randomness() -> None:
    shape = dataclasses.replace(SMALL, dropout=0.3)
    wet, dry = (Trunk(s, timed=False, rngs=nnx.Rngs(0)) for s in (shape, dataclasses.replace(shape, dropout=0.0)))
    call = nnx.jit(lambda net, x, key: net(x, key=key))
    x = hidden(10)
    np.testing.assert_array_equal(call(wet, x, None), call(dry, x, None))
    np.testing.assert_array_equal(call(dry, x, jax.random.key(11)), call(dry, x, None))
    dropped_out = [call(wet, x, jax.random.key(seed)) for seed in (12, 12, 13)]
    np.testing.assert_array_equal(dropped_out[0], dropped_out[1])
    assert float(jnp.max(jnp.abs(dropped_out[0] - dropped_out[2]))) > 1e-3


def test_dropout_keeps_the_mean() -> None:
    dropped = np.asarray(dropout(jnp.full(40_000, 3.0), 0.25, jax.random.key(14)))
    np.testing.assert_allclose(np.unique(dropped), [0.0, 4.0], rtol=1e-6)
    assert abs(dropped.mean() - 3.0) <= 5 * dropped.std() / np.sqrt(dropped.size)


def test_rotary_products_depend_on_distance_alone() -> None:
    query, key = jax.random.normal(jax.random.key(15), (2, 8))
    at_every_place = lambda x: rotary(jnp.broadcast_to(x, (1, 1, 10, 8)), jnp.arange(10), 1_000.0)[0, 0]
    products = np.asarray(at_every_place(query) @ at_every_place(key).T)
    for distance in range(-9, 10):
        diagonal = np.diagonal(products, distance)
        np.testing.assert_allclose(diagonal, np.full_like(diagonal, diagonal[0]), atol=1e-5)
    assert abs(products[0, 3] - products[3, 0]) > 1e-3
    np.testing.assert_allclose(products[0, 0], query @ key, rtol=1e-5)


def test_sinusoid_starts_at_frequency_one() -> None:
    t = jnp.asarray([0.0, 1.0, 250.0])
    result = np.asarray(sinusoid(t, 8))
    np.testing.assert_allclose(result[0], [1, 1, 1, 1, 0, 0, 0, 0])
    np.testing.assert_allclose(result[:, [0, 4]], np.stack([np.cos(t), np.sin(t)], axis=-1), atol=1e-5)
    np.testing.assert_allclose(result[1, 5], np.sin(0.1), atol=1e-6)


@pytest.mark.parametrize("length", [1, 5, 12])
def test_shapes_pass_through(length: int) -> None:
    output = jax.eval_shape(lambda x: trunk("relative")(x, TIMES), hidden(16, length))
    assert output.shape == (2, length, SMALL.width)


@pytest.mark.parametrize(
    "bad",
    [
        {"width": 15},
        {"norm": "middle"},
        {"positions": "absolute"},
        {"time": "film"},
        {"time": "dit", "norm": "post"},
        {"time_width": 0},
        {"dropout": 1.0},
    ],
)
def test_invalid_settings_raise(bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        dataclasses.replace(SMALL, **bad)


OTHER_TRUNK = {"norm": "post", "time": "adaln", "positions": "relative"}


@pytest.mark.parametrize("changes", slow_but([OTHER_TRUNK], [{}, OTHER_TRUNK, {"causal": True}]))
def test_scan_and_rematerialisation_change_nothing(changes: dict) -> None:
    """Neither the output nor its gradient, with dropout of the same key."""
    shape = dataclasses.replace(SMALL, num_layers=2, dropout=0.2, **changes)
    outputs = []
    for how in ({}, {"scan": True}, {"remat": True}):
        net = Net(lambda rngs, how=how: Trunk(dataclasses.replace(shape, **how), timed=True, rngs=rngs))
        params = net.init(jax.random.key(0))
        loss = lambda params, net=net: jnp.sum(net.bind(params)(hidden(0), TIMES, key=jax.random.key(3)) ** 2)
        with jax.debug_key_reuse(False):  # recomputation draws the same dropout by the same key
            outputs.append(jax.jit(jax.value_and_grad(loss))(params))
    for scanned in outputs[1:]:
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-5), outputs[0], scanned)


@pytest.mark.parametrize("remat", slow_but([True], [False, True]))
def test_bfloat16_is_within_its_digits_and_stays_in_the_blocks(remat: bool) -> None:
    """Parameters, gradients and the trunk's output are float32; the output equals that of float32 to 8 bits."""
    shape = dataclasses.replace(SMALL, num_layers=2, remat=remat)
    outputs = []
    for bfloat16 in (False, True):
        net = Net(lambda rngs, half=bfloat16: Trunk(dataclasses.replace(shape, bfloat16=half), timed=True, rngs=rngs))
        params = net.init(jax.random.key(0))

        def loss(params: Params, net: Net = net) -> tuple[jax.Array, jax.Array]:
            output = net.bind(params)(hidden(0), TIMES)
            return jnp.sum(output**3), output

        gradient, output = jax.jit(jax.grad(loss, has_aux=True))(params)
        outputs.append(output)
        assert {leaf.dtype for leaf in jax.tree.leaves((params, gradient, output))} == {jnp.dtype(jnp.float32)}
    gap = np.abs(outputs[0] - outputs[1])
    assert 0 < gap.max() < 0.05


def test_rematerialisation_casts_only_the_dense_kernels() -> None:
    """Distance biases and the modulation by time stay float32, and so do their gradients."""
    shape = dataclasses.replace(SMALL, num_layers=2, positions="relative", time="adaln", bfloat16=True)
    net = Net(lambda rngs: Trunk(dataclasses.replace(shape, remat=True), timed=True, rngs=rngs))
    moved = lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape)
    params = jax.tree.map(moved, net.init(jax.random.key(0)))
    block = jax.jit(jax.grad(lambda params: jnp.sum(net.bind(params)(hidden(0), TIMES) ** 3)))(params)["blocks"]["0"]
    for leaf in (block["attention"]["relative_bias"], block["modulation"]["kernel"]):
        assert np.any(leaf != leaf.astype(jnp.bfloat16).astype(jnp.float32))


def test_bfloat16_steps_equal_the_whole_pass() -> None:
    """The cache is in bfloat16 and equals the keys and values of the whole pass."""
    made = Trunk(
        dataclasses.replace(SMALL, causal=True, bfloat16=True, positions="rotary"), timed=False, rngs=nnx.Rngs(0)
    )
    x, cache = hidden(0), made.init_cache(2, 6)
    assert {leaf.dtype for leaf in jax.tree.leaves(cache)} == {jnp.dtype(jnp.bfloat16)}
    whole = nnx.jit(lambda net, x: net(x))(made, x)
    step = nnx.jit(lambda net, x, position, cache: net.step(x, position, cache))
    for position in range(6):
        output, cache = step(made, x[:, position : position + 1], jnp.asarray(position), cache)
        np.testing.assert_allclose(output[:, 0], whole[:, position], atol=0.05)
