"""Labelled texts are encoded with as many samples as asked for, whatever their lengths."""

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np

from jtextdiff.inference.model import Model
from jtextdiff.methods.components.types import TextSpec
from jtextdiff.methods.text_vae import TextVAE
from jtextdiff.nets.transformer import Transformer
from jtextdiff.training.latent_control import encode

SHAPE = Transformer(num_layers=1, width=16, num_heads=2)
LENGTHS = (0,) * 6 + (1,) * 11


def untrained() -> Model:
    """A model whose words are numbers."""
    method = TextVAE(
        text_spec=TextSpec(vocab_size=12, mask=12, pad=0, eos=1, unk=2, length=16, length_counts=LENGTHS),
        encoder=SHAPE,
        decoder=Transformer(num_layers=1, width=16, num_heads=2, causal=True),
        latent_dim=5,
    )
    rows = lambda texts: [np.asarray(list(map(int, text.split()))) for text in texts]
    tokenizer: Any = SimpleNamespace(pad=0, eos=1, unk=None, encode=rows)
    return Model(method=method, params=method.init(jax.random.key(0)), tokenizer=tokenizer, config=None, step=0)


def test_more_samples_than_tokens_are_drawn_of_short_and_long_texts() -> None:
    texts = ["3 4 5"] * 40 + [" ".join(["6"] * 13)] * 40
    keys = [jax.random.key(i) for i in range(20)]
    model = untrained()
    samples, mean, kl = encode(model, model.batch(texts), keys)
    assert samples.shape == (80, 20, 5) and mean.shape == (80, 5) and kl.shape == (80,)
    deviations = np.asarray(samples) - np.asarray(mean)[:, None]
    assert (np.abs(deviations).max(-1) > 1e-3).all()  # each is drawn
    assert len(np.unique(np.asarray(samples)[:, :, 0])) == 80 * 20  # with noise of its own
