"""Self-conditioned networks of tokens: equal to others at first, two passes in the bound, one a step in sampling."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.cases import slow_but

from jtextdiff.data.batches import Batch
from jtextdiff.methods import d3pm
from jtextdiff.methods.components.types import Given, TextSpec
from jtextdiff.methods.d3pm import D3PM
from jtextdiff.methods.masked import Masked
from jtextdiff.nets.functional import Params
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.masked_samplers import Unmasking

TEXT_SPEC = TextSpec(vocab_size=12, mask=12, pad=0, eos=1, unk=2, length=6, length_counts=(0, 0, 0, 2, 1, 1, 1))
TRUNK = Transformer(num_layers=1, width=16, num_heads=2, max_length=8)
METHODS = {
    "masked": Masked(text_spec=TEXT_SPEC, trunk=TRUNK, bound_points=2),
    "remasking": Masked(text_spec=TEXT_SPEC, trunk=TRUNK, sampler=Unmasking(name="remasking", steps=5)),
    "absorbing": D3PM(text_spec=TEXT_SPEC, trunk=TRUNK, num_steps=20, bound_points=2, sampler=d3pm.Sampler(steps=5)),
    "uniform": D3PM(text_spec=TEXT_SPEC, trunk=TRUNK, kernel="uniform", num_steps=20, sampler=d3pm.Sampler(steps=5)),
}
TOKENS = np.asarray([[3, 4, 5, 1, 0, 0], [6, 7, 1, 0, 0, 0], [3, 3, 8, 4, 5, 1]], np.int32)
VALID = np.asarray([[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0], [1] * 6], bool)
BATCH = Batch(TOKENS, VALID, np.zeros_like(VALID), {})
MASKED = VALID & (np.arange(6) % 2 == 0)
GIVEN = Given(jnp.full((4, 6), 7), jnp.zeros((4, 6), bool).at[:, 1].set(True), jnp.asarray([4, 6, 3, 5]))


def keys() -> jax.Array:
    return jax.random.split(jax.random.key(3), 4)


def conditioned(name: str) -> D3PM | Masked:
    return dataclasses.replace(METHODS[name], self_conditioning=0.9)


def trained(name: str) -> Params:
    """Parameters under which the hidden states of the pass before matter."""
    params = conditioned(name).init(jax.random.key(0))
    return {**params, "previous": jax.tree.map(lambda leaf: leaf + 0.7, params["previous"])}


@pytest.mark.parametrize("name", slow_but(["masked"], METHODS))
def test_a_fresh_network_computes_what_one_without_self_conditioning_does(name: str) -> None:
    params = conditioned(name).init(jax.random.key(0))
    rest = {part: leaves for part, leaves in params.items() if part != "previous"}
    for function, inputs in (("nll", BATCH), ("loss", BATCH), ("sample", GIVEN)):
        results = [
            jax.jit(getattr(method, function))(own, keys() if inputs is GIVEN else jax.random.key(1), inputs)
            for method, own in ((conditioned(name), params), (METHODS[name], rest))
        ]
        # Remasking makes more calls: in every step, not only where a token is revealed.
        compared = [result.tokens for result in results] if inputs is GIVEN else results
        jax.tree.map(np.testing.assert_array_equal, *compared)


@pytest.mark.parametrize("name", slow_but(["remasking"], METHODS))
def test_samples_read_the_step_before_and_do_not_depend_on_their_batch(name: str) -> None:
    sample, params = jax.jit(conditioned(name).sample), trained(name)
    tokens = np.asarray(sample(params, keys(), GIVEN).tokens)
    assert np.all(tokens[:, 1] == 7)
    assert [row[length - 1] for row, length in zip(tokens, GIVEN.length, strict=True)] == [1] * 4
    order = np.asarray([2, 0, 3, 1])
    again = sample(params, keys()[order], jax.tree.map(lambda leaf: leaf[order], GIVEN))
    np.testing.assert_array_equal(again.tokens, tokens[order])
    many = jax.tree.map(lambda leaf: jnp.tile(leaf, (16,) + (1,) * (leaf.ndim - 1)), GIVEN)
    first_pass = conditioned(name).init(jax.random.key(0))
    both = [sample(own, jax.random.split(jax.random.key(5), 64), many).tokens for own in (params, first_pass)]
    assert np.any(both[0] != both[1])


def second_pass(params: Params, first: Params) -> jax.Array:
    """−log p of the tokens by hand, where the network with parameters `first` makes the hidden states that it reads."""
    net, x_t, valid = conditioned("masked").net, jnp.where(MASKED, 12, TOKENS), jnp.asarray(VALID)
    previous = net.bind(first).hidden(x_t, valid=valid)
    log_p = jax.nn.log_softmax(net.bind(params).logits(net.bind(params).hidden(x_t, previous=previous, valid=valid)))
    return -jnp.take_along_axis(log_p, TOKENS[..., None], axis=-1)[..., 0]


@pytest.mark.slow
def test_losses_are_those_of_a_second_pass_through_whose_first_no_gradient_flows() -> None:
    params = trained("masked")

    def losses(params: Params, two_passes: bool = True) -> jax.Array:
        denoiser = conditioned("masked")._denoiser(params)
        return denoiser.losses(jnp.asarray(TOKENS), jnp.asarray(VALID), two_passes=two_passes)(jnp.asarray(MASKED))

    np.testing.assert_allclose(losses(params), second_pass(params, params), rtol=1e-5)
    assert not np.allclose(losses(params, two_passes=False), second_pass(params, params), rtol=1e-2)
    gradient = jax.jit(jax.grad(lambda own: jnp.sum(losses(own))))(params)
    by_hand = jax.jit(jax.grad(lambda own: jnp.sum(second_pass(own, params))))(params)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-4), gradient, by_hand)


def test_terms_of_the_bound_are_those_of_a_second_pass() -> None:
    method, params = conditioned("uniform"), trained("uniform")
    index, valid = jnp.asarray([3, 9, 17]), jnp.asarray(VALID)

    def second_pass(params: Params, key: jax.Array) -> jax.Array:
        net, x_t = method.net.bind(params), method.process.noised(key, jnp.asarray(TOKENS), index / 20)
        previous = net.hidden(x_t, index, valid=valid)
        return jax.nn.log_softmax(net.logits(net.hidden(x_t, index, previous=previous, valid=valid)))

    terms = jax.jit(lambda params, key: method._denoiser(params).terms(key, jnp.asarray(TOKENS), valid, index))
    log_p = np.asarray(jax.jit(second_pass)(params, jax.random.key(4)))
    by_hand = -np.take_along_axis(log_p, TOKENS[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(terms(params, jax.random.key(4))[1], by_hand, rtol=1e-5)


@pytest.mark.parametrize("name", slow_but(["masked"], ["masked", "uniform"]))
def test_a_share_of_the_training_steps_has_two_passes(name: str) -> None:
    half, always = (dataclasses.replace(METHODS[name], self_conditioning=share) for share in (0.5, 0.999999))
    params, num_equal = trained(name), 0
    loss_of = {method: jax.jit(method.loss) for method in (half, always)}
    for seed in range(8, 14):
        of_half, of_always = (loss_of[m](params, jax.random.key(seed), BATCH)[0] for m in (half, always))
        equal = np.allclose(of_half, of_always, rtol=1e-6)
        assert equal == bool(half.two_passes(jax.random.key(seed)))
        num_equal += equal
    assert 0 < num_equal < 6


def test_the_first_pass_reads_zeros() -> None:
    hidden = jax.jit(conditioned("masked").net.bind(trained("masked")).hidden)
    first = hidden(TOKENS, valid=VALID)
    np.testing.assert_array_equal(first, hidden(TOKENS, previous=jnp.zeros_like(first), valid=VALID))


def test_what_is_bounded_is_named() -> None:
    for name in ("masked", "uniform"):
        assert "two passes" in conditioned(name).bound and "two passes" not in METHODS[name].bound


@pytest.mark.parametrize("kind", [Masked, D3PM])
def test_a_share_of_one_is_refused(kind: type) -> None:
    with pytest.raises(ValueError, match="self_conditioning must be at least 0 and below 1"):
        kind(self_conditioning=1.0)
