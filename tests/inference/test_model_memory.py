"""The parameters of a deleted model are freed, whatever was resolved, sampled or edited with it."""

import dataclasses
import gc
import weakref
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from jtextdiff.control.controls import keyword, length
from jtextdiff.inference.model import Model
from jtextdiff.methods.components.types import TextSpec
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.methods.text_vae import TextVAE
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.gaussian_samplers import Sampler

TEXT_SPEC = TextSpec(vocab_size=12, mask=12, pad=0, eos=1, unk=2, length=8, length_counts=(0, 0, 0, 9, 9, 9, 9, 9, 9))
TRUNK = Transformer(num_layers=1, width=16, num_heads=2)


class Spelling:
    """Words w3, w4, … as a tokenizer."""

    vocab_size, pad, eos, unk = 12, 0, 1, 2

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        return [np.asarray([int(word[1:]) for word in text.split()], int) for text in texts]

    def decode(self, ids: Any) -> str:
        return " ".join(f"w{token}" for token in ids if token > 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        DiffusionLM(text_spec=TEXT_SPEC, trunk=TRUNK, embed_dim=4, sampler=Sampler(steps=2)),
        TextVAE(text_spec=TEXT_SPEC, encoder=TRUNK, decoder=dataclasses.replace(TRUNK, causal=True), latent_dim=3),
    ],
    ids=["diffusion", "latent"],
)
def test_a_deleted_model_frees_its_parameters(method: Any) -> None:
    tokenizer: Any = Spelling()
    model = Model(
        method=method, params=method.init(jax.random.key(0)), tokenizer=tokenizer, config=ConfigDict(), step=0
    )
    control = keyword("w5")
    texts = model.sample(2, control=control + length(3))
    model.edit(texts, control=control)
    model.energy(texts, control)
    model.nll(texts)
    leaves = [weakref.ref(leaf) for leaf in jax.tree.leaves(model.params)]
    del model
    gc.collect()
    assert not [leaf().shape for leaf in leaves if leaf() is not None]
