"""A text VAE with a condition listens to its label, and is the plain one where the label has no weight."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.inference.batched import jitted
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
TOLD = dataclasses.replace(PLAIN, condition="mood", values=("bad", "good", "none"), label_dropout=0.0)
TOKENS = np.asarray([[3, 4, 5, 1, 0, 0], [6, 7, 1, 0, 0, 0], [3, 3, 8, 4, 5, 1]], np.int32)
VALID = np.asarray([[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0], [1] * 6], bool)


def batch(*mood: int) -> Batch:
    return Batch(TOKENS, VALID, np.zeros_like(VALID), {"mood": np.asarray(mood, np.int32)} if mood else {})


@pytest.fixture(scope="module")
def params() -> dict:
    return TOLD.init(jax.random.key(0))


def deaf(params: dict) -> tuple[dict, dict]:
    """The parameters with all that reads a label at zero; and those of them that a plain one has."""
    reader, writer = dict(params["reader"]), dict(params["writer"])
    beside = reader.pop("beside")
    cut = {door: {**writer[door], "kernel": writer[door]["kernel"][:4]} for door in ("add", "remember", "bag")}
    full = {door: {**cut[door], "kernel": jnp.pad(cut[door]["kernel"], ((0, 3), (0, 0)))} for door in cut}
    silent = jax.tree.map(jnp.zeros_like, beside)
    whole = {**params, "reader": {**reader, "beside": silent}, "writer": {**writer, **full}}
    return whole, {**params, "reader": reader, "writer": {**writer, **cut}}


def test_without_weight_on_the_label_it_is_the_plain_one(params: dict) -> None:
    whole, plain = deaf(params)
    loss = lambda method, params, *mood: jitted(method, "loss")(params, jax.random.key(1), batch(*mood))[0]
    np.testing.assert_allclose(loss(TOLD, whole, 0, 1, 2), loss(PLAIN, plain), rtol=1e-5)
    nll = lambda method, params, *mood: jitted(method, "nll")(params, jax.random.key(1), batch(*mood))
    np.testing.assert_allclose(nll(TOLD, whole, 1, 1, 0), nll(PLAIN, plain), rtol=1e-5)


def test_the_label_is_heard_and_none_is_no_label(params: dict) -> None:
    nll = lambda *mood: np.asarray(jitted(TOLD, "nll")(params, jax.random.key(1), batch(*mood)))
    assert np.all(nll(0, 0, 0) != nll(1, 1, 1))
    np.testing.assert_array_equal(nll(2, 2, 2), nll())


def test_a_label_that_is_never_told_is_not_learned_from(params: dict) -> None:
    hushed = dataclasses.replace(TOLD, label_dropout=1 - 1e-7)
    down = jax.jit(jax.grad(lambda params: hushed.loss(params, jax.random.key(1), batch(0, 1, 1))[0].mean()))(params)
    np.testing.assert_array_equal(down["writer"]["add"]["kernel"][4:], 0.0)
    np.testing.assert_array_equal(down["reader"]["beside"]["kernel"], 0.0)


def test_sharpening_goes_from_no_label_through_the_label_and_beyond(params: dict) -> None:
    loud = jax.tree.map(lambda leaf: leaf, params)
    kernel = loud["writer"]["add"]["kernel"]
    loud["writer"] = {**loud["writer"], "add": {**loud["writer"]["add"], "kernel": kernel.at[4:].mul(30.0)}}
    keys = keys_for(jax.random.key(2), jnp.arange(8))

    def write(guidance_scale: float, label: int) -> np.ndarray:
        method = dataclasses.replace(TOLD, sampler=LatentSampler(guidance_scale=guidance_scale))
        given = nothing_given(8, 6)._replace(label=jnp.full(8, label))
        return np.asarray(jitted(method, "sample")(loud, keys, given).tokens)

    np.testing.assert_array_equal(write(0.0, 2), write(1.0, 0))
    assert np.any(write(1.0, 2) != write(1.0, 0)) and np.any(write(1.0, 1) != write(1.0, 2))
    assert np.any(write(3.0, 2) != write(0.0, 2))
