"""What is wrong with a checkpoint is named in one line, and no run is left behind."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.command_line import run
from support.published import config_json, write_checkpoint
from support.runs import ROOT, write_texts

import jtextdiff as jtd
from jtextdiff.cli.errors import UserError
from jtextdiff.pretrained.checkpoint_files import INDEX
from jtextdiff.pretrained.families import network_of, open_source

WEIGHTS, CONFIG = "model.safetensors", "config.json"
NORM = "backbone.blocks.1.norm1.weight"


def start(folder: Path, init: str = "checkpoint", *more: str, config: str = "masked.py") -> str:
    """Returns the message with which a run that starts from a checkpoint is refused."""
    write_texts(folder)
    flags = [f"--config={ROOT}/configs/{config}", f"--config.init={init}", "--workdir=run"]
    done = run("train", *flags, "--config.text.path=texts.txt", "--config.num_steps=0", *more, cwd=folder)
    *notes, message = done.stderr.splitlines()
    assert done.returncode == 2 and message.startswith("error: "), done.stderr
    assert not notes
    assert not (folder / "run").exists()
    return message


def change_config(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(config | changes))

    return change


def change_tensors(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return changed


def to_shards(folder: Path) -> None:
    """Divides the weights into two files with an index."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    files = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in names if files[name] == file}, folder / file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": files}))


