"""Launch scripts: the arguments and environment of each process, and supervision. Stubs replace external programs."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.runs import WITH_DEFAULT_SIGNALS, write_texts

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), LAUNCH / "slurm.sbatch"])

STUB = """\
import json, os, signal, subprocess, sys, time
name, folder = sys.argv[1:3]
arguments = sys.argv[3:]
rank = int(os.environ.get("JAX_PROCESS_ID", -1))
calls = [json.loads(line) for line in open(folder + "/calls")] if os.path.exists(folder + "/calls") else []
attempt = sum(call["name"] == name and call["env"].get("JAX_PROCESS_ID") == str(rank) for call in calls)
def note(name, pid=os.getpid(), **more):
    with open(folder + "/calls", "a") as file:
        file.write(json.dumps({"name": name, "pid": pid, **more}) + "\\n")
def wait_for(name, number):  # until there are so many records of it
    while sum(json.loads(line)["name"] == name for line in open(folder + "/calls")) < number:
        time.sleep(0.01)
def wait_for_end(name):  # of the process that recorded it
    wait_for(name, 1)
    (pid,) = [json.loads(line)["pid"] for line in open(folder + "/calls") if json.loads(line)["name"] == name]
    while os.path.exists(f"/proc/{pid}"):
        time.sleep(0.01)
def until_stopped(saving=0.0):  # like a training
    def stop(*_):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(saving)
        note("saved")
        sys.exit(143)
    signal.signal(signal.SIGTERM, stop)
    note("ready")
    while True:
        time.sleep(10)
env = {name: value for name, value in os.environ.items() if name.startswith(("JAX_", "SLURM_"))}
note(sys.argv[1], arguments=arguments, env=env)
exec(open(folder + "/" + name).read())
"""
"""A program that records its arguments and environment, and then runs the Python code of the test."""


class Stage:
    """A PATH where some programs are stubs, and a record of their calls."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.bin = folder / "bin"
        self.home = folder / "home"
        self.temporary = folder / "tmp"
        self.started: list[subprocess.Popen[str]] = []
        for each in (self.bin, self.home, self.temporary):
            each.mkdir()
        (folder / "stub.py").write_text(STUB)
        foreign = ("JAX_", "SLURM_", "RESTARTS", "GRACE")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        path = f"{self.bin}:{os.environ['PATH']}"
        self.env = {**inherited, "PATH": path, "HOME": str(self.home), "TMPDIR": str(self.temporary)}

    def stub(self, name: str, does: str = "", at: Path | None = None) -> None:
        """Installs a program that runs some lines of Python."""
        (self.folder / name).write_text(does)
        file = (at or self.bin) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-IS", str(self.folder / "stub.py"), name, str(self.folder)]
        file.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        file.chmod(0o755)

    def calls(self, name: str) -> list[dict[str, Any]]:
        file = self.folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        return [call for call in map(json.loads, lines) if call["name"] == name]

    def start(self, *command: str | Path, **env: str) -> subprocess.Popen[str]:
        pipe, env = subprocess.PIPE, {**self.env, **env}
        arguments = [sys.executable, "-c", WITH_DEFAULT_SIGNALS, *command]
        self.started.append(
            subprocess.Popen(
                arguments, cwd=self.folder, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True
            )
        )
        return self.started[-1]

    def run(self, *command: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*command, **env)
        stdout, stderr = process.communicate(timeout=30)
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)

    def wait_for(self, name: str, number: int) -> None:
        """Waits until there are `number` records of a name."""
        end = time.monotonic() + 30
        while len(self.calls(name)) < number:
            assert time.monotonic() < end, f"{name}: {len(self.calls(name))} of {number}"
            time.sleep(0.02)

    def still_running(self) -> list[int]:
        """Returns the recorded processes that still run."""
        return [call["pid"] for name in ("python", "child") for call in self.calls(name) if runs(call["pid"])]


def runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    it = Stage(tmp_path)
    yield it
    for process in it.started:
        process.kill()
    leftover = it.still_running()
    for pid in leftover:
        os.kill(pid, signal.SIGKILL)
    for process in it.started:
        process.communicate(timeout=30)
    assert not leftover, "a process was left running"
    assert not list(it.temporary.iterdir()), "temporary files were left"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    shellcheck = Path(sysconfig.get_path("scripts")) / "shellcheck"
    done = subprocess.run([shellcheck, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# launch/local.sh

LOCAL = LAUNCH / "local.sh"


def test_each_process_gets_its_index_and_the_common_address(stage: Stage) -> None:
    stage.stub("python")
    flags = ["--workdir", "a folder", "--config.label='$HOME'", ""]
    done = stage.run(LOCAL, "3", "configs/x.py:preset", *flags)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    calls = stage.calls("python")
    for name in ("JAX_PROCESS_ID", "JAX_LOCAL_DEVICE_IDS"):
        assert sorted(call["env"][name] for call in calls) == ["0", "1", "2"]
    assert {call["env"]["JAX_NUM_PROCESSES"] for call in calls} == {"3"}
    (address,) = {call["env"]["JAX_COORDINATOR_ADDRESS"] for call in calls}
    assert re.fullmatch(r"127\.0\.0\.1:\d{5}", address)
    for call in calls:
        assert call["arguments"] == ["-m", "jtextdiff.train", "--config", "configs/x.py:preset", *flags]


def test_only_the_first_process_prints(stage: Stage) -> None:
    stage.stub("python", "print(rank); print(rank + 5, file=sys.stderr)")
    done = stage.run(LOCAL, "3", "c.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "5\n")


def test_all_processes_restart_if_one_fails(stage: Stage) -> None:
    stage.stub(
        "python",
        "if attempt == 0 and rank == 1: wait_for('ready', 2); sys.exit('no memory')\nif attempt == 0: until_stopped()",
    )
    done = stage.run(LOCAL, "3", "c.py")
    assert done.returncode == 0
    assert done.stderr == "no memory\nFailed: process 1 with status 1. Restarting all processes (1 of 3).\n"
    assert len(stage.calls("saved")) == 2
    calls = stage.calls("python")
    assert sorted(call["env"]["JAX_PROCESS_ID"] for call in calls) == ["0", "0", "1", "1", "2", "2"]
    addresses = [call["env"]["JAX_COORDINATOR_ADDRESS"] for call in calls]
    assert len(set(addresses[:3])) == len(set(addresses[3:])) == 1


def test_restarts_are_limited(stage: Stage) -> None:
    stage.stub("python", "wait_for('python', 2 * attempt + 2); sys.exit(0 if rank else 7)")
    done = stage.run(LOCAL, "2", "c.py", RESTARTS="2")
    assert done.returncode == 7 and len(stage.calls("python")) == 6
    assert done.stderr.splitlines() == [
        "Failed: process 0 with status 7. Restarting all processes (1 of 2).",
        "Failed: process 0 with status 7. Restarting all processes (2 of 2).",
        "Failed: process 0 with status 7.",
    ]


FAILS_AFTERWARDS = """
if rank != 1:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note("ready")
    wait_for_end("failing")
    sys.exit(1)
wait_for("ready", 2)
note("failing")
"""


def test_a_user_error_is_printed_once_and_not_retried(stage: Stage) -> None:
    stage.stub("python", FAILS_AFTERWARDS + "print('error: wrong'); sys.exit(2)")
    done = stage.run(LOCAL, "3", "c.py")
    assert done.returncode == 2 and len(stage.calls("python")) == 3
    assert done.stderr == "error: wrong\nFailed: process 1 with status 2.\n"


def test_the_first_process_to_fail_is_named(stage: Stage) -> None:
    stage.stub("python", FAILS_AFTERWARDS + "os.kill(os.getpid(), signal.SIGKILL)")
    done = stage.run(LOCAL, "3", "c.py", RESTARTS="0")
    assert done.returncode in (1, 137) and len(stage.calls("python")) == 3
    assert "process 1 with status 137" in done.stderr.splitlines()[-1]


def test_processes_that_do_not_end_are_killed_with_their_children(stage: Stage) -> None:
    stubborn = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nnote('child', subprocess.Popen(['sleep', '60']).pid)\n"
    stage.stub(
        "python", stubborn + "if rank == 1: wait_for('child', 2); os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(60)"
    )
    done = stage.run(LOCAL, "2", "c.py", RESTARTS="0", GRACE="1")
    assert (done.returncode, done.stderr) == (137, "Failed: process 1 with status 137.\n")
    assert len(stage.calls("child")) == 2 and not stage.still_running()


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
    ],
    ids=lambda it: str(int(it)),
)
def test_a_stop_signal_is_passed_on_and_waited_for(number: signal.Signals, status: int, stage: Stage) -> None:
    stage.stub("python", "until_stopped(saving=0.5 + rank)")
    process = stage.start(LOCAL, "2", "c.py")
    stage.wait_for("ready", 2)
    os.killpg(process.pid, number)  # as a terminal does; processes that it also reached would get the signal twice
    stderr = process.communicate(timeout=30)[1]
    assert process.returncode == status and stderr == ""
    assert len(stage.calls("saved")) == len(stage.calls("python")) == 2 and not stage.still_running()


def test_a_second_stop_signal_is_passed_on(stage: Stage) -> None:
    once = "def once(*_): signal.signal(signal.SIGTERM, signal.SIG_DFL); note('saving')\n"
    stage.stub("python", once + "signal.signal(signal.SIGTERM, once); note('ready')\nwhile True: time.sleep(10)")
    process = stage.start(LOCAL, "2", "c.py")
    for record in ("ready", "saving"):
        stage.wait_for(record, 2)
        process.terminate()
    assert process.communicate(timeout=30) == ("", "") and process.returncode == 143


def test_a_stop_signal_to_one_process_stops_all(stage: Stage) -> None:
    stage.stub("python", "if rank == 1: wait_for('ready', 1); sys.exit(143)\nuntil_stopped()")
    done = stage.run(LOCAL, "2", "c.py")
    assert (done.returncode, done.stderr) == (143, "") and len(stage.calls("python")) == 2


def test_a_failure_to_save_is_reported(stage: Stage) -> None:
    stage.stub("python", "signal.signal(signal.SIGTERM, lambda *_: sys.exit(rank)); note('ready'); time.sleep(60)")
    process = stage.start(LOCAL, "2", "c.py")
    stage.wait_for("ready", 2)
    process.terminate()
    assert process.communicate(timeout=30)[1] == "Failed: process 1 with status 1.\n" and process.returncode == 1
    assert len(stage.calls("python")) == 2


@pytest.mark.skipif(subprocess.call("setpriv --pdeathsig TERM true", shell=True) != 0, reason="needs setpriv")
def test_processes_end_if_their_launcher_is_killed(stage: Stage) -> None:
    stage.stub("python", "until_stopped()")
    process = stage.start(LOCAL, "2", "c.py")
    stage.wait_for("ready", 2)
    process.kill()
    stage.wait_for("saved", 2)
    process.communicate(timeout=30)  # the processes share its output
    (logs,) = stage.temporary.iterdir()
    (logs / "1").unlink()
    logs.rmdir()


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        ([], {}),
        (["2"], {}),
        (["0", "c.py"], {}),
        (["two", "c.py"], {}),
        (["2", "c.py"], {"RESTARTS": "-1"}),
        (["2", "c.py"], {"GRACE": "1.5"}),
    ],
)
def test_errors_of_local_are_one_line(arguments: list[str], env: dict[str, str], stage: Stage) -> None:
    stage.stub("python")
    done = stage.run(LOCAL, *arguments, **env)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert not stage.calls("python")


