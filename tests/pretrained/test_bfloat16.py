"""Parameters that stay bfloat16, as stored: half the memory, and the same outputs."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.command_line import run
from support.published import Tensors
from support.published import config_json as mdlm_config
from support.published import random_tensors as mdlm_tensors
from support.published import write_checkpoint as write_mdlm
from support.published_bert import config_json as bert_config
from support.published_bert import random_tensors as bert_tensors
from support.published_bert import write_checkpoint as write_bert
from support.published_llama import KINDS, config_json, random_tensors, write_checkpoint
from support.published_timed import CONFIGS as timed_configs
from support.published_timed import random_tensors as timed_tensors
from support.runs import ROOT, write_texts

import jtextdiff as jtd
from jtextdiff.inference.model import Model
from jtextdiff.pretrained.checkpoint_files import is_bfloat16
from jtextdiff.pretrained.families import network_of, open_source

COMPUTED: dict[str, tuple[Callable[..., Any], Any, Tensors]] = {
    "mdlm": (write_mdlm, mdlm_config(), mdlm_tensors(mdlm_config())),
    "sedd": (write_mdlm, timed_configs["sedd"], timed_tensors("sedd")),
    "bert": (write_bert, bert_config(), bert_tensors(bert_config())),
}
"""Families whose parameters are computed from the published tensors: what writes a toy, its config and tensors."""

TOKENS = np.array([[4, 19, 13, 0, 3, 19, 7, 3, 17], [3, 1, 6, 16, 19, 18, 16, 16, 8]])


def half(tensors: Tensors) -> Tensors:
    return {name: array.astype(jnp.bfloat16) for name, array in tensors.items()}


def logits(model: Model) -> np.ndarray:
    return np.asarray(jax.jit(lambda params: model.method.net.bind(params)(jnp.asarray(TOKENS)))(model.params))


def widened(model: Model) -> Model:
    """Returns the model with the same parameters in float32."""
    method: Any = dataclasses.replace(model.method, param_dtype="float32")
    return dataclasses.replace(model, method=method, params=jax.tree.map(lambda a: a.astype(jnp.float32), model.params))


@pytest.mark.parametrize("kind", KINDS)
def test_a_bfloat16_checkpoint_keeps_its_type_and_computes_in_float32(kind: str, tmp_path: Path) -> None:
    config = config_json(kind)
    write_checkpoint(tmp_path, config, half(random_tensors(config)))
    model = jtd.from_pretrained(tmp_path)
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_array_equal(logits(model), logits(widened(model)))
    assert logits(model).dtype == np.float32


def test_tensors_that_the_network_does_not_read_have_no_say_in_its_type(tmp_path: Path) -> None:
    config = bert_config()
    positions = {"bert.embeddings.position_ids": np.arange(config["max_position_embeddings"])[None]}
    write_bert(tmp_path, config, half(bert_tensors(config)) | positions)
    checkpoint = open_source(tmp_path)
    network = network_of(checkpoint)
    assert is_bfloat16(checkpoint, [network.prefix + name for name in network.tensors])
    assert not is_bfloat16(checkpoint, checkpoint.tensors)


def test_a_checkpoint_of_mixed_types_becomes_float32_and_loses_nothing(tmp_path: Path) -> None:
    config = config_json("llada")
    tensors = random_tensors(config)
    exact = {name: array for name, array in tensors.items() if "norm" in name}
    write_checkpoint(tmp_path, config, half(tensors) | exact)
    params = jtd.from_pretrained(tmp_path).params
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    np.testing.assert_array_equal(
        params["trunk"]["blocks"]["0"]["norm_mlp"]["scale"], exact["model.transformer.blocks.0.ff_norm.weight"]
    )


@pytest.mark.parametrize("kind", COMPUTED)
def test_computed_parameters_are_float32_or_rounded_once(kind: str, tmp_path: Path) -> None:
    """Such as those of MDLM: constants of adaLN multiply its weights."""
    write, config, tensors = COMPUTED[kind]
    tensors = half(tensors)
    write(tmp_path / "half", config, tensors)
    write(tmp_path / "whole", config, {name: array.astype(np.float32) for name, array in tensors.items()})
    found, expected = (jtd.from_pretrained(tmp_path / name).params for name in ("half", "whole"))
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    rounded = jtd.from_pretrained(tmp_path / "half", overrides=["method.param_dtype=bfloat16"]).params
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b.astype(jnp.bfloat16)), rounded, expected)


@pytest.mark.slow
def test_a_run_keeps_bfloat16_if_it_does_not_train(tmp_path: Path) -> None:
    """A run that trains refuses it, before anything is read."""
    write_texts(tmp_path)
    config = config_json("Dream")
    write_checkpoint(tmp_path / "checkpoint", config, half(random_tensors(config)))
    flags = [f"--config={ROOT}/configs/masked.py", "--config.init=checkpoint", "--workdir=run"]
    flags += ["--config.text.path=texts.txt", "--config.method.param_dtype=bfloat16", "--config.batch_size=8"]
    refused = run("train", *flags, "--config.num_steps=5", cwd=tmp_path)
    assert refused.returncode == 2 and "param_dtype=bfloat16 is for models that do not train" in refused.stderr
    assert not (tmp_path / "run").exists()
    assert run("train", *flags, "--config.num_steps=0", cwd=tmp_path).returncode == 0
    stored = jtd.load(tmp_path / "run").params
    jax.tree.map(np.testing.assert_array_equal, stored, jtd.from_pretrained(tmp_path / "checkpoint").params)
    assert {leaf.dtype for leaf in jax.tree.leaves(stored)} == {jnp.dtype(jnp.bfloat16)}