def without_second_shard(folder: Path) -> None:
    to_shards(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def without_index(folder: Path) -> None:
    to_shards(folder)
    (folder / INDEX).unlink()


def outside(folder: Path) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": {NORM: "../model.safetensors"}}))


def cut_short(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def to_pickle(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


BROKEN = {
    "no config": (lambda folder: (folder / CONFIG).unlink(), "has no config.json"),
    "config is no JSON": (lambda folder: (folder / CONFIG).write_text("{"), "config.json is not JSON"),
    "config is a list": (lambda folder: (folder / CONFIG).write_text("[]"), "config.json holds a list"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "has no safetensors file"),
    "pickled": (to_pickle, "has pytorch_model.bin but no safetensors file.*convert it.*weights_only=True"),
    "cut short": (cut_short, "model.safetensors is damaged or cut short"),
    "lost shard": (without_second_shard, f"lacks model-00002-of-00002.safetensors, which {INDEX} names"),
    "lost index": (without_index, f"has 2 safetensors files but no {INDEX}"),
    "shard elsewhere": (outside, "weight_map must give a file of this folder"),
    "unknown type": (change_config(model_type="t5"), "model_type 't5'.*can be read: mdlm, bd3lm"),
    "no type": (change_config(model_type=None), "model_type None"),
    "timed": (change_config(time_conditioning=True, model_type="bd3lm"), "time_conditioning = True; only False"),
    "not timed": (change_config(model_type="DUO"), "time_conditioning = False; only True can be read"),
    "causal": (change_config(causal=True), "causal = True; only False"),
    "heads": (change_config(n_heads=3), "hidden_dim must divide into n_heads.* 16 and 3"),
    "other heads": (change_config(n_heads=4), r"inv_freq has the shape \(4,\); config.json implies \(2,\)"),
    "size": (change_config(hidden_dim="16"), "needs hidden_dim, a whole number of at least 1; it has '16'"),
    "no size": (change_config(n_blocks=None), "needs n_blocks"),
    "other width": (change_config(hidden_dim=32), r"has the shape .*; config.json implies"),
    "fewer blocks": (change_config(n_blocks=1), "has the unknown tensor backbone.blocks.1.*and 9 more"),
    "missing": (change_tensors(lambda tensors: tensors.pop(NORM)), f"lacks the tensor {NORM};"),
    "unknown": (change_tensors(lambda tensors: tensors.update(head=np.ones(3))), "has the unknown tensor head;"),
    "misshapen": (
        change_tensors(lambda tensors: tensors.update({NORM: np.ones((16, 1), np.float32)})),
        rf"{NORM} has the shape \(16, 1\); config.json implies \(16,\)",
    ),
    "integers": (
        change_tensors(lambda tensors: tensors.update({NORM: np.ones(16, np.int32)})),
        f"{NORM} has the type I32",
    ),
    "damaged tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer"),
    "a name with escapes": (
        change_tensors(lambda tensors: tensors.update({"\x1b[31m": np.ones(3, np.float32)})),
        r"has the unknown tensor '\\x1b\[31m';",
    ),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json.*pretrained:gpt2"),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_with_a_checkpoint_is_named(damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    config = config_json()
    write_checkpoint(tmp_path / "checkpoint", config)
    change_tensors(lambda tensors: tensors.update({"backbone.rotary_emb.inv_freq": np.ones(4, np.float32)}))(
        tmp_path / "checkpoint"
    )
    damage(tmp_path / "checkpoint")
    assert re.search(message, start(tmp_path))


def test_a_vocabulary_with_missing_rows_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint", config_json(vocab_size=20))
    message = start(tmp_path)
    assert "has 20 rows of embeddings, and the tokenizer 21 tokens, MASK included" in message


def test_a_checkpoint_of_another_method_names_its_config(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint", config_json())
    message = start(tmp_path, config="block_diffusion.py")
    assert "is a mdlm checkpoint" in message and message.endswith("give --config configs/masked.py.")


def test_a_folder_or_a_hub_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "no folder absent" in start(tmp_path, "absent")
    assert "cannot read hub:kuleshov-group/mdlm-owt" in start(tmp_path, "hub:kuleshov-group/mdlm-owt")
    assert "expected hub:NAME" in start(tmp_path, "hub:")


def test_a_run_starts_from_one_place(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint", config_json())
    assert "not from both" in start(tmp_path, "checkpoint", "--config.warm_start=run")
    message = start(tmp_path, "checkpoint", "--config.method.self_conditioning=0.5")
    assert "self_conditioning must be 0" in message


def test_shards_and_half_precision_are_read_as_one_file(tmp_path: Path) -> None:
    import ml_dtypes

    whole, divided = tmp_path / "whole", tmp_path / "divided"
    tensors = write_checkpoint(whole, config_json())
    half = {name: array.astype(ml_dtypes.bfloat16) for name, array in tensors.items()}
    write_checkpoint(divided, config_json(), half)
    to_shards(divided)
    read = open_source(str(divided))
    for name, array in half.items():
        found = read.read(name)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


def test_numbers_beside_the_parameters_of_bd3lm_are_no_parameters(tmp_path: Path) -> None:
    tensors = write_checkpoint(tmp_path / "plain", config_json("bd3lm"))
    bounds = {f"sampling_eps_{end}": np.asarray(value, np.float32) for end, value in (("min", 1e-3), ("max", 1.0))}
    write_checkpoint(tmp_path / "checkpoint", config_json("bd3lm"), {**tensors, **bounds})
    checkpoint = open_source(tmp_path / "checkpoint")
    assert set(bounds) <= set(checkpoint.tensors) and not set(bounds) & set(network_of(checkpoint).tensors)


def test_an_import_alone_has_no_step_to_simulate(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint", config_json())
    assert "--dry_run simulates a training step" in start(tmp_path, "checkpoint", "--dry_run")


def test_a_tokenizer_is_named_as_everywhere(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, config_json())
    with pytest.raises(UserError, match="tokenizer must be 'pretrained:NAME' or 'pretrained:FOLDER', got 'gpt2'"):
        jtd.from_pretrained(tmp_path, tokenizer="gpt2")
    with pytest.raises(UserError, match="there is no folder"):
        jtd.from_pretrained(tmp_path / "absent")


def test_a_run_is_no_published_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoint/checkpoints/1").mkdir(parents=True)
    assert "checkpoint is a run, not a published checkpoint. To start from its parameters, give warm_start" in start(
        tmp_path
    )
