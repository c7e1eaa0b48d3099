"""Published checkpoints by themselves: by every command that reads a run, and whether they fit into memory."""

import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest
from support.published_gpt2 import config_json as gpt2_config
from support.published_gpt2 import write_checkpoint as write_gpt2
from support.published_llama import config_json, write_checkpoint

import jtextdiff as jtd
from jtextdiff.benchmarks.sampling_memory import sampling_memory
from jtextdiff.cli.errors import UserError
from jtextdiff.devices import memory
from jtextdiff.sample import command

LLADA_8B = {
    "embedding_size": 126_464,
    "d_model": 4096,
    "n_heads": 32,
    "n_kv_heads": 32,
    "n_layers": 32,
    "mlp_hidden_size": 12_288,
    "max_sequence_length": 4096,
}


def test_a_checkpoint_is_loaded_where_a_run_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_checkpoint(tmp_path, config_json("llada"))
    by_load, by_name = jtd.load(tmp_path), jtd.from_pretrained(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, by_load.params, by_name.params)
    command(["--checkpoint", str(tmp_path), "--num", "1", "--steps", "1", "--override", "text.length=6"])
    short = jtd.from_pretrained(tmp_path, overrides=["text.length=6"])
    assert capsys.readouterr().out.splitlines() == short.sample(1, steps=1)
    assert short.method.text_spec.length == 6


@pytest.mark.parametrize("length", [0, 13])
def test_texts_have_the_positions_of_the_network(length: int, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, config_json("llada"))
    with pytest.raises(UserError, match=f"text.length must be from 1 to 12, .*; got {length}"):
        jtd.from_pretrained(tmp_path, overrides=[f"text.length={length}"])


@pytest.mark.parametrize("kind", ["llada", "gpt2"])
def test_what_does_not_fit_is_said_before_it_is_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPT-2 has no `param_dtype`, so that none is advised."""
    if kind == "gpt2":
        write_gpt2(tmp_path, gpt2_config())
    else:
        write_checkpoint(tmp_path, config_json(kind))
    needed = memory.bytes_a_device(jtd.from_pretrained(tmp_path).params)
    monkeypatch.setattr(memory, "memory_a_device", lambda: needed)
    assert jtd.from_pretrained(tmp_path)
    monkeypatch.setattr(memory, "memory_a_device", lambda: needed - 1)
    monkeypatch.setattr("jtextdiff.pretrained.checkpoint_files.Checkpoint.read", None)
    with pytest.raises(UserError, match="The parameters of .* need .* GB on each device, which has") as error:
        jtd.from_pretrained(tmp_path)
    assert ("method.param_dtype=bfloat16" in str(error.value)) == (kind == "llada")


def test_a_dry_run_reads_the_config_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_checkpoint(tmp_path / "whole", config_json("Dream", dtype="bfloat16"))
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.json").write_text((tmp_path / "whole/config.json").read_text())
    command(["--checkpoint", str(tmp_path / "config"), "--dry_run", "--num", "3", "--steps", "2"])
    needed = json.loads(capsys.readouterr().out)
    params = jtd.from_pretrained(tmp_path / "whole").params
    assert needed["parameters"] == sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    assert needed["types"] == ["bfloat16"] and needed["bytes"]["parameters"] == 2 * needed["parameters"]
    assert needed["batch"] == {"rows": 8, "length": 12} and needed["devices_of_80_gb"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "size"), [("bfloat16", 2), ("float32", 4)])
def test_llada_8b_can_be_sampled_on_one_device_of_80_gb(dtype: str, size: int, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config_json("llada", **LLADA_8B)))
    needed = sampling_memory(tmp_path, 1, [f"method.param_dtype={dtype}", "text.length=512"])
    assert needed["bytes"]["parameters"] == size * (8_015_581_184 + 4096)  # and the row after the tokens
    assert needed["devices_of_80_gb"] == 1
