"""Machine options of the command line: dry runs, traces, Weights & Biases, and errors of devices and files."""

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


def test_a_dry_run_reports_the_cost_of_a_step_and_trains_nothing(place: Path) -> None:
    before = sorted(place.iterdir())
    done = command(place, "--dry_run")
    assert done.returncode == 0, done.stderr
    cost = json.loads(done.stdout)
    bytes_per_device = cost["bytes_a_device"]
    assert bytes_per_device["parameters"] == bytes_per_device["running_mean"] == 4 * cost["parameters"]
    assert bytes_per_device["total"] == sum(value for name, value in bytes_per_device.items() if name != "total")
    assert cost["matmul_flops_a_step"] > 6 * cost["parameters"] * cost["batch"]["rows"]  # at least a token per text
    assert cost["collectives"] == {} and sorted(place.iterdir()) == before


@pytest.mark.slow
def test_a_dry_run_simulates_eight_devices(place: Path) -> None:
    """From the compiled step: an eighth of the state per device, and no gather of all parameters at once."""
    eight = ("--dry_run", "--devices=8", "--config.mesh.data=1", "--config.mesh.fsdp=8")
    simulated = [sys.executable, "-m", "jtextdiff.train", *toy("run", 25, *eight, config="masked.py")]
    done = subprocess.run(simulated, cwd=place, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    cost, unsharded = json.loads(done.stdout), json.loads(command(place, "--dry_run").stdout)
    assert cost["mesh"] == {"data": 1, "fsdp": 8, "tensor": 1} and cost["batch"]["rows_a_device"] == 2
    assert cost["matmul_flops_a_step"] == unsharded["matmul_flops_a_step"] == 8 * cost["matmul_flops_a_device"]
    parameter_bytes = 4 * cost["parameters"]
    assert cost["bytes_a_device"]["parameters"] < (1 / 8 + 0.1) * parameter_bytes  # biases and scales are replicated
    gathers = cost["collectives"]["all-gather"]
    assert gathers["bytes"] > parameter_bytes and gathers["largest"] < 0.7 * parameter_bytes


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--devices=2"], "--devices goes with --dry_run"),
        (["--dry_run", "--devices=0"], "at least one device; got 0"),
        (["--dry_run", "--config.mesh.tensor=3"], "does not fit 1 devices"),
        (["--dry_run", "--config.optim.accumulate=3"], "batch_size must divide"),
        (["--num_processes=2"], "missing: --coordinator, --process_id"),
        (["--wandb=mine"], "--wandb needs the package wandb"),
    ],
)
def test_errors_are_one_line_and_status_two(flags: list[str], message: str, place: Path) -> None:
    done = command(place, *flags)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert len(done.stderr.splitlines()[-1]) < 400 and "Traceback" not in done.stderr


def test_a_directory_that_cannot_be_written_is_one_line(place: Path) -> None:
    done = command(place, "--workdir=/proc/run")
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("error: "), done.stderr
    assert "/proc/run" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
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


def test_weights_and_biases_gets_every_metric_and_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a fake package: one page, however often the run is resumed."""
    logged: list[Any] = []
    log = lambda values, step: logged.append((step, values))
    page = types.SimpleNamespace(log=log, finish=lambda: logged.append("end"))
    inits: list[dict[str, Any]] = []
    fake = types.SimpleNamespace(init=lambda **given: inits.append(given) or page)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    config = load_config(CONFIG)
    for start in (0, 5):
        with MetricsLogger(tmp_path, start, 10, quiet=True) as logger:
            logger.add_wandb("mine", config)
            logger.record(start + 1, {"loss": 1.5, "broken": float("nan")})
    assert logged == [(1, {"loss": 1.5}), "end", (6, {"loss": 1.5}), "end"]
    assert inits[0]["id"] == inits[1]["id"] and inits[0]["project"] == "mine" and inits[0]["resume"] == "allow"
    assert inits[0]["config"]["batch_size"] == config.batch_size