@pytest.mark.slow
def test_two_processes_train_to_the_end(tmp_path: Path) -> None:
    toy = ["num_steps=6", "batch_size=16", "every.checkpoint=3", "every.sample=6", "every.evaluate=6"]
    small = ["trunk.width=32", "trunk.num_layers=1", "embed_dim=16"]
    write_texts(tmp_path)
    text = [f"text.path={tmp_path}/texts.txt", "text.tokenizer=words:1"]
    flags = [f"--config.{each}" for each in [*toy, *text, *(f"method.{each}" for each in small)]]
    path = f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
    command = [LOCAL, "2", "configs/diffusion_lm.py", "--workdir", tmp_path / "run", *flags]
    env = {**os.environ, "PATH": path, "RESTARTS": "0"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0 and "2 processes" in done.stderr, done.stderr
    assert (tmp_path / "run" / "checkpoints" / "6").is_dir()


# launch/slurm.sbatch

JOB = {"SLURM_JOB_ID": "123456", "SLURM_JOB_NODELIST": "node[07-08]", "SLURM_CPUS_PER_TASK": "8"}
SRUN = """
command = arguments[[word.startswith("--") for word in arguments].index(False):]
tasks = [{"SLURM_LOCALID": str(i), "SLURM_PROCID": str(i)} for i in range(2)]
sys.exit(max([subprocess.call(command, env={**os.environ, **task}) for task in tasks]))
"""
SCONTROL = "if arguments[0] == 'show': print('node07\\nnode08')"


def on_slurm(stage: Stage, status: int, *flags: str) -> int:
    """Runs the job with two tasks that exit with a status."""
    stage.stub("srun", SRUN)
    stage.stub("scontrol", SCONTROL)
    stage.stub("python", f"sys.exit({status})")
    return stage.run("bash", LAUNCH / "slurm.sbatch", *flags, **JOB).returncode


def test_every_task_of_a_slurm_job_gets_the_coordinator_address(stage: Stage) -> None:
    flags = ["--config", "configs/x.py", "--workdir", "/shared/my runs/$x"]
    assert on_slurm(stage, 0, *flags) == 0
    calls = stage.calls("python")
    assert [call["arguments"] for call in calls] == [["-m", "jtextdiff.train", *flags]] * 2
    assert {call["env"]["JAX_COORDINATOR_ADDRESS"] for call in calls} == {"node07:13456"}
    assert [call["env"]["JAX_LOCAL_DEVICE_IDS"] for call in calls] == ["0", "1"]
    assert not any({"JAX_PROCESS_ID", "JAX_NUM_PROCESSES"} & call["env"].keys() for call in calls)  # from Slurm
    assert stage.calls("scontrol")[0]["arguments"] == ["show", "hostnames", JOB["SLURM_JOB_NODELIST"]]
    assert {"--kill-on-bad-exit=1", "--cpus-per-task=8"} <= set(stage.calls("srun")[0]["arguments"])


@pytest.mark.parametrize(("status", "requeued"), [(0, False), (1, False), (2, False), (134, False), (143, True)])
def test_a_slurm_job_is_requeued_if_it_was_stopped(status: int, requeued: bool, stage: Stage) -> None:
    assert on_slurm(stage, status) == status
    queued = [call["arguments"] for call in stage.calls("scontrol") if call["arguments"][0] != "show"]
    assert queued == [["requeue", JOB["SLURM_JOB_ID"]]] * requeued


def test_a_slurm_job_without_host_names_trains_nothing(stage: Stage) -> None:
    stage.stub("srun")
    stage.stub("scontrol", "sys.exit(1)")
    assert stage.run("bash", LAUNCH / "slurm.sbatch", **JOB).returncode == 1 and not stage.calls("srun")


def test_a_slurm_job_has_a_task_per_gpu_and_time_to_save() -> None:
    lines = (LAUNCH / "slurm.sbatch").read_text().splitlines()
    before_commands = lines[: next(i for i, line in enumerate(lines) if line and not line.startswith("#"))]
    options = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2] for line in before_commands if line.startswith("#SBATCH")
    )
    assert sum(line.startswith("#SBATCH") for line in lines) == len(options)
    assert options["ntasks-per-node"] == options["gpus-per-node"] and options["open-mode"] == "append"
    assert "requeue" in options
    name, _, seconds = options["signal"].partition("@")  # with B: the script gets the signal instead of the tasks
    assert name == "TERM" and int(seconds) >= 60


