"""Adapters of imported models: they alone are trained, stored beside the parameters, and merged by export."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.command_line import Completed, run
from support.published import config_json as mdlm_config
from support.published import write_checkpoint as write_mdlm
from support.published_llama import config_json, random_tensors, write_checkpoint
from support.runs import ROOT, write_texts

import jtextdiff as jtd
from jtextdiff.methods.masked import Masked
from jtextdiff.nets.functional import adapters_of, is_adapter, merged, with_adapters
from jtextdiff.nets.transformer import Transformer
from jtextdiff.training.optimizer import Optimizer

TEXTS = ["The Mill is cheap .", "The Swan is dear ."]


def start(folder: Path, *more: str, steps: int, workdir: str = "run") -> Completed:
    flags = [f"--config={ROOT}/configs/masked.py", "--config.init=checkpoint", f"--workdir={workdir}"]
    flags += ["--config.text.path=texts.txt", f"--config.num_steps={steps}", "--config.batch_size=16"]
    done = run("train", *flags, "--config.method.lora_rank=2", "--config.optim.warmup=1", *more, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done


def leaves(params: Any, adapters: bool) -> dict[str, jax.Array]:
    paths = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path): leaf for path, leaf in paths if is_adapter(path) is adapters}


def test_adapters_are_parts_of_a_tree_and_join_their_kernels() -> None:
    kernel, a, b = np.eye(3), np.ones((3, 1)), np.arange(3.0)[None]
    adapters = {"dense": {"kernel_lora_a": a, "kernel_lora_b": b}}
    base = {"dense": {"kernel": kernel, "bias": np.zeros(3)}, "norm": {"scale": np.ones(3)}}
    whole = with_adapters(base, adapters)
    assert jax.tree.all(jax.tree.map(np.array_equal, adapters_of(whole), adapters))
    expected = base | {"dense": {"kernel": kernel + a @ b, "bias": np.zeros(3)}}
    jax.tree.map(np.testing.assert_array_equal, merged(whole), expected)
    assert adapters_of(base) == {} and merged(base).keys() == base.keys()


@pytest.mark.parametrize("adapted", [True, False])
def test_the_optimizer_leaves_all_but_adapters_as_they_are(adapted: bool) -> None:
    params = {"kernel": jnp.ones((2, 2), jnp.bfloat16 if adapted else jnp.float32)}
    params |= {"kernel_lora_a": jnp.ones((2, 1))} if adapted else {}
    optimizer = Optimizer(decay="constant", warmup=1)
    state = optimizer.init(params)
    after, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
    averaged = optimizer.average(params, after, jnp.zeros((), jnp.int32))
    for tree in (after, averaged):
        changed = {name: bool(np.any(np.asarray(leaf, float) != 1)) for name, leaf in tree.items()}
        assert changed == ({"kernel": False, "kernel_lora_a": True} if adapted else {"kernel": True})
        assert {name: leaf.dtype for name, leaf in tree.items()} == {name: leaf.dtype for name, leaf in params.items()}


def test_what_has_no_adapters_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jtextdiff.methods.masked.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="lora_rank needs the package qwix: pip install"):
        Masked(lora_rank=2)
    monkeypatch.setattr("jtextdiff.methods.masked.find_spec", lambda name: name)
    with pytest.raises(ValueError, match="does not go with trunk.scan or trunk.remat"):
        Masked(lora_rank=2, trunk=Transformer(remat=True))
    with pytest.raises(ValueError, match="lora_rank must be at least 0"):
        Masked(lora_rank=-1)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_adapters_alone_are_trained_and_lower_the_loss(dtype: str, tmp_path: Path) -> None:
    pytest.importorskip("qwix")
    write_texts(tmp_path)
    config = config_json("llada")
    tensors = {name: array.astype(jnp.bfloat16) for name, array in random_tensors(config).items()}
    write_checkpoint(tmp_path / "checkpoint", config, tensors)
    more = (f"--config.method.param_dtype={dtype}", "--config.optim.peak=0.02", "--config.optim.ema=0.5")
    start(tmp_path, *more, steps=0, workdir="before")
    start(tmp_path, *more, steps=40)
    before, after = jtd.load(tmp_path / "before"), jtd.load(tmp_path / "run")
    base, expected = leaves(after.params, False), leaves(before.params, False)
    assert {str(leaf.dtype) for leaf in base.values()} == {dtype}
    jax.tree.map(np.testing.assert_array_equal, base, expected)
    plain = jtd.from_pretrained(tmp_path / "checkpoint", overrides=[f"method.param_dtype={dtype}"])
    jax.tree.map(np.testing.assert_array_equal, merged(before.params), plain.params)  # B is zero at first
    assert set(leaves(after.params, True)) == set(leaves(adapters_of(after.params), True))
    assert all(np.any(leaf != 0) and leaf.dtype == jnp.float32 for leaf in leaves(after.params, True).values())
    assert sum(after.nll(TEXTS)) < 0.9 * sum(before.nll(TEXTS))
    assert after.sample(2, steps=2) == after.sample(2, steps=2)


@pytest.mark.slow
def test_a_run_with_adapters_is_resumed_and_its_export_has_them(tmp_path: Path) -> None:
    pytest.importorskip("qwix")
    write_texts(tmp_path)
    write_mdlm(tmp_path / "checkpoint", mdlm_config())
    start(tmp_path, steps=5)
    start(tmp_path, steps=10)
    assert run("export", "run", "exported", cwd=tmp_path).returncode == 0
    model, exported = jtd.load(tmp_path / "run"), jtd.from_pretrained(tmp_path / "exported")
    tokens = jnp.asarray([[3, 4, 8, 20, 12, 1]])
    found, expected = (m.method.net.bind(m.params)(tokens) for m in (exported, model))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    original = jtd.from_pretrained(tmp_path / "checkpoint")
    assert np.abs(original.method.net.bind(original.params)(tokens) - expected).max() > 1e-3
