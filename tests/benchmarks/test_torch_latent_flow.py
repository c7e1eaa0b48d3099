"""The torchdiffeq flow ends where that of the library does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion import schedules
from jtextdiff.methods.components.types import TextSpec
from jtextdiff.methods.latent_classifier import LatentClassifier
from jtextdiff.methods.text_vae import TextVAE
from jtextdiff.sampling.energies import Learned, Sum
from jtextdiff.sampling.latent_flow import descend

pytest.importorskip("torchdiffeq")

BASE = TextVAE(text_spec=TextSpec(vocab_size=5, mask=5, pad=0, eos=1, length=4), latent_dim=6)


@pytest.mark.parametrize("width", [0, 8])
def test_both_end_at_the_same_latents(width: int) -> None:
    from jtextdiff.benchmarks.torch_latent_flow import flow

    method = LatentClassifier(base=BASE, label="mood", values=("bad", "good", "odd"), width=width)
    params = method.init(jax.random.key(0))
    params["temperature"] = jnp.asarray(0.7)
    one, other = (
        method.energy(params, np.asarray(target), {}) for target in ([True, False, False], [False, True, True])
    )
    energy = Sum(energies=(one, other), weights=(np.float32(1), np.float32(0.5)))
    z = np.asarray(jax.random.normal(jax.random.key(1), (7, 6)))
    ours = descend(energy, jnp.asarray(z), schedules.constant(2 * 5.025), tolerance=1e-6).z
    assert np.abs(ours - z).max() > 0.1
    np.testing.assert_allclose(flow(energy, z, 5.025, 1e-6)().numpy(), ours, atol=1e-3)


def test_an_energy_of_words_is_rejected() -> None:
    from jtextdiff.benchmarks.torch_latent_flow import flow

    words = Learned(params=jnp.zeros(()), target=jnp.zeros(()), log_prob=lambda *arguments: jnp.zeros(1))
    with pytest.raises(ValueError, match="learned from labels"):
        flow(Sum(energies=(words,), weights=(np.float32(1),)), np.zeros((1, 2), np.float32), 1.0)