# launch/kubernetes.yaml


@pytest.fixture(scope="module")
def jobset() -> dict[str, Any]:
    return yaml.safe_load((LAUNCH / "kubernetes.yaml").read_text())


@pytest.fixture(scope="module")
def job(jobset: dict[str, Any]) -> dict[str, Any]:
    (only,) = jobset["spec"]["replicatedJobs"]
    assert only["replicas"] == 1
    return only["template"]["spec"]


@pytest.fixture(scope="module")
def container(job: dict[str, Any]) -> dict[str, Any]:
    (only,) = job["template"]["spec"]["containers"]
    return only


def test_every_pod_gets_its_index_and_the_coordinator_address(
    jobset: dict[str, Any], job: dict[str, Any], container: dict[str, Any]
) -> None:
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    env = {each["name"]: each for each in container["env"]}
    assert job["completionMode"] == "Indexed"
    assert str(job["parallelism"]) == str(job["completions"]) == env["JAX_NUM_PROCESSES"]["value"]
    index = env["JAX_PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert index == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    host, _, port = env["JAX_COORDINATOR_ADDRESS"]["value"].partition(":")
    name, train = jobset["metadata"]["name"], jobset["spec"]["replicatedJobs"][0]["name"]
    subdomain = jobset["spec"]["network"].get("subdomain", name)
    assert jobset["spec"]["network"]["enableDNSHostnames"] is True
    assert host == f"{name}-{train}-0-0.{subdomain}" and 1024 <= int(port) < 65536
    assert all(isinstance(each["value"], str) for each in container["env"] if "value" in each)


def test_a_failed_pod_restarts_all_except_after_a_user_error(
    jobset: dict[str, Any], job: dict[str, Any], container: dict[str, Any]
) -> None:
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] > 0 and job["backoffLimit"] == 0
    assert policy["rules"] == [{"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule == {
        "action": "FailJob",
        "onExitCodes": {"containerName": container["name"], "operator": "In", "values": [2]},
    }
    assert job["template"]["spec"]["restartPolicy"] == "Never"


def test_pods_have_gpus_time_to_save_and_a_shared_workdir(job: dict[str, Any], container: dict[str, Any]) -> None:
    pod = job["template"]["spec"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] > 0
    assert pod["terminationGracePeriodSeconds"] >= 120
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in container["args"])
    assert (ROOT / flags["config"]).is_file()
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert mounts.keys() == volumes.keys()
    (shared,) = (name for name, volume in volumes.items() if "persistentVolumeClaim" in volume)
    assert Path(mounts[shared]) in Path(flags["workdir"]).parents


