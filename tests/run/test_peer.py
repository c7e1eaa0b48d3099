"""The peer in PyTorch is the same model: same parameters, same words, same noise, same answers and same loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.core import objectives
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.methods.method import Language
from jtextdiff.nets.transformer import Transformer

torch = pytest.importorskip("torch")
peer = pytest.importorskip("jtextdiff.run.peer")

METHOD = DiffusionLM(
    language=Language(vocab_size=20, pad=0, eos=1, length=7, length_counts=(0, *[1] * 7)),
    trunk=Transformer(num_layers=2, width=16, num_heads=2, time_features=8, max_length=9),
    embed_dim=6,
    num_steps=50,
)


@pytest.fixture(scope="module")
def given() -> dict:
    rng = np.random.default_rng(0)
    valid = np.arange(7)[None] < np.asarray([7, 4, 2])[:, None]
    t = np.ceil(rng.uniform(size=(3, 7)) * 48) / 50  # short of the last, clipped step
    return {
        "params": METHOD.init(jax.random.key(0)),
        "tokens": np.where(valid, rng.integers(2, 20, (3, 7)), 0),
        "valid": valid,
        "t": t.astype(np.float32),
        "eps": rng.standard_normal((3, 7, 6)).astype(np.float32),
    }


@pytest.mark.parametrize("two", [False, True])
def test_the_loss_is_ours(given: dict, two: bool) -> None:
    net, t, valid = METHOD.net.bind(given["params"]), jnp.asarray(given["t"]), jnp.asarray(given["valid"])
    marginal = METHOD.process.marginal(net.embed(jnp.asarray(given["tokens"])), t)
    x_t = marginal.mean + marginal.std * given["eps"]
    previous = METHOD._estimate(net, x_t, t, valid) if two else jnp.zeros_like(x_t)
    answer = METHOD._answer(net, x_t, t, previous, valid, None)
    losses = objectives.cross_entropy(answer, jnp.asarray(given["tokens"]))
    ours = objectives.mean_over(losses, valid).mean()
    words = [torch.as_tensor(given[name]) for name in ("tokens", "valid", "t", "eps")]
    theirs = peer.loss_of(peer.tensors(given["params"]), METHOD, *words, two)
    assert float(theirs) == pytest.approx(float(ours), rel=1e-4)


def test_it_trains_and_samples(given: dict) -> None:
    from jtextdiff.run.optim import AdamW
    from jtextdiff.text.batches import Batch

    batch = Batch(given["tokens"].astype(np.int32), given["valid"], np.zeros((3, 7), bool), {})
    step = peer.trainer(given["params"], METHOD, AdamW(), compiled=False)
    for _ in range(3):
        step(batch)
    assert peer.supports(METHOD)
    tokens = peer.sampler(given["params"], METHOD, 2, compiled=False)()
    assert tokens.shape == (2, 7)
