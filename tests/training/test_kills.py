"""Killed runs resume from their newest checkpoint and end with the same parameters."""

import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.runs import ROOT

import jtextdiff as jtd

STEPS = 60
KILLS = int(os.environ.get("KILLS", "1"))
"""Kills at most of each run; it may end before."""

TEXTS = [
    f"The {name} is {price} ." for name in ("Mill", "Swan", "Oak", "Crown") for price in ("cheap", "dear", "small")
]
TEXTS += [" ".join(pair) for pair in zip(TEXTS, reversed(TEXTS), strict=True)]
"""Texts of two lengths, for which two programs are compiled; the steps are several epochs."""

TOY = [
    "--config=configs/diffusion_lm.py",
    f"--config.num_steps={STEPS}",
    "--config.batch_size=16",
    "--config.text.tokenizer=words:1",
    "--config.method.trunk.num_layers=1",
    "--config.method.trunk.width=16",
    "--config.method.trunk.num_heads=2",
    "--config.method.embed_dim=8",
    "--config.every.log=1",
    "--config.every.evaluate=1000",
    "--config.every.sample=1000",
    "--config.every.checkpoint=5",
    "--config.method.sampler.steps=2",
]


def flags_of(workdir: Path) -> list[str]:
    """Returns the flags of a training, and writes its text."""
    text = workdir.parent / "texts.txt"
    text.write_text("\n".join(TEXTS * 10) + "\n")
    return [*TOY, f"--config.text.path={text}", f"--workdir={workdir}"]


def start(workdir: Path, processes: int) -> list[subprocess.Popen[bytes]]:
    """Starts a training in one process, or in several that connect on a free port."""
    with socket.create_server(("localhost", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    several = lambda i: [f"--coordinator={address}", f"--num_processes={processes}", f"--process_id={i}"]
    command = [sys.executable, "-m", "jtextdiff.train", *flags_of(workdir), "--join_timeout=60"]
    quiet: Any = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return [subprocess.Popen([*command, *(several(i) if processes > 1 else [])], **quiet) for i in range(processes)]


def kill_all(running: list[subprocess.Popen[bytes]]) -> None:
    for process in running:
        process.kill()
    for process in running:
        process.wait()


def newest(workdir: Path) -> int:
    """Returns the step of the newest finished checkpoint, 0 if there is none."""
    folder = workdir / "checkpoints"
    return max((int(path.name) for path in folder.glob("*") if path.name.isdecimal()), default=0)


def wait_for_a_checkpoint(workdir: Path, *, after: int = 0) -> None:
    deadline = time.monotonic() + 120
    while newest(workdir) <= after:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def finish(workdir: Path, processes: int) -> dict[str, Any]:
    """Trains to the end and returns the parameters."""
    running = start(workdir, processes)
    assert [process.wait(timeout=300) for process in running] == [0] * processes
    assert newest(workdir) == STEPS
    return dict(jtd.load(workdir).params)


def leaves(tree: Any) -> list[np.ndarray]:
    import jax

    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def assert_ends_as_undisturbed(workdir: Path, processes: int) -> None:
    """Trains to the end, and anew without disturbance, and asserts equal parameters."""
    whole = finish(workdir.with_name("whole"), processes)
    for ours, theirs in zip(leaves(finish(workdir, processes)), leaves(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def kill_at_random_times(workdir: Path, processes: int) -> None:
    """If one of several processes is killed, the others notice within the heartbeat timeout, and end with an error
    without a launcher."""
    rng, reached = random.Random(0), [newest(workdir)]
    while len(reached) <= KILLS and reached[-1] < STEPS:
        running = start(workdir, processes)
        try:
            wait_for_a_checkpoint(workdir, after=reached[-1])
            time.sleep(rng.uniform(0, 0.2))
            kill_all([running.pop(rng.randrange(processes))])
            assert all(other.wait(timeout=90) for other in running)
        finally:
            kill_all(running)
        reached.append(newest(workdir))
    assert reached == sorted(reached), "no checkpoint is lost"
    assert reached[1] < STEPS, "it was killed before its end"


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_parameters(tmp_path: Path) -> None:
    kill_at_random_times(tmp_path / "killed", 1)
    assert_ends_as_undisturbed(tmp_path / "killed", 1)


@pytest.mark.slow
def test_two_processes_stop_at_the_same_step_die_together_and_end_with_the_same_parameters(tmp_path: Path) -> None:
    """First only the second of two processes gets the signal to stop: both save, and end with the same status. Then one
    of them is killed."""
    workdir = tmp_path / "stopped"
    running = start(workdir, 2)
    try:
        wait_for_a_checkpoint(workdir)
        running[1].terminate()
        assert [process.wait(timeout=60) for process in running] == [143, 143]
    finally:
        kill_all(running)
    assert 0 < newest(workdir) < STEPS
    kill_at_random_times(workdir, 2)
    assert_ends_as_undisturbed(workdir, 2)


@pytest.mark.slow
def test_a_checkpoint_of_eight_devices_resumes_on_two_and_on_one(tmp_path: Path) -> None:
    """The next loss is the same on each, and the arrays are sharded anew."""
    import json
    import shutil

    def train(workdir: Path, steps: int, devices: int, *mesh: str) -> list[float]:
        env = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        flags = [flag for flag in flags_of(workdir) if flag != f"--config.num_steps={STEPS}"]
        flags += [f"--config.num_steps={steps}", "--config.optim.decay_steps=20", *mesh]
        done = subprocess.run([sys.executable, "-m", "jtextdiff.train", *flags], cwd=ROOT, env=env, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
        return [row["loss"] for row in rows if "loss" in row]

    eight = train(tmp_path / "eight", 13, 8, "--config.mesh.data=2", "--config.mesh.fsdp=4")
    shutil.copytree(tmp_path / "eight", tmp_path / "fewer")
    shutil.rmtree(tmp_path / "fewer" / "checkpoints" / "13")
    two = train(tmp_path / "fewer", 12, 2, "--config.mesh.data=1", "--config.mesh.tensor=2")
    np.testing.assert_allclose(two[10], eight[10], rtol=1e-6)
    one = train(tmp_path / "fewer", 13, 1)
    np.testing.assert_allclose(one[12], eight[12], rtol=1e-5)
