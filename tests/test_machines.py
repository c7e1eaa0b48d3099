"""Machines, through the command line: dry runs, traces, logs elsewhere, and mistakes that only they can make."""

import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Completed, run
from support.runs import ROOT, toy, write_texts

import jtextdiff as jtd
from jtextdiff.run.config_files import load_config
from jtextdiff.train import train_model as train
from jtextdiff.training.logger import MetricsLogger

CONFIG = f"{ROOT}/configs/masked.py"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with texts."""
    write_texts(tmp_path)
    return tmp_path


def command(place: Path, *more: str, steps: int = 25) -> Completed:
    return run("train", *toy("run", steps, *more, config="masked.py"), cwd=place)


def test_a_dry_run_tells_what_a_step_needs_and_trains_nothing(place: Path) -> None:
    before = sorted(place.iterdir())
    done = command(place, "--dry_run")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    kept = told["bytes_a_device"]
    assert kept["parameters"] == kept["running_mean"] == 4 * told["parameters"]
    assert kept["total"] == sum(value for name, value in kept.items() if name != "total")
    assert told["matmul_flops_a_step"] > 6 * told["parameters"] * told["batch"]["rows"]  # at least a word a text
    assert told["collectives"] == {} and sorted(place.iterdir()) == before


def test_a_dry_run_simulates_a_machine_that_is_not_there(place: Path) -> None:
    """Read off the compiled step: an eighth of the state on each device, and never a gather of all of it at once."""
    eight = ("--dry_run", "--devices=8", "--config.mesh.data=1", "--config.mesh.fsdp=8")
    called = [sys.executable, "-m", "jtextdiff.train", *toy("run", 25, *eight, config="masked.py")]
    done = subprocess.run(called, cwd=place, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told, whole = json.loads(done.stdout), json.loads(command(place, "--dry_run").stdout)
    assert told["mesh"] == {"data": 1, "fsdp": 8, "tensor": 1} and told["batch"]["rows_a_device"] == 2
    assert told["matmul_flops_a_step"] == whole["matmul_flops_a_step"] == 8 * told["matmul_flops_a_device"]
    bytes_of = 4 * told["parameters"]
    assert told["bytes_a_device"]["parameters"] < (1 / 8 + 0.1) * bytes_of  # vectors are whole on each
    gathers = told["collectives"]["all-gather"]
    assert gathers["bytes"] > bytes_of and gathers["largest"] < 0.7 * bytes_of


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--devices=2"], "--devices goes with --dry_run"),
        (["--dry_run", "--devices=0"], "at least one device; got 0"),
        (["--dry_run", "--config.mesh.tensor=3"], "does not fit 1 devices"),
        (["--dry_run", "--config.optim.accumulate=3"], "batch_size must divide"),
        (["--num_processes=2"], "missing: --coordinator, --process_id"),
        (["--wandb=mine"], "--wandb needs the package wandb"),
    ],
)
def test_mistakes_are_one_line_and_status_two(flags: list[str], told: str, place: Path) -> None:
    done = command(place, *flags)
    assert done.returncode == 2 and told in done.stderr, done.stderr
    assert len(done.stderr.splitlines()[-1]) < 400 and "Traceback" not in done.stderr


def test_a_directory_that_cannot_be_written_is_one_line(place: Path) -> None:
    done = command(place, "--workdir=/proc/run")
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("error: "), done.stderr
    assert "/proc/run" in done.stderr and "Traceback" not in done.stderr


def test_a_run_is_trained_traced_and_loaded_from_python(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    done, workdir = command(place, "--profile"), place / "run"
    assert done.returncode == 0, done.stderr
    assert list((workdir / "profile").rglob("*perfetto_trace*")) and list((workdir / "profile").rglob("*.xplane.pb"))
    config, _, *flags = toy("run", 26, config="masked.py")
    overrides = [flag.removeprefix("--config.") for flag in flags]
    train(config.removeprefix("--config="), overrides, workdir=workdir)
    model = jtd.load(workdir)
    assert model.step == 26 and len(model.sample(2, steps=3)) == 2


def test_a_page_elsewhere_gets_every_number_and_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights & Biases, by a stand-in for its package: one page however often the run goes on."""
    logged: list[Any] = []
    log = lambda values, step: logged.append((step, values))
    page = types.SimpleNamespace(log=log, finish=lambda: logged.append("end"))
    begun: list[dict[str, Any]] = []
    fake = types.SimpleNamespace(init=lambda **given: begun.append(given) or page)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    config = load_config(CONFIG)
    for start in (0, 5):
        with MetricsLogger(tmp_path, start, 10, quiet=True) as report:
            report.add_wandb("mine", config)
            report.record(start + 1, {"loss": 1.5, "broken": float("nan")})
    assert logged == [(1, {"loss": 1.5}), "end", (6, {"loss": 1.5}), "end"]
    assert begun[0]["id"] == begun[1]["id"] and begun[0]["project"] == "mine" and begun[0]["resume"] == "allow"
    assert begun[0]["config"]["batch_size"] == config.batch_size
