"""Runs that start from checkpoints of the Llama family, by the command line; what is wrong with one is named."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from support.cases import slow_but
from support.command_line import Completed, run
from support.published import WORDS, write_tokenizer
from support.published_llama import (
    KINDS,
    MASK,
    config_json,
    random_tensors,
    shifted,
    write_checkpoint,
    write_masked_tokenizer,
)
from support.runs import ROOT, write_texts

import jtextdiff as jtd
from jtextdiff.cli.errors import UserError
from jtextdiff.pretrained.families import open_source

GOLDEN = ROOT.parent / "shared" / "golden"
GOLDEN_NAMES = {"llada": "llada", "Dream": "dream", "a2d-qwen3": "qwen3"}
EMBEDDING, ANSWER = "model.embed_tokens.weight", "lm_head.weight"


def start(folder: Path, *more: str, steps: int = 0) -> Completed:
    """Starts the run `run` from the checkpoint `checkpoint` in a folder with texts."""
    flags = [f"--config={ROOT}/configs/masked.py", "--config.init=checkpoint", "--workdir=run"]
    flags += ["--config.text.path=texts.txt", f"--config.num_steps={steps}", "--config.batch_size=16"]
    return run("train", *flags, *more, cwd=folder)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"there are no published checkpoints in {GOLDEN}")
@pytest.mark.parametrize("kind", slow_but(["Dream"], KINDS))
def test_an_imported_run_has_the_outputs_of_the_published_code(kind: str, tmp_path: Path) -> None:
    write_texts(tmp_path)
    golden = GOLDEN / GOLDEN_NAMES[kind]
    shutil.copytree(golden, tmp_path / "checkpoint", copy_function=shutil.copyfile)
    (tmp_path / "checkpoint").chmod(0o755)
    write_masked_tokenizer(tmp_path / "checkpoint")
    done = start(tmp_path)
    assert done.returncode == 0, done.stderr
    size = sum(array.size for array in load_file(golden / "model.safetensors").values())
    assert f"Starting from the {kind} checkpoint checkpoint: {size:,} parameters." in done.stderr.splitlines()
    model, expected = jtd.load(tmp_path / "run"), np.load(golden / "expected.npz")
    assert model.method.text_spec.mask == MASK == model.method.text_spec.vocab_size - 1
    found = jax.jit(model.method.net.bind(model.params))(jnp.asarray(expected["tokens"].astype(np.int32)))
    output = shifted(expected["output"]) if kind == "Dream" else expected["output"]
    np.testing.assert_allclose(found, output, atol=2e-5, rtol=0)


@pytest.mark.slow
def test_a_run_keeps_its_network_and_its_mask_when_it_goes_on(tmp_path: Path) -> None:
    write_texts(tmp_path)
    write_checkpoint(tmp_path / "checkpoint", config_json("Dream"))
    assert start(tmp_path, "--config.method.trunk.dropout=0.1").returncode == 0
    trunk = json.loads((tmp_path / "run/config.json").read_text())["method"]["trunk"]
    assert (trunk["dropout"], trunk["num_kv_heads"], trunk["mlp_width"]) == (0.1, 2, 24)
    checkpoint = jtd.from_pretrained(str(tmp_path / "checkpoint"))
    jax.tree.map(np.testing.assert_array_equal, jtd.load(tmp_path / "run").params, checkpoint.params)
    shutil.rmtree(tmp_path / "checkpoint")  # it is needed no more
    resumed = start(tmp_path, "--config.method.trunk.dropout=0.1", steps=2)
    assert resumed.returncode == 0 and "Resuming from step 0 of run." in resumed.stderr, resumed.stderr
    assert jtd.load(tmp_path / "run").method.head.shifted


FEW = ("--checkpoint", "run", "--steps", "4")
VERIFY = ("verify", *FEW, "--sampler", "ancestral", "--step_counts", "0")
COMMANDS = [
    ("sample", *FEW, "--num", "2"),
    ("sample", *FEW, "--num", "2", "--template", "The [MASK] is [MASK] ."),
    ("sample", *FEW, "--num", "2", "--override", "method.sampler.name=remasking"),
    ("edit", *FEW, "--input", "texts.txt", "--num", "2"),
    ("evaluate", *FEW, "--num", "8"),
    VERIFY,
    ("visualize", *FEW, "--out", "film"),
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_command_works_on_an_imported_run_but_export(kind: str, tmp_path: Path) -> None:
    """Kinds differ in their network alone: of two kinds it is enough that it samples, fills gaps and scores in
    `verify`."""
    write_texts(tmp_path)
    write_checkpoint(tmp_path / "checkpoint", config_json(kind))
    assert start(tmp_path, steps=2).returncode == 0
    for command in COMMANDS if kind == "Dream" else [COMMANDS[0], VERIFY]:
        done = run(*command, cwd=tmp_path)
        assert done.returncode == 0, (command, done.stderr)
    refused = run("export", "run", "exported", cwd=tmp_path)
    assert refused.returncode == 2 and "the published layout of MDLM has only" in refused.stderr
    assert not (tmp_path / "exported").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_fine_tuning_lowers_the_loss(kind: str, tmp_path: Path) -> None:
    write_texts(tmp_path)
    write_checkpoint(tmp_path / "checkpoint", config_json(kind))
    texts = ["The Mill is cheap .", "The Swan is dear ."]
    assert start(tmp_path).returncode == 0
    before = sum(jtd.load(tmp_path / "run").nll(texts))
    shutil.rmtree(tmp_path / "run")
    assert start(tmp_path, "--config.optim.warmup=1", steps=60).returncode == 0
    assert sum(jtd.load(tmp_path / "run").nll(texts)) < 0.8 * before


BROKEN = {
    "other block": ("llada", {"block_type": "sequential"}, "block_type = 'sequential'; only 'llama' can be read"),
    "one head of keys": ("llada", {"multi_query_attention": True}, "multi_query_attention = True; only False"),
    "LayerNorm": ("llada", {"layer_norm_type": "default"}, "layer_norm_type = 'default'; only 'rms'"),
    "biases": ("llada", {"include_qkv_bias": True}, "include_qkv_bias = True; only False"),
    "alibi": ("llada", {"alibi": True}, "alibi = True"),
    "scaled rotation": ("Dream", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling = .*only None"),
    "new scaled rotation": (
        "Dream",
        {"rope_parameters": {"rope_theta": 1e6, "rope_type": "yarn"}},
        "rope_type = 'yarn'; only 'default'",
    ),
    "window": ("Dream", {"use_sliding_window": True}, "use_sliding_window = True; only False"),
    "window in a layer": (
        "a2d-qwen3",
        {"layer_types": ["full_attention", "sliding_attention"]},
        "layer_types with 'sliding_attention'",
    ),
    "biases of Qwen2": ("a2d-qwen3", {"attention_bias": True}, "attention_bias = True; only False"),
    "activation": ("Dream", {"hidden_act": "gelu"}, "hidden_act = 'gelu'; only 'silu'"),
    "no base": ("llada", {"rope_theta": None}, "needs rope_theta, a number above 0; it has None"),
    "epsilon": ("Dream", {"rms_norm_eps": "1e-6"}, "needs rms_norm_eps, a number above 0; it has '1e-6'"),
    "no head width": ("a2d-qwen3", {"head_dim": None}, "needs head_dim, a whole number of at least 1"),
    "heads": ("Dream", {"num_attention_heads": 3}, "hidden_size must divide into num_attention_heads.* 16 and 3"),
    "groups": ("Dream", {"num_key_value_heads": 4}, r"k_proj.* has the shape \(8.*; config.json implies \(16"),
    "mask": ("llada", {"mask_token_id": "19"}, "needs mask_token_id, the id of a token, or none; it has '19'"),
    "tied": ("Dream", {"tie_word_embeddings": True}, "lm_head.weight differs from model.embed_tokens.weight"),
    "tied LLaDA": ("llada", {"weight_tying": True}, "ff_out.weight differs from model.transformer.wte.weight"),
    "not tied": ("a2d-qwen3", {"tie_word_embeddings": False}, "lacks the tensor lm_head.weight"),
    "shallow": ("llada", {"n_layers": 1}, "has the unknown tensor model.transformer.blocks.1.* and 8 more"),
    "other family": ("Dream", {"model_type": "a2d-qwen3", "head_dim": 4}, "lacks the tensor .*k_norm"),
    "unknown": ("Dream", {"model_type": "Qwen3"}, "can be read: mdlm, .*llada, Dream, a2d-qwen3"),
    "list": ("Dream", {"model_type": ["Dream"]}, r"has the model_type \['Dream'\]"),
}


@pytest.mark.parametrize(("kind", "changes", "message"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_with_a_checkpoint_is_named(
    kind: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    config = config_json(kind)
    write_checkpoint(tmp_path, config)
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(UserError, match=message):
        open_source(str(tmp_path))


def test_a_tied_output_may_be_stored_if_it_equals_the_embedding(tmp_path: Path) -> None:
    config = config_json("a2d-qwen3")
    tensors = random_tensors(config)
    write_checkpoint(tmp_path, config, tensors | {ANSWER: tensors[EMBEDDING]})
    params = jtd.from_pretrained(str(tmp_path)).params
    assert "answer" not in params and open_source(str(tmp_path))


def test_both_versions_of_a_config_have_the_same_rotation(tmp_path: Path) -> None:
    old = config_json("Dream")
    new = {name: value for name, value in old.items() if not name.startswith("rope")}
    write_checkpoint(tmp_path / "old", old)
    write_checkpoint(tmp_path / "new", new | {"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}})
    trunks = [jtd.from_pretrained(str(tmp_path / name)).method.trunk for name in ("old", "new")]
    assert trunks[0] == trunks[1] and trunks[0].rotary_base == 1e6


def test_a_tokenizer_with_code_of_its_own_is_read_without_it(tmp_path: Path) -> None:
    """As Dream's: the class is code of the folder, which is never run."""
    write_checkpoint(tmp_path, config_json("Dream"))
    (tmp_path / "tokenization_dream.py").write_text("raise SystemExit")
    for name, code in (("config", {"AutoConfig": "x.Y"}), ("tokenizer_config", {"AutoTokenizer": ["x.Y", None]})):
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"auto_map": code, "tokenizer_class": "Y"}))
    spec = jtd.from_pretrained(str(tmp_path)).method.text_spec
    assert (spec.mask, spec.eos, spec.pad, spec.unk, spec.vocab_size) == (MASK, 1, 0, 2, 20)


