"""The PyTorch implementation has the same loss with the same parameters, tokens and noise."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.benchmarks.sampling import benchmark_sampling
from jtextdiff.benchmarks.timing import runnable
from jtextdiff.data.batches import Batch
from jtextdiff.diffusion import losses as objectives
from jtextdiff.inference.model import Model
from jtextdiff.methods.components.types import TextSpec
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.gaussian_samplers import Sampler
from jtextdiff.training.optimizer import Optimizer

torch = pytest.importorskip("torch")
peer = pytest.importorskip("jtextdiff.benchmarks.torch_diffusion_lm")

METHOD = DiffusionLM(
    text_spec=TextSpec(vocab_size=20, pad=0, eos=1, unk=2, length=7, length_counts=(0, *[1] * 7)),
    trunk=Transformer(num_layers=2, width=16, num_heads=2, time_features=8, max_length=9),
    embed_dim=6,
    num_steps=50,
    sampler=Sampler(steps=5),
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
def test_the_loss_equals_that_of_the_library(given: dict, two: bool) -> None:
    denoiser = METHOD._denoiser(given["params"])
    net, t, valid = denoiser.net, jnp.asarray(given["t"]), jnp.asarray(given["valid"])
    marginal = METHOD.process.marginal(net.embed(jnp.asarray(given["tokens"])), t)
    x_t = marginal.mean + marginal.std * given["eps"]
    previous = denoiser.first_estimate(x_t, t, valid) if two else jnp.zeros_like(x_t)
    logits = denoiser.predict(x_t, t, previous, valid, None)
    losses = objectives.cross_entropy(logits, jnp.asarray(given["tokens"]))
    ours = objectives.mean_over(losses, valid).mean()
    words = [torch.as_tensor(given[name]) for name in ("tokens", "valid", "t", "eps")]
    theirs = peer.loss_of(peer.tensors(given["params"]), METHOD, *words, two)
    assert float(theirs) == pytest.approx(float(ours), rel=1e-4)


def test_it_learns_a_batch_and_samples(given: dict) -> None:
    batch = Batch(given["tokens"].astype(np.int32), given["valid"], np.zeros((3, 7), bool), {})
    step = peer.trainer(given["params"], METHOD, Optimizer(decay_steps=100), compiled=False)
    losses = [float(step(batch, index % 2 == 0)) for index in range(200)]
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:20])
    tokens = peer.sampler(given["params"], METHOD, 3, compiled=False)()
    assert tokens.shape == (3, 7)
    assert bool((tokens[:, -1] == 1).all()) and not bool((tokens[:, :-1] < 3).any())  # no PAD, EOS or UNK inside


@pytest.mark.parametrize(
    "other",
    [{"self_conditioning": 0.0}, {"noisy_x_0": True}, {"cross_entropy": 0.5}, {"sampler": Sampler(name="ddim")}],
)
def test_it_supports_the_default_configuration_only(other: dict) -> None:
    assert peer.supports(METHOD)
    assert not peer.supports(dataclasses.replace(METHOD, **other))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own, while it compiles
def test_sampling_is_timed_against_it(given: dict) -> None:
    nothing: Any = None
    model = Model(method=METHOD, params=given["params"], tokenizer=nothing, config=nothing, step=0)
    result = benchmark_sampling(model, against=None, num=2, repeats=1, peer=True)
    assert result["sample_over_torch_eager"] > 0


def test_a_call_that_fails_is_not_timed(capsys: pytest.CaptureFixture[str]) -> None:
    makers = {"good": lambda: lambda: 1, "bad": lambda: lambda: 1 / 0, "worse": lambda: 1 / 0}
    assert list(runnable(makers)) == ["good"]
    messages = capsys.readouterr().err
    assert "bad does not run here" in messages and "worse does not run here" in messages
