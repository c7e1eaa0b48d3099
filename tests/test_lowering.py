"""Lowering for accelerators: training and sampling of every config lower for CUDA and TPU on any machine."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import export
from support.cases import slow_but

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.methods.classifier import Classifier
from jtextdiff.methods.components.latents import FlowLimits
from jtextdiff.methods.components.types import TextSpec, nothing_given
from jtextdiff.methods.method import Controllable, LatentVariableModel, Method
from jtextdiff.nets.functional import Net
from jtextdiff.nets.transformer import Transformer
from jtextdiff.nets.trunk import Trunk
from jtextdiff.run.config import build, spec
from jtextdiff.run.config_files import load_config
from jtextdiff.sampling.energies import Learned
from jtextdiff.sampling.rectified_flow import Field
from jtextdiff.training.optimizer import Optimizer
from jtextdiff.training.train_step import init_state, train_step

CONFIGS = Path(__file__).parents[1] / "configs"
PRESETS = (
    *(
        "autoregressive.py",
        "block_diffusion.py",
        "cmlm.py",
        "d3pm.py",
        "della.py",
        "della.py:paper",
        "della.py:transformer_xl",
        "masked.py",
    ),
    *("diffusion_lm.py", "diffusion_lm.py:paper", "diffusion_lm.py:e2e"),
    *("latent_ops.py", "latent_ops.py:cvae", "latent_ops.py:paper"),
)

PLATFORMS = ("cuda", "tpu")
KERNELS = ("__cudnn$fmhaScaleBiasSoftmax", "__cudnn$fmhaScaleBiasSoftmaxBackward")
LENGTH, ROWS = 8, 4
TEXT_SPEC = TextSpec(vocab_size=11, mask=11, pad=0, eos=1, unk=2, length=LENGTH, length_counts=(0,) + (1,) * LENGTH)


def toy(preset: str) -> Any:
    """Returns the method and the optimizer of a config, with small trunks."""
    config = load_config(f"{CONFIGS}/{preset}")
    with config.unlocked():
        config.method.text_spec = spec(TextSpec, **vars(TEXT_SPEC))
        levels = "levels" in config.method and config.method.levels.num > 1
        if levels:
            config.method.levels.num = 2
        for trunk in {"trunk", "encoder", "decoder"} & set(config.method):
            config.method[trunk].update(num_layers=1 + levels, width=32, num_heads=2, max_length=16)
        if config.method.get("condition"):
            config.method["values"] = ("none", "good", "bad")
        if "steps" in config.method.sampler:
            config.method.sampler.steps = 3
    config.optim.decay_steps = 10
    return build(config.method), build(config.optim)


def batch(method: Any) -> Batch:
    tokens, mask = jnp.ones((ROWS, LENGTH), jnp.int32), jnp.ones((ROWS, LENGTH), bool)
    labels = {method.condition: jnp.ones(ROWS, jnp.int32)} if getattr(method, "condition", "") else {}
    full: Any = Batch(tokens, mask, mask, labels, jnp.ones(ROWS))
    return full


def lowers(function: Any, *arguments: Any) -> str:
    """Returns the program of a function for all platforms."""
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
    return export.export(jax.jit(function), platforms=PLATFORMS)(*shapes).mlir_module()


@pytest.mark.parametrize("preset", slow_but(["latent_ops.py"], PRESETS))
def test_training_and_sampling_of_every_config_lower(preset: str) -> None:
    method, optim = toy(preset)
    init = functools.partial(init_state, method, optim)
    state, key = jax.eval_shape(init, jax.random.key(0)), jax.random.key(0)
    lowers(functools.partial(train_step, method, optim), state, key, batch(method))
    assert isinstance(method, Method)
    given, keys = nothing_given(ROWS, LENGTH), keys_for(key, jnp.arange(ROWS))
    if getattr(method, "condition", ""):
        given = given._replace(label=jnp.ones(ROWS, jnp.int32))
    lowers(method.sample, state["params"], keys, given)
    lowers(method.nll, state["params"], key, batch(method))


@pytest.mark.slow
def test_guidance_and_latent_editing_lower() -> None:
    key = jax.random.key(0)
    keys, given = keys_for(key, jnp.arange(ROWS)), nothing_given(ROWS, LENGTH)
    guided, _ = toy("diffusion_lm.py")
    params = jax.eval_shape(guided.init, key)
    energy = Learned(
        params=None, target=jnp.zeros(()), log_prob=lambda params, goal, x, t, valid: -jnp.sum(x**2, (1, 2))
    )
    lowers(lambda params, keys, given: guided.sample(params, keys, given, energy=energy), params, keys, given)
    rewriting_lowers("latent_ops.py", max_time=None)


@pytest.mark.slow
def test_latent_editing_of_a_given_time_lowers() -> None:
    rewriting_lowers("latent_ops.py", max_time=10.0)


@pytest.mark.slow
def test_rewrites_of_several_levels_along_a_field_lower() -> None:
    velocity = lambda delta, target, z, s: jnp.broadcast_to(delta, z.shape)
    field = Field(params=jnp.ones(()), target=0, strength=jnp.ones(()), velocity=velocity)
    rewriting_lowers("della.py:small", max_time=jnp.float32(0.0), field=field)


def rewriting_lowers(preset: str, **limits: Any) -> None:
    vae, _ = toy(preset)
    assert isinstance(vae, LatentVariableModel) and isinstance(vae, Controllable)

    def rewrite(params: Any, keys: Any, given: Any) -> Any:
        energy = vae.keyword_energy(params, jnp.ones((1, TEXT_SPEC.vocab_size), bool))
        limit = FlowLimits(target_probability=0.9, **limits)
        return vae.rewrite(params, keys, given, energy=energy, length=jnp.int32(0), limits=limit)

    key = jax.random.key(0)
    keys = keys_for(key, jnp.arange(ROWS))
    lowers(rewrite, jax.eval_shape(vae.init, key), keys, nothing_given(ROWS, LENGTH))


@pytest.mark.slow
def test_training_of_a_control_lowers() -> None:
    base, _ = toy("diffusion_lm.py")
    control = dataclasses.replace(
        Classifier(), base=base, label="food", values=("none", "Thai"), trunk=Transformer(num_layers=1, width=32)
    )
    labelled = batch(control)._replace(labels={"food": jnp.ones(ROWS, jnp.int32)})
    state = jax.eval_shape(functools.partial(init_state, control, Optimizer(decay_steps=100)), jax.random.key(0))
    lowers(functools.partial(train_step, control, Optimizer(decay_steps=100)), state, jax.random.key(0), labelled)


def test_fused_attention_lowers_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program for a GPU, with a fake for the version check of cuDNN."""
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91_100)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    shape = Transformer(num_layers=2, width=32, num_heads=2, max_length=16, bfloat16=True)
    for remat in (False, True):
        net = Net(lambda rngs, remat=remat: Trunk(dataclasses.replace(shape, remat=remat), timed=False, rngs=rngs))
        params = jax.eval_shape(net.init, jax.random.key(0))
        x, valid = jax.ShapeDtypeStruct((ROWS, LENGTH, 32), jnp.float32), jax.ShapeDtypeStruct((ROWS, LENGTH), bool)
        total = lambda params, x, valid, net=net: jnp.sum(net.bind(params)(x, valid=valid))
        custom = [export.DisabledSafetyCheck.custom_call(name) for name in KERNELS]
        exported = export.export(jax.jit(jax.grad(total)), platforms=["cuda"], disabled_checks=custom)
        text = exported(params, x, valid).mlir_module()
        assert text.count("fmha") >= 2, "forward and backward"
