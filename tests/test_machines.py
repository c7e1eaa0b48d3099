"""Machines, through the command line: dry runs, traces, logs elsewhere, and mistakes that only they can make."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import jtextdiff as jtd
from jtextdiff.run.config import load_config
from jtextdiff.train import begin, planned
from jtextdiff.train import run as train
from jtextdiff.training.logger import Report

ROOT = Path(__file__).parents[1]
TOY = [
    "batch_size=16",
    "num_steps=25",
    "method.trunk.num_layers=1",
    "method.trunk.width=32",
    "method.trunk.num_heads=2",
    "every.evaluate=1000",
    "every.sample=1000",
    "every.checkpoint=1000",
]


def command(*flags: str, devices: int = 1, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    called = [sys.executable, "-m", "jtextdiff.train", "--config", f"{ROOT}/configs/masked.py", *flags]
    return subprocess.run(called, cwd=cwd, capture_output=True, text=True, timeout=300, env=env)


def overrides(fields: list[str]) -> list[str]:
    return [f"--config.{field}" for field in fields]


def test_a_dry_run_tells_what_a_step_needs_and_trains_nothing(tmp_path: Path) -> None:
    done = command("--dry_run", f"--workdir={tmp_path}", *overrides(TOY))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    kept = told["bytes_a_device"]
    assert kept["parameters"] == kept["running_mean"] == 4 * told["parameters"]
    assert kept["total"] == sum(value for name, value in kept.items() if name != "total")
    assert told["matmul_flops_a_step"] > 6 * told["parameters"] * told["batch"]["rows"]  # at least a word a text
    assert told["collectives"] == {} and not list(tmp_path.iterdir())


def test_a_dry_run_simulates_a_machine_that_is_not_there(tmp_path: Path) -> None:
    halves = command("--dry_run", "--devices=2", "--config.mesh.data=1", "--config.mesh.fsdp=2", *overrides(TOY))
    whole = json.loads(command("--dry_run", *overrides(TOY)).stdout)
    told = json.loads(halves.stdout)
    assert told["mesh"] == {"data": 1, "fsdp": 2, "tensor": 1} and told["batch"]["rows_a_device"] == 8
    assert told["matmul_flops_a_step"] == whole["matmul_flops_a_step"] == 2 * told["matmul_flops_a_device"]
    assert told["bytes_a_device"]["parameters"] < 0.56 * whole["bytes_a_device"]["parameters"]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--devices=2"], "--devices goes with --dry_run"),
        (["--dry_run", "--devices=0"], "at least one device; got 0"),
        (["--dry_run", "--devices=4", "--config.mesh.tensor=3"], "does not fit 4 devices"),
        (["--dry_run", "--devices=3"], "do not divide over 3 devices (mesh data x fsdp). Try --config.batch_size="),
        (["--num_processes=2"], "missing: --coordinator, --process_id"),
        (["--wandb=mine", "--config.num_steps=2"], "--wandb needs the package wandb"),
    ],
)
def test_mistakes_are_one_line_and_status_two(flags: list[str], told: str, tmp_path: Path) -> None:
    done = command(*flags, *overrides(TOY[:1] + TOY[2:]), cwd=tmp_path)
    assert done.returncode == 2 and told in done.stderr, done.stderr
    assert len(done.stderr.splitlines()[-1]) < 400 and "Traceback" not in done.stderr


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    done = command("--workdir=/proc/run", *overrides(TOY), cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("error: "), done.stderr
    assert "/proc/run" in done.stderr and "Traceback" not in done.stderr


def test_a_run_is_trained_traced_and_loaded_from_python(tmp_path: Path) -> None:
    config, workdir = planned(f"{ROOT}/configs/masked.py", overrides(TOY), tmp_path / "run")
    begin(config, workdir, profile=True)
    assert list((workdir / "profile").rglob("*perfetto_trace*")) and list((workdir / "profile").rglob("*.xplane.pb"))
    train(f"{ROOT}/configs/masked.py", [*TOY, "num_steps=26"], workdir=workdir)
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
    config = load_config(f"{ROOT}/configs/masked.py")
    for start in (0, 5):
        with Report(tmp_path, start, 10, quiet=True) as report:
            report.also_to("mine", config)
            report.record(start + 1, {"loss": 1.5, "broken": float("nan")})
    assert logged == [(1, {"loss": 1.5}), "end", (6, {"loss": 1.5}), "end"]
    assert begun[0]["id"] == begun[1]["id"] and begun[0]["project"] == "mine" and begun[0]["resume"] == "allow"
    assert begun[0]["config"]["batch_size"] == config.batch_size
