"""The conditional text VAE depends on its label, and equals the unconditional one if label weights are zero."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.params import random_params

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.inference.batched import jitted
from jtextdiff.methods.components.affine_prior import initial_prior
from jtextdiff.methods.components.label_conditioning import label_index, one_hot_label
from jtextdiff.methods.components.latents import LatentSampler
from jtextdiff.methods.components.types import TextSpec, nothing_given
from jtextdiff.methods.text_vae import TextVAE
from jtextdiff.nets.transformer import Transformer

TEXT_SPEC = TextSpec(vocab_size=9, mask=9, pad=0, eos=1, unk=2, length=6, length_counts=(0, 0, 1, 5, 5, 5, 5))
SHAPE = Transformer(num_layers=1, width=16, num_heads=2)
PLAIN = TextVAE(
    text_spec=TEXT_SPEC,
    encoder=SHAPE,
    decoder=dataclasses.replace(SHAPE, causal=True),
    latent_dim=4,
    importance_samples=2,
)
CONDITIONAL = dataclasses.replace(PLAIN, condition="mood", values=("bad", "good", "none"), label_dropout=0.0)
TOKENS = np.asarray([[3, 4, 5, 1, 0, 0], [6, 7, 1, 0, 0, 0], [3, 3, 8, 4, 5, 1]], np.int32)
VALID = np.asarray([[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0], [1] * 6], bool)


def batch(*mood: int) -> Batch:
    return Batch(TOKENS, VALID, np.zeros_like(VALID), {"mood": np.asarray(mood, np.int32)} if mood else {})


@pytest.fixture(scope="module")
def params() -> dict:
    return {**random_params(CONDITIONAL.init), "law": initial_prior(4)}


def without_label_weights(params: dict) -> tuple[dict, dict]:
    """Returns the parameters with all label weights zero, and those of the unconditional VAE among them."""
    encoder, decoder = dict(params["reader"]), dict(params["writer"])
    label_layer = encoder.pop("beside")
    cut = {layer: {**decoder[layer], "kernel": decoder[layer]["kernel"][:4]} for layer in ("add", "remember", "bag")}
    full = {layer: {**cut[layer], "kernel": jnp.pad(cut[layer]["kernel"], ((0, 3), (0, 0)))} for layer in cut}
    zeros = jax.tree.map(jnp.zeros_like, label_layer)
    zeroed = {**params, "reader": {**encoder, "beside": zeros}, "writer": {**decoder, **full}}
    return zeroed, {**params, "reader": encoder, "writer": {**decoder, **cut}}


def test_zero_label_weights_give_the_unconditional_vae(params: dict) -> None:
    zeroed, plain = without_label_weights(params)
    loss = lambda method, params, *mood: jitted(method, "loss")(params, jax.random.key(1), batch(*mood))[0]
    np.testing.assert_allclose(loss(CONDITIONAL, zeroed, 0, 1, 2), loss(PLAIN, plain), rtol=1e-5)
    nll = lambda method, params, *mood: jitted(method, "nll")(params, jax.random.key(1), batch(*mood))
    np.testing.assert_allclose(nll(CONDITIONAL, zeroed, 1, 1, 0), nll(PLAIN, plain), rtol=1e-5)


@pytest.mark.parametrize("values", [("bad", "good", "none"), ("none", "bad", "good"), ("bad", "fair", "good")])
def test_each_value_has_its_own_input_and_none_has_no_input(values: tuple[str, ...]) -> None:
    encoded = one_hot_label(label_index(batch(0, 1, 2), "mood", values), 3, 3)
    np.testing.assert_array_equal(encoded, np.diag([value != "none" for value in values]))
    assert not np.any(label_index(batch(), "mood", values))


def test_the_nll_depends_on_the_label_and_none_is_no_label(params: dict) -> None:
    nll = lambda *mood: np.asarray(jitted(CONDITIONAL, "nll")(params, jax.random.key(1), batch(*mood)))
    assert np.all(nll(0, 0, 0) != nll(1, 1, 1))
    np.testing.assert_array_equal(nll(2, 2, 2), nll())


def test_a_label_that_is_always_dropped_has_no_gradient(params: dict) -> None:
    masked = dataclasses.replace(CONDITIONAL, label_dropout=1 - 1e-7)
    grads = jax.jit(jax.grad(lambda params: masked.loss(params, jax.random.key(1), batch(0, 1, 1))[0].mean()))(params)
    np.testing.assert_array_equal(grads["writer"]["add"]["kernel"][4:], 0.0)
    np.testing.assert_array_equal(grads["reader"]["beside"]["kernel"], 0.0)


def test_guidance_scale_interpolates_from_no_label_to_the_label_and_beyond(params: dict) -> None:
    scaled = jax.tree.map(lambda leaf: leaf, params)
    kernel = scaled["writer"]["add"]["kernel"]
    scaled["writer"] = {**scaled["writer"], "add": {**scaled["writer"]["add"], "kernel": kernel.at[4:].mul(30.0)}}
    keys = keys_for(jax.random.key(2), jnp.arange(8))

    def sample(guidance_scale: float, label: int) -> np.ndarray:
        method = dataclasses.replace(CONDITIONAL, sampler=LatentSampler(guidance_scale=guidance_scale))
        given = nothing_given(8, 6)._replace(label=jnp.full(8, label))
        return np.asarray(jitted(method, "sample")(scaled, keys, given).tokens)

    np.testing.assert_array_equal(sample(0.0, 2), sample(1.0, 0))
    assert np.any(sample(1.0, 2) != sample(1.0, 0)) and np.any(sample(1.0, 1) != sample(1.0, 2))
    assert np.any(sample(3.0, 2) != sample(0.0, 2))
