"""GPT-2 as an autoregressive model: outputs, likelihoods, errors, and a run by the command line."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from support.command_line import Completed, run
from support.published_gpt2 import PREFIX, config_json, forward, log_likelihood, random_tensors, write_checkpoint
from support.runs import ROOT, TEXTS, write_texts

import jtextdiff as jtd
from jtextdiff.cli.errors import UserError
from jtextdiff.methods.autoregressive import Autoregressive
from jtextdiff.methods.components.types import TextSpec
from jtextdiff.nets.denoisers import Head
from jtextdiff.nets.transformer import Transformer
from jtextdiff.pretrained.families import network_of, open_source
from jtextdiff.pretrained.layouts.gpt2 import gpt2_network

TOKENS = np.array([[4, 19, 13, 0, 3, 8, 7, 3, 17], [3, 1, 6, 16, 2, 18, 16, 16, 8]])
EMBEDDING, ANSWER = f"{PREFIX}wte.weight", "lm_head.weight"
SIZES = {"vocab_size": 50_257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12}


@pytest.mark.parametrize("changes", [{}, {"n_inner": 22, "layer_norm_epsilon": 0.1}], ids=str)
def test_the_network_has_the_published_outputs(changes: dict[str, Any], tmp_path: Path) -> None:
    config = config_json(**changes)
    tensors = write_checkpoint(tmp_path, config)
    model = jtd.from_pretrained(tmp_path)
    found = jax.jit(model.method.net.bind(model.params))(jnp.asarray(TOKENS))
    np.testing.assert_allclose(found, forward(config, tensors, TOKENS), atol=2e-5, rtol=0)


def test_a_likelihood_is_that_of_a_text_and_its_end_after_the_end_of_text(tmp_path: Path) -> None:
    config = config_json()
    tensors = write_checkpoint(tmp_path, config)
    model = jtd.from_pretrained(tmp_path)
    eos = model.tokenizer.eos
    rows = np.array([[*ids, eos] for ids in model.tokenizer.encode(TEXTS[:3])])
    expected = log_likelihood(config, tensors, rows, eos)
    assert model.method.bound == "exact"
    np.testing.assert_allclose(-np.array(model.nll(TEXTS[:3])), expected, atol=1e-4, rtol=0)


def params_in(folder: Path) -> Any:
    """Returns the parameters in a folder, before they are placed on devices."""
    checkpoint = open_source(folder)
    network = network_of(checkpoint)
    return network.fold(lambda name: checkpoint.read(network.prefix + name), lambda name, array: array)


FILES = {
    "without a prefix": lambda tensors: {name.removeprefix(PREFIX): array for name, array in tensors.items()},
    "with an output": lambda tensors: {**tensors, ANSWER: tensors[EMBEDDING].copy()},
    "with masks": lambda tensors: {
        **tensors,
        f"{PREFIX}h.0.attn.bias": np.tril(np.ones((1, 1, 12, 12), bool)),
        f"{PREFIX}h.1.attn.masked_bias": np.full((), -1e4, np.float32),
    },
    "old masks": lambda tensors: {
        **{name.removeprefix(PREFIX): array for name, array in tensors.items()},
        "h.1.attn.bias": np.tril(np.ones((1, 1, 12, 12), np.float32)),
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
    assert sum(map(math.prod, gpt2_network(config_json(**SIZES), "gpt2").tensors.values())) == 124_439_808


@pytest.mark.slow
def test_our_network_of_the_published_size_has_as_many() -> None:
    settings = gpt2_network(config_json(**SIZES), "gpt2").settings
    text_spec = TextSpec(vocab_size=50_257, mask=50_257, pad=50_256, eos=50_256, length=1024)
    trunk, head = Transformer(**settings["trunk"]), Head(**settings["head"])
    params = jax.eval_shape(Autoregressive(text_spec=text_spec, trunk=trunk, head=head).init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 124_439_808


BROKEN = {
    "activation": ({"activation_function": "relu"}, "needs activation_function, one of gelu, .*; it has 'relu'"),
    "cross-attention": ({"add_cross_attention": True}, "add_cross_attention = True; only False"),
    "scaled by layer": ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True; only"),
    "not scaled": ({"scale_attn_weights": False}, "scale_attn_weights = False; only True"),
    "own output": ({"tie_word_embeddings": False}, "tie_word_embeddings = False; only True"),
    "heads": ({"n_head": 4}, "n_embd must divide into n_head equal heads; config.json has 15 and 4"),
    "no epsilon": ({"layer_norm_epsilon": None}, "needs layer_norm_epsilon, a number above 0"),
    "positions": ({"n_positions": 13}, r"wpe.weight has the shape \(12, 15\); config.json implies \(13, 15\)"),
    "fewer blocks": ({"n_layer": 1}, "has the unknown tensor transformer.h.1.*and 11 more"),
    "more blocks": ({"n_layer": 3}, "lacks the tensor transformer.h.2.*and 11 more"),
    "inner": ({"n_inner": 0}, "needs n_inner, a whole number of at least 1; it has 0"),
}


@pytest.mark.parametrize(("changes", "message"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_with_a_config_is_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, config_json())
    (tmp_path / "config.json").write_text(json.dumps(config_json() | changes))
    with pytest.raises(UserError, match=message):
        open_source(tmp_path)


WRONG = {
    "cross-attention": ({f"{PREFIX}h.0.crossattention.c_attn.bias": np.ones(30, np.float32)}, "unknown tensor"),
    "another output": ({ANSWER: np.ones((20, 15), np.float32)}, "lm_head.weight differs from wte.weight"),
    "two names": ({"ln_f.bias": np.ones(15, np.float32)}, "ln_f.bias.*ln_f.bias, two names of one tensor"),
    "a mask of another length": ({f"{PREFIX}h.0.attn.bias": np.ones((1, 1, 9, 9), np.float32)}, r"implies \(1, 1, 12"),
    "integers": ({EMBEDDING: np.ones((20, 15), np.int8)}, "wte.weight has the type I8; expected one of F64"),
    "integers as output": ({ANSWER: np.ones((20, 15), np.int8)}, "lm_head.weight has the type I8; expected one of"),
}


@pytest.mark.parametrize(("more", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_with_a_tensor_is_named(more: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, config_json(), random_tensors(config_json()) | more)
    with pytest.raises(UserError, match=message):
        open_source(tmp_path)


def test_a_vocabulary_needs_a_row_for_each_token_and_none_for_mask(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, config_json(vocab_size=20))
    assert jtd.from_pretrained(tmp_path).params["embed"]["embedding"].shape == (20, 15)
    write_checkpoint(tmp_path, config_json(vocab_size=22))
    assert jtd.from_pretrained(tmp_path).params["embed"]["embedding"].shape == (20, 15)  # without padding
    write_checkpoint(tmp_path, config_json(vocab_size=19))
    with pytest.raises(UserError, match="has 19 rows of embeddings, and the tokenizer 20 tokens. Give"):
        jtd.from_pretrained(tmp_path)


def test_an_autoregressive_model_has_no_shifted_head() -> None:
    with pytest.raises(ValueError, match="head.shifted=False"):
        Autoregressive(head=Head(shifted=True))


def start(folder: Path, *more: str, steps: int = 0, config: str = "autoregressive.py") -> Completed:
    flags = [f"--config={ROOT}/configs/{config}", "--config.init=checkpoint", "--workdir=run"]
    flags += ["--config.text.path=texts.txt", f"--config.num_steps={steps}", "--config.batch_size=16"]
    return run("train", *flags, *more, cwd=folder)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint and the run `run` that has imported it."""
    folder = tmp_path_factory.mktemp("gpt2")
    write_texts(folder)
    tensors = write_checkpoint(folder / "checkpoint", config_json())
    done = start(folder)
    assert done.returncode == 0, done.stderr
    size = sum(array.size for array in tensors.values())
    assert f"Starting from the gpt2 checkpoint checkpoint: {size:,} parameters." in done.stderr.splitlines()
    return folder


