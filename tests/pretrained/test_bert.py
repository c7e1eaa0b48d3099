"""BERT as the start of masked diffusion: outputs, errors, and a run by the command line."""

import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.command_line import run
from support.published_bert import config_json, forward, random_tensors, write_checkpoint
from support.published_llama import MASK
from support.runs import ROOT, write_texts

import jtextdiff as jtd
from jtextdiff.cli.errors import UserError
from jtextdiff.methods.components.types import TextSpec
from jtextdiff.methods.masked import Masked
from jtextdiff.nets.denoisers import Head
from jtextdiff.nets.transformer import Transformer
from jtextdiff.pretrained.families import network_of, open_source
from jtextdiff.pretrained.layouts.bert import bert_network

TOKENS = np.array([[4, MASK, 13, 0, 3, MASK, 7, 3, 17], [3, 1, 6, 16, MASK, 18, 16, 16, 8]])
WORDS = "bert.embeddings.word_embeddings.weight"
SIZES = {
    "vocab_size": 30_522,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "max_position_embeddings": 512,
}


@pytest.mark.parametrize("changes", [{}, {"type_vocab_size": 1, "layer_norm_eps": 0.1}], ids=str)
def test_the_network_has_the_published_outputs(changes: dict[str, Any], tmp_path: Path) -> None:
    config = config_json(**changes)
    tensors = write_checkpoint(tmp_path, config)
    model = jtd.from_pretrained(tmp_path)
    found = jax.jit(model.method.net.bind(model.params))(jnp.asarray(TOKENS), valid=jnp.ones(TOKENS.shape, bool))
    np.testing.assert_allclose(found, forward(config, tensors, TOKENS), atol=2e-5, rtol=0)


def former_names(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the tensors under the names of the first checkpoints."""
    renamed = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    return {
        next((name.replace(new, old) for new, old in renamed.items() if name.endswith(new)), name): array
        for name, array in tensors.items()
    }


def params_in(folder: Path) -> Any:
    """Returns the parameters in a folder, before they are placed on devices."""
    checkpoint = open_source(folder)
    network = network_of(checkpoint)
    return network.fold(lambda name: checkpoint.read(network.prefix + name), lambda name, array: array)


FILES = {
    "former names": former_names,
    "with the next sentence": lambda tensors: {
        **tensors,
        "bert.pooler.dense.weight": np.ones((15, 15), np.float32),
        "bert.pooler.dense.bias": np.ones(15, np.float32),
        "cls.seq_relationship.weight": np.ones((2, 15), np.float32),
        "cls.seq_relationship.bias": np.ones(2, np.float32),
        "bert.embeddings.position_ids": np.arange(12)[None],
    },
    "with an output": lambda tensors: {
        **tensors,
        "cls.predictions.decoder.weight": tensors[WORDS].copy(),
        "cls.predictions.decoder.bias": tensors["cls.predictions.bias"].copy(),
    },
}


@pytest.mark.parametrize("change", FILES.values(), ids=FILES)
def test_every_version_of_the_file_has_the_same_parameters(change: Any, tmp_path: Path) -> None:
    tensors = random_tensors(config_json())
    write_checkpoint(tmp_path / "plain", config_json(), tensors)
    write_checkpoint(tmp_path / "other", config_json(), change(tensors))
    plain, other = (params_in(tmp_path / name) for name in ("plain", "other"))
    jax.tree.map(np.testing.assert_array_equal, plain, other)


def test_the_published_size_has_the_published_number_of_parameters() -> None:
    assert sum(map(math.prod, bert_network(config_json(**SIZES), "bert").tensors.values())) == 109_514_298


@pytest.mark.slow
def test_our_network_of_the_published_size_has_as_many() -> None:
    network = bert_network(config_json(**SIZES), "bert")
    method = Masked(
        text_spec=TextSpec(vocab_size=30_522, mask=103, pad=0, eos=102, unk=100, length=512),
        trunk=Transformer(**network.settings["trunk"]),
        head=Head(**network.settings["head"]),
        reads_length=False,
    )
    params = jax.eval_shape(method.init, jax.random.key(0))
    # Two segments join the positions; a row of the embedding has no token.
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 109_514_298 - 2 * 768 + 768


BROKEN = {
    "activation": ({"hidden_act": "relu"}, "needs hidden_act, one of gelu, .*; it has 'relu'"),
    "relative": ({"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key'; only"),
    "decoder": ({"is_decoder": True}, "is_decoder = True; only False"),
    "cross-attention": ({"add_cross_attention": True}, "add_cross_attention = True; only False"),
    "own output": ({"tie_word_embeddings": False}, "tie_word_embeddings = False; only True"),
    "heads": ({"num_attention_heads": 4}, "hidden_size must divide into num_attention_heads equal heads.* 15 and 4"),
    "no epsilon": ({"layer_norm_eps": None}, "needs layer_norm_eps, a number above 0"),
    "no segments": ({"type_vocab_size": 0}, "needs type_vocab_size, a whole number of at least 1"),
    "segments": ({"type_vocab_size": 3}, r"token_type_embeddings.weight has the shape \(2, 15\)"),
    "fewer layers": ({"num_hidden_layers": 1}, "has the unknown tensor bert.encoder.layer.1.*and 15 more"),
}


@pytest.mark.parametrize(("changes", "message"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_with_a_config_is_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, config_json())
    (tmp_path / "config.json").write_text(json.dumps(config_json() | changes))
    with pytest.raises(UserError, match=message):
        open_source(tmp_path)


def test_a_bias_stored_twice_must_be_one(tmp_path: Path) -> None:
    other = {"cls.predictions.decoder.bias": np.ones(20, np.float32)}
    write_checkpoint(tmp_path, config_json(), random_tensors(config_json()) | other)
    with pytest.raises(UserError, match="cls.predictions.decoder.bias differs from cls.predictions.bias"):
        open_source(tmp_path)


@pytest.mark.slow
def test_commands_work_on_an_imported_run(tmp_path: Path) -> None:
    write_texts(tmp_path)
    write_checkpoint(tmp_path / "checkpoint", config_json())
    flags = [f"--config={ROOT}/configs/masked.py", "--config.init=checkpoint", "--workdir=run"]
    flags += ["--config.text.path=texts.txt", "--config.batch_size=16", "--config.optim.warmup=1"]
    texts = ["The Mill is cheap .", "The Swan is dear ."]
    assert run("train", *flags, "--config.num_steps=0", "--workdir=start", cwd=tmp_path).returncode == 0
    assert run("train", *flags, "--config.num_steps=60", cwd=tmp_path).returncode == 0
    before, after = (sum(jtd.load(tmp_path / name).nll(texts)) for name in ("start", "run"))
    assert after < 0.8 * before
    few = ("--checkpoint", "run", "--steps", "4")
    infill = ("sample", *few, "--num", "2", "--template", "The [MASK] is [MASK] .")
    for command in (("sample", *few, "--num", "2"), infill, ("evaluate", *few, "--num", "16")):
        done = run(*command, cwd=tmp_path)
        assert done.returncode == 0, (command, done.stderr)
