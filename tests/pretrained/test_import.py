"""A run that starts from a published checkpoint: by the command line, with the outputs of the published code."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import published_timed
from support.cases import slow_but
from support.command_line import Completed, run
from support.published import config_json, write_checkpoint, write_tokenizer
from support.runs import ROOT, metrics, write_texts

import jtextdiff as jtd
from jtextdiff.inference.model import Model
from jtextdiff.nets.attention import noisy_and_clean

GOLDEN = ROOT.parent / "shared" / "golden"
CONFIGS = {"mdlm": "masked.py", "bd3lm": "block_diffusion.py", "sedd": "masked.py", "duo": "d3pm.py"}


def start(folder: Path, *more: str, kind: str = "mdlm", steps: int = 0) -> Completed:
    """Starts the run `run` from the checkpoint `checkpoint` in a folder with texts."""
    flags = [f"--config={ROOT}/configs/{CONFIGS[kind]}", "--config.init=checkpoint", "--workdir=run"]
    flags += ["--config.text.path=texts.txt", f"--config.num_steps={steps}", "--config.batch_size=16"]
    return run("train", *flags, *more, cwd=folder)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of MDLM and the run `run` that has imported it. Copy it before changing it."""
    folder = tmp_path_factory.mktemp("imported")
    write_texts(folder)
    tensors = write_checkpoint(folder / "checkpoint", config_json())
    done = start(folder)
    assert done.returncode == 0, done.stderr
    size = sum(array.size for array in tensors.values())
    assert f"Starting from the mdlm checkpoint checkpoint: {size:,} parameters." in done.stderr.splitlines()
    return folder


@pytest.fixture
def place(imported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(imported, tmp_path / "imported"))


def logits(model: Model, tokens: np.ndarray, clean: np.ndarray | None, sigma: np.ndarray | None) -> np.ndarray:
    net = model.method.net.bind(model.params)
    if clean is None:
        return np.asarray(jax.jit(net)(tokens, sigma))
    layout = noisy_and_clean(tokens.shape[1], model.method.block_size)
    of_both = lambda both: net.logits(net.hidden(both, layout=layout)[:, : tokens.shape[1]])
    return np.asarray(jax.jit(of_both)(np.concatenate([tokens, clean], axis=1)))


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"there are no published checkpoints in {GOLDEN}")
@pytest.mark.parametrize("kind", slow_but(["mdlm", "duo"], CONFIGS))
def test_an_imported_run_has_the_outputs_of_the_published_code(kind: str, tmp_path: Path) -> None:
    write_texts(tmp_path)
    shutil.copytree(GOLDEN / kind, tmp_path / "checkpoint", copy_function=shutil.copyfile)
    (tmp_path / "checkpoint").chmod(0o755)
    write_tokenizer(tmp_path / "checkpoint")
    done = start(tmp_path, kind=kind)
    assert done.returncode == 0, done.stderr
    stored = dict(np.load(GOLDEN / kind / "expected.npz"))
    tokens, expected, sigma = stored["tokens"].astype(np.int32), stored["output"][..., :20], stored.get("sigma")
    found = logits(jtd.load(tmp_path / "run"), tokens, stored.get("clean"), sigma)
    if kind == "sedd":  # log p(x_0 | x_t) is its log score + log(e^σ − 1) up to a constant; the token itself has none
        assert sigma is not None
        found = found - np.log(np.expm1(sigma))[:, None, None] - np.log(20)
        found = np.where(np.arange(20) == tokens[..., None], 0.0, found)
        np.testing.assert_allclose(found, expected, atol=2e-5, rtol=0)
    log_p = [np.asarray(jax.nn.log_softmax(outputs[..., :20])) for outputs in (found, expected)]
    np.testing.assert_allclose(*log_p, atol=2e-5, rtol=0)


@pytest.mark.slow
def test_a_resumed_run_goes_on_from_its_own_parameters(place: Path) -> None:
    trained = start(place, steps=3)
    assert trained.returncode == 0 and "Resuming from step 0 of run." in trained.stderr, trained.stderr
    first = metrics(place / "run")[0]
    shutil.rmtree(place / "checkpoint")  # it is needed no more
    resumed = start(place, "--config.every.log=1", steps=4)
    assert resumed.returncode == 0 and "Resuming from step 3 of run." in resumed.stderr, resumed.stderr
    assert "Starting from" not in resumed.stderr
    step_3, step_4 = (jtd.load(place / "run", at=step).params for step in (3, 4))
    step_0 = jtd.load(place / "run", at=0).params if (place / "run/checkpoints/0").exists() else None
    assert first["step"] == 1 and [line["step"] for line in metrics(place / "run")][-1] == 4
    change = jax.tree.map(lambda old, new: float(jnp.abs(old - new).max()), step_3, step_4)
    assert 0 < max(jax.tree.leaves(change)) < 0.1 and step_0 is None