def test_step_0_has_the_parameters_of_the_checkpoint(imported: Path) -> None:
    run, checkpoint = jtd.load(imported / "run"), jtd.from_pretrained(imported / "checkpoint")
    jax.tree.map(np.testing.assert_array_equal, run.params, checkpoint.params)
    assert run.method.trunk == checkpoint.method.trunk and run.method.head == checkpoint.method.head


def test_an_imported_run_is_exported_as_the_checkpoint_to_the_bit(imported: Path) -> None:
    done = run("export", "run", "exported", cwd=imported)
    assert done.returncode == 0 and "-> exported" in done.stderr, done.stderr
    tensors, exported = (load_file(imported / name / "model.safetensors") for name in ("checkpoint", "exported"))
    assert tensors.keys() == exported.keys()
    jax.tree.map(np.testing.assert_array_equal, tensors, exported)
    config = json.loads((imported / "exported" / "config.json").read_text())
    stored = config_json(n_inner=60)
    assert {name: config[name] for name in stored} == stored
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 1, 0)
    assert "GPT2LMHeadModel" in (imported / "exported" / "README.md").read_text()


def test_what_does_not_fit_a_run_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    write_texts(tmp_path)
    write_checkpoint(tmp_path / "checkpoint", config_json(n_positions=5))
    other = start(tmp_path, config="masked.py")
    assert other.returncode == 2 and "give --config configs/autoregressive.py." in other.stderr
    assert not (tmp_path / "run").exists()
    done = start(tmp_path)
    message = "The texts have up to 8 tokens, the network positions for 5. Set --config.text.length=5."
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.slow
def test_every_command_works_on_an_imported_run(imported: Path) -> None:
    few = ("--checkpoint", "run", "--num", "8")
    commands = [("sample", *few), ("sample", *few, "--template", "The Mill [MASK] [MASK]"), ("evaluate", *few)]
    for command in (*commands, ("verify", "--checkpoint", "run"), ("visualize", "--checkpoint", "run", "--out", "f")):
        done = run(*command, cwd=imported)
        assert done.returncode == 0, (command, done.stderr)


@pytest.mark.slow
def test_fine_tuning_lowers_the_loss(imported: Path, tmp_path: Path) -> None:
    shutil.copytree(imported, tmp_path / "gpt2")
    before = sum(jtd.load(imported / "run").nll(TEXTS[:2]))
    shutil.rmtree(tmp_path / "gpt2" / "run")
    assert start(tmp_path / "gpt2", "--config.optim.warmup=1", steps=60).returncode == 0
    assert sum(jtd.load(tmp_path / "gpt2" / "run").nll(TEXTS[:2])) < 0.8 * before