def test_a_checkpoint_by_itself_has_texts_of_a_length_that_can_be_computed(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, config_json("Dream", max_position_embeddings=131_072))
    method = jtd.from_pretrained(str(tmp_path)).method
    assert (method.text_spec.length, method.text_spec.mean_length) == (1024, 1024)


MASKS = {
    "of none": ("a2d-qwen3", {}, {}, "neither mask_token_id in config.json nor mask_token in tokenizer_config.json"),
    "outside": ("llada", {"mask_token_id": 20}, {}, "mask_token_id = 20, which is no token of its tokenizer.json"),
    "of two": ("llada", {}, {"mask_token": "it"}, "config.json has mask_token_id = 19, the tokenizer 18"),
    "few rows": ("Dream", {"vocab_size": 19, "mask_token_id": 18}, {}, "19 rows of embeddings, and the tokenizer 20"),
}


@pytest.mark.parametrize(("kind", "changes", "named", "message"), MASKS.values(), ids=MASKS)
def test_a_mask_that_does_not_fit_is_named_and_no_run_is_left(
    kind: str, changes: dict[str, Any], named: dict[str, str], message: str, tmp_path: Path
) -> None:
    write_texts(tmp_path)
    write_checkpoint(tmp_path / "checkpoint", config_json(kind, **changes))
    write_tokenizer(tmp_path / "checkpoint", WORDS[:18] + ["it", "<mask>"], **named)
    done = start(tmp_path)
    *notes, line = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("error: ") and message in line, done.stderr
    assert not [note for note in notes if "PyTorch was not found" not in note]
    assert not (tmp_path / "run").exists()


def test_rows_of_padding_are_left_out(tmp_path: Path) -> None:
    config = config_json("a2d-qwen3", vocab_size=24)
    tensors = write_checkpoint(tmp_path, config)
    table = jtd.from_pretrained(str(tmp_path)).params["embed"]["embedding"]
    np.testing.assert_array_equal(table[:20], tensors[EMBEDDING][:20])
    assert table.shape == (21, 16) and not np.any(table[20])  # MASK is a token: the row after them has none