# launch/tpu.sh

TPU = LAUNCH / "tpu.sh"
GCLOUD = "if 'describe' in arguments: print('10.0.0.4\\n10.0.0.5')"


def test_all_hosts_of_a_tpu_get_the_library_and_train(stage: Stage) -> None:
    """The command of a host is run here in a temporary home."""
    stage.stub("gcloud", GCLOUD + "\nif 'scp' in arguments: os.link(arguments[4], folder + '/home/jtextdiff.tar.gz')")
    flags = ["--workdir", "/mnt/my runs", "--config.label=$HOME's `x`", "--config.text.path=*"]
    done = stage.run(TPU, "name", "zone", "configs/diffusion_lm.py:e2e", *flags)
    assert done.returncode == 0, done.stderr
    copy, describe, train = (call["arguments"] for call in stage.calls("gcloud"))
    assert copy[3] == "scp" and copy[5] == "name:jtextdiff.tar.gz" and describe[3:5] == ["describe", "name"]
    assert train[3:5] == ["ssh", "name"]
    for arguments in (copy, describe, train):
        assert arguments[:3] == ["compute", "tpus", "tpu-vm"] and arguments[arguments.index("--zone") + 1] == "zone"
    assert copy[copy.index("--worker") + 1] == train[train.index("--worker") + 1] == "all"
    command = train[train.index("--command") + 1]
    assert "\n" not in command
    stage.stub("curl", "print('1')")
    stage.stub("uv")
    stage.stub("python", at=stage.home / "jtextdiff-launch" / ".venv" / "bin")
    host = stage.run("bash", "-c", command)
    assert host.returncode == 0, host.stderr
    (call,) = stage.calls("python")
    assert call["arguments"] == ["-m", "jtextdiff.train", "--config", "configs/diffusion_lm.py:e2e", *flags]
    expected = {"JAX_PROCESS_ID": "1", "JAX_NUM_PROCESSES": "2", "JAX_COORDINATOR_ADDRESS": "10.0.0.4:8476"}
    assert expected.items() <= call["env"].items()
    installed = stage.home / "jtextdiff-launch"
    assert (installed / "jtextdiff" / "train.py").is_file() and (installed / "configs" / "diffusion_lm.py").is_file()
    assert [call["arguments"][-1] for call in stage.calls("uv")] == ["3.12", ".[tpu]"]


@pytest.mark.parametrize("failing", ["scp", "describe", "ssh"])
def test_an_unreachable_tpu_is_a_failure(failing: str, stage: Stage) -> None:
    stage.stub("gcloud", f"{GCLOUD}\nsys.exit({failing!r} in arguments)")
    assert stage.run(TPU, "name", "zone", "configs/masked.py").returncode != 0
    assert failing in stage.calls("gcloud")[-1]["arguments"]


@pytest.mark.parametrize(
    "arguments", [[], ["name", "zone"], ["name", "zone", "absent.py"], ["name", "zone", "README.md"]]
)
def test_errors_of_tpu_are_one_line(arguments: list[str], stage: Stage) -> None:
    stage.stub("gcloud")
    done = stage.run(TPU, *arguments)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert not stage.calls("gcloud")


# launch/Dockerfile


def test_the_image_contains_its_sources_and_trains_as_an_ordinary_user() -> None:
    text = (LAUNCH / "Dockerfile").read_text()
    steps = [line.split(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
    copied = [source for step, rest in steps if step == "COPY" for source in rest.split()[:-1]]
    assert copied and all((ROOT / source).exists() for source in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {project["readme"], "pyproject.toml", "jtextdiff", "configs"} <= set(copied)
    instructions = dict(steps)
    assert json.loads(instructions["ENTRYPOINT"]) == ["python", "-m", "jtextdiff.train"]
    assert instructions["USER"] == "1000" and "--uid 1000" in text
    name, _, default = instructions["ARG"].partition("=")
    (install,) = (rest for step, rest in steps if step == "RUN" and "pip install" in rest)
    for value, extra in {"cuda": "/src[cuda]", "tpu": "/src[tpu]", "": "/src"}.items():
        words = subprocess.run(["sh", "-c", f"echo {install}"], env={name: value}, capture_output=True, text=True)
        assert words.stdout.split()[-1] == extra
    assert {default, "tpu"} <= project["optional-dependencies"].keys()
