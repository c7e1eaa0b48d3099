"""Published checkpoints by themselves: by every command that reads a run, and whether they fit into memory."""

import json
import math
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from support.command_line import run
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


def test_a_tokenizer_is_given_where_there_is_none_and_in_place_of_its_own(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint", config_json("llada"))
    write_checkpoint(tmp_path / "other", config_json("llada"))
    named = f"pretrained:{tmp_path / 'other'}"
    flag = [f"text.tokenizer={named}"]
    assert jtd.load(tmp_path / "checkpoint", overrides=flag).config.text.tokenizer == named
    (tmp_path / "checkpoint/tokenizer.json").unlink()
    assert jtd.load(tmp_path / "checkpoint", overrides=flag).config.text.tokenizer == named
    assert jtd.from_pretrained(tmp_path / "checkpoint", tokenizer=named).config.text.tokenizer == named
    done = run("sample", "--checkpoint=checkpoint", cwd=tmp_path)
    assert done.returncode == 2 and "pretrained:gpt2: --override text.tokenizer=pretrained:NAME" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("sample --checkpoint=toy --at=5", "a published checkpoint, which has no steps: leave out --at 5"),
        ("sample --checkpoint=hub:a/b --at=best", "which has no steps: leave out --at best"),
        ("export toy out --program --at=5", "which has no steps: leave out --at 5"),
        ("export toy out", "toy is a published checkpoint already: export takes a run"),
        ("export hub:a/b out", "hub:a/b is a published checkpoint already"),
        ("evaluate --checkpoint=toy", "give the real text to compare with, --override text.path=FILE"),
        ("verify --checkpoint=./toy/", "give the real text to compare with, --override text.path=FILE"),
        ("sample --checkpoint=hub:a/b --dry_run", "give a folder that holds its config.json"),
        ("sample --checkpoint=toy --dry_run --at=best", "leave out --at"),
        ("sample --checkpoint=toy --dry_run --chat=What?", "leave out --chat"),
        ("sample --checkpoint=toy --dry_run --template=[MASK]", "leave out --template"),
        ("sample --checkpoint=toy --dry_run --override mesh.fsdp=64", "fsdp=64, tensor=1 does not fit"),
        ("sample --checkpoint=toy --override text.tokenizer=words", "must be 'pretrained:NAME' .*, got 'words'"),
    ],
)
def test_what_it_cannot_be_used_for_is_named(arguments: str, message: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "toy", config_json("llada"))
    command, *flags = arguments.split()
    done = run(command, *flags, cwd=tmp_path)
    assert done.returncode == 2 and re.search(message, done.stderr), done.stderr


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ("[]", "it holds a list; expected an object"),
        ("null", "it holds a NoneType; expected an object"),
        ('"x"', "it holds a str; expected an object"),
        ("{", "config of a run, or of a published checkpoint: Expecting property name"),
    ],
)
def test_a_config_that_is_none_is_named(stored: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(stored)
    with pytest.raises(UserError, match=message):
        jtd.load(tmp_path)


def test_a_film_of_it_is_written_beside_it(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "toy", config_json("llada"))
    before = set((tmp_path / "toy").iterdir())
    done = run("visualize", "--checkpoint=toy", "--num=1", "--steps=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "denoising.html").is_file() and set((tmp_path / "toy").iterdir()) == before


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
