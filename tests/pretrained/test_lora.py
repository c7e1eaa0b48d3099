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
from support.published_timed import CONFIGS as timed_configs
from support.published_timed import random_tensors as timed_tensors
from support.runs import ROOT, toy, write_texts

import jtextdiff as jtd
from jtextdiff.cli.errors import UserError
from jtextdiff.methods.components.types import TextSpec
from jtextdiff.methods.masked import Masked
from jtextdiff.nets.functional import adapters_of, is_adapter, merged, with_adapters
from jtextdiff.nets.transformer import Transformer
from jtextdiff.pretrained.exported_layouts import mdlm_tensors
from jtextdiff.pretrained.layouts.dit_settings import PLAIN
from jtextdiff.run.checkpoints import open_checkpoints, save
from jtextdiff.run.config_files import load_config
from jtextdiff.run.workdir import store_config
from jtextdiff.training.optimizer import Optimizer
from jtextdiff.training.setup import Setup, build_setup, restore_or_init, validate_config
from jtextdiff.training.summary import print_summary

TEXT_SPEC = TextSpec(vocab_size=8, mask=7, length=4, length_counts=(0,) * 4 + (1,))
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


def test_joined_kernels_are_float32_so_that_small_adapters_remain() -> None:
    kernel = jnp.ones((2, 2), jnp.bfloat16)
    joined = merged({"kernel": kernel, "kernel_lora_a": jnp.full((2, 1), 1e-3), "kernel_lora_b": jnp.ones((1, 2))})
    np.testing.assert_allclose(joined["kernel"], 1.001, rtol=1e-6)


def test_the_layers_that_read_the_time_have_adapters_too() -> None:
    pytest.importorskip("qwix")
    trunk = Transformer(num_layers=1, width=8, num_heads=2, max_length=4, time="dit", time_width=4)
    net = Masked(text_spec=TEXT_SPEC, trunk=trunk, reads_length=False, time_input="sigma", lora_rank=2).net
    params = jax.jit(net.init)(jax.random.key(0))
    block = adapters_of(params)["trunk"]["blocks"]["0"]
    assert block.keys() == {"attention", "mlp", "modulation"}
    changed = with_adapters(
        params, {"trunk": {"blocks": {"0": {"modulation": jax.tree.map(jnp.ones_like, block["modulation"])}}}}
    )
    hidden = jax.jit(lambda t: net.bind(changed).hidden(jnp.zeros((1, 4), jnp.int32), t))
    early, late = hidden(jnp.full(1, 0.1)), hidden(jnp.full(1, 2.0))
    assert np.abs(early - late).max() > 1e-3


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


def test_adapters_of_random_parameters_are_an_error(tmp_path: Path) -> None:
    pytest.importorskip("qwix")
    with pytest.raises(UserError, match=r"method.lora_rank trains adapters alone.*config.init.*config.warm_start"):
        validate_config(load_config(f"{ROOT}/configs/masked.py", ["--config.method.lora_rank=2"]), tmp_path / "run")


def test_an_export_has_the_joined_kernels_and_is_float32() -> None:
    pytest.importorskip("qwix")
    trunk = Transformer(**PLAIN | {"num_layers": 1, "width": 8, "num_heads": 2, "max_length": 4})
    method = Masked(text_spec=TEXT_SPEC, trunk=trunk, reads_length=False, param_dtype="bfloat16", lora_rank=2)
    fresh = jax.jit(method.init)(jax.random.key(0))
    params = with_adapters(fresh, jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e-3), adapters_of(fresh)))
    tensors = mdlm_tensors(method, params)
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"float32"}
    kernel = params["trunk"]["blocks"]["0"]["mlp"]["up"]["kernel"].astype(jnp.float32) + 2e-6
    np.testing.assert_array_equal(tensors["backbone.blocks.0.mlp.0.weight"].T, kernel)


def test_adapters_start_beside_the_parameters_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("qwix")
    monkeypatch.chdir(tmp_path)
    write_texts(tmp_path)

    def setup(*more: str) -> Setup:
        file, workdir, *flags = toy("run", 3, "--config.method.trunk.num_layers=1", *more, config="masked.py")
        config = load_config(file.removeprefix("--config="), flags)
        return build_setup(config, Path(workdir.removeprefix("--workdir=")))

    first = setup()
    params = first.method.init(jax.random.key(5))
    (tmp_path / "base").mkdir()
    store_config(tmp_path / "base", first.config, {}, resumed=False)
    with open_checkpoints(tmp_path / "base") as manager:
        save(manager, 3, params, {"step": jnp.zeros(())}, 1.0)
    adapted = setup("--config.warm_start=base", "--config.method.lora_rank=2")
    state, _ = restore_or_init(adapted, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, merged(state["params"]), params)
    print_summary(adapted, tmp_path / "run")
    adapters = sum(leaf.size for leaf in jax.tree.leaves(adapters_of(state["params"])))
    assert adapters and f", of which {adapters:,} are trained, 3 steps" in capsys.readouterr().err


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
    done = run("export", "run", "exported", cwd=tmp_path)
    assert done.returncode == 0
    model, exported = jtd.load(tmp_path / "run"), jtd.from_pretrained(tmp_path / "exported")
    tokens = jnp.asarray([[3, 4, 8, 20, 12, 1]])
    found, expected = (jax.jit(m.method.net.bind(m.params))(tokens) for m in (exported, model))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    original = jtd.from_pretrained(tmp_path / "checkpoint")
    count = sum(leaf.size for leaf in jax.tree.leaves(original.params))
    assert f"{count:,} parameters of step 10" in done.stderr  # without those of adapters, which are joined
    assert f"with {count:,} parameters" in (tmp_path / "exported" / "README.md").read_text()
    assert np.abs(jax.jit(original.method.net.bind(original.params))(tokens) - expected).max() > 1e-3


@pytest.mark.slow
def test_a_network_that_reads_the_time_is_adapted(tmp_path: Path) -> None:
    pytest.importorskip("qwix")
    write_texts(tmp_path)
    write_mdlm(tmp_path / "checkpoint", timed_configs["sedd"], timed_tensors("sedd"))
    start(tmp_path, steps=0, workdir="before")
    start(tmp_path, "--config.optim.peak=0.02", "--config.optim.ema=0.5", steps=40)
    before, after = jtd.load(tmp_path / "before"), jtd.load(tmp_path / "run")
    trained = {name: leaf for name, leaf in leaves(after.params, True).items() if "modulation" in name}
    assert trained and all(np.any(leaf != 0) for leaf in trained.values())
    assert sum(after.nll(TEXTS)) < 0.98 * sum(before.nll(TEXTS))


@pytest.mark.slow
def test_a_run_with_adapters_starts_from_one_without_or_with_them(tmp_path: Path) -> None:
    pytest.importorskip("qwix")
    write_texts(tmp_path)
    base = run("train", *toy("base", 3, config="masked.py"), cwd=tmp_path)
    assert base.returncode == 0, base.stderr
    for source, workdir in (("base", "first"), ("first", "second")):
        more = (f"--config.warm_start={source}", "--config.method.lora_rank=2")
        done = run("train", *toy(workdir, 3, *more, config="masked.py"), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        params = jtd.load(tmp_path / workdir).params
        adapters = sum(leaf.size for leaf in leaves(params, True).values())
        assert f", of which {adapters:,} are trained, 3 steps" in done.stderr
        jax.tree.map(
            np.testing.assert_array_equal, leaves(params, False), leaves(jtd.load(tmp_path / "base").params, False)
        )