def test_step_0_has_the_parameters_of_the_checkpoint(imported: Path) -> None:
    run, checkpoint = jtd.load(imported / "run", at=0), jtd.from_pretrained(str(imported / "checkpoint"))
    jax.tree.map(np.testing.assert_array_equal, run.params, checkpoint.params)
    assert run.method.trunk == checkpoint.method.trunk
    assert checkpoint.sample(2, control=jtd.controls.length(4))


def test_a_run_without_steps_needs_a_checkpoint(place: Path) -> None:
    done = run("train", f"--config={ROOT}/configs/masked.py", "--config.num_steps=0", cwd=place)
    assert done.returncode == 2 and "num_steps must be at least 1, got 0." in done.stderr
    less = start(place, steps=-1)
    assert less.returncode == 2 and "num_steps must be at least 0, got -1." in less.stderr


def test_settings_of_training_stay_those_of_the_config(place: Path) -> None:
    shutil.rmtree(place / "run")
    assert start(place, "--config.method.trunk.dropout=0.1", "--config.method.trunk.width=8").returncode == 0
    trunk = json.loads((place / "run/config.json").read_text())["method"]["trunk"]
    assert (trunk["dropout"], trunk["width"], trunk["max_length"]) == (0.1, 16, 12)


@pytest.mark.slow
def test_fine_tuning_lowers_the_loss(place: Path) -> None:
    texts = ["The Mill is cheap .", "The Swan is dear ."]
    before = sum(jtd.load(place / "run").nll(texts))
    shutil.rmtree(place / "run")
    assert start(place, "--config.optim.warmup=1", steps=60).returncode == 0
    assert sum(jtd.load(place / "run").nll(texts)) < 0.8 * before


FEW = ("--checkpoint", "run", "--steps", "8")
COMMANDS = [
    ("sample", *FEW, "--num", "2"),
    ("evaluate", *FEW, "--num", "16"),
    ("verify", *FEW, "--step_counts", "0"),
    ("visualize", *FEW, "--out", "film"),
]
"""What works on every run."""


@pytest.mark.slow
def test_every_command_works_on_an_imported_run(place: Path) -> None:
    infill = ("sample", *FEW, "--num", "2", "--template", "The [MASK] is [MASK] .")
    remask = ("sample", *FEW, "--num", "2", "--override", "method.sampler.name=remasking")
    edit = ("edit", *FEW, "--input", "texts.txt", "--num", "2")
    for command in (*COMMANDS, infill, remask, edit, ("export", "run", "exported")):
        done = run(*command, cwd=place)
        assert done.returncode == 0, (command, done.stderr)


def write_kind(folder: Path, kind: str) -> None:
    """Writes texts and a checkpoint; that of SEDD or Duo is conditioned on the time."""
    write_texts(folder)
    if kind == "bd3lm":
        write_checkpoint(folder / "checkpoint", config_json(kind))
    else:
        name = {"sedd": "sedd", "duo": "DUO"}[kind]
        write_checkpoint(folder / "checkpoint", published_timed.CONFIGS[name], published_timed.random_tensors(name))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bd3lm", "sedd", "duo"])
def test_every_command_works_on_imported_runs_of_other_kinds(kind: str, tmp_path: Path) -> None:
    write_kind(tmp_path, kind)
    assert start(tmp_path, kind=kind).returncode == 0
    edit = ("edit", *FEW, "--input", "texts.txt", "--num", "2")
    for command in (*COMMANDS, *([] if kind == "bd3lm" else [edit])):
        done = run(*command, cwd=tmp_path)
        assert done.returncode == 0, (command, done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sedd", "duo"])
def test_fine_tuning_of_a_network_of_the_time_lowers_the_loss(kind: str, tmp_path: Path) -> None:
    write_kind(tmp_path, kind)
    texts = ["The Mill is cheap .", "The Swan is dear ."]
    before = sum(jtd.from_pretrained(tmp_path / "checkpoint").nll(texts))
    hybrid = ("--config.method.hybrid=0",) if kind == "duo" else ()
    assert start(tmp_path, "--config.optim.warmup=1", *hybrid, kind=kind, steps=60).returncode == 0
    assert sum(jtd.load(tmp_path / "run").nll(texts)) < 0.8 * before
