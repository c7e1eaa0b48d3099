"""Starting jax.distributed from flags, the environment or Slurm.

Process 0 prints for all of them, and the failure of one ends all.
"""

import argparse
import contextlib
import hashlib
import importlib.metadata
import math
import os
from collections.abc import Iterator

from jtextdiff.cli.arguments import Parser
from jtextdiff.cli.errors import Interrupted, UserError
from jtextdiff.cli.main import outcome
from jtextdiff.cli.output import say, silenced
from jtextdiff.devices.rendezvous import handshake, is_loopback

SOURCES = {
    "num_processes": ("JAX_NUM_PROCESSES", "SLURM_STEP_NUM_TASKS"),
    "process_id": ("JAX_PROCESS_ID", "SLURM_PROCID"),
    "coordinator": ("JAX_COORDINATOR_ADDRESS",),
}
"""The environment variables that stand in for each flag."""

HEARTBEAT = 30
"""Seconds without a sign of life after which a process counts as dead and all others end."""


def add_process_flags(parser: Parser) -> None:
    """Adds the flags that make this process one of several."""
    group = parser.add_argument_group(
        "several processes",
        "One process per host or per device, all with the same command; the scripts in launch/ start them. A flag that "
        "is not given is read from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID, or from Slurm.",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0, reachable from all others")
    group.add_argument("--num_processes", type=int, metavar="N", help="number of processes")
    group.add_argument("--process_id", type=int, metavar="I", help="number of this process, from 0")
    group.add_argument(
        "--join_timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="how long to wait for the other processes (default: 300)",
    )


@contextlib.contextmanager
def distributed_run(flags: argparse.Namespace, work: str = "") -> Iterator[None]:
    """Runs the body as one of several processes if the flags or the environment say so. Only process 0 then prints.

    `work` must be the same text in all processes. Enter this before jax initialises its devices. Raises UserError or
    OSError if the processes do not connect. One of several that fails prints why and exits at once: leaving jax in an
    orderly way would wait for the others, which wait for it.
    """
    process = 0
    try:
        process = join_processes(flags, work)
        with silenced() if process else contextlib.nullcontext():
            yield
    except Interrupted as stop:  # all processes stop at the same step, and leave in an orderly way
        raise Interrupted("" if process else str(stop), stop.status) from None
    except (Exception, KeyboardInterrupt) as error:
        import jax

        if not jax.distributed.is_initialized():
            raise
        status, lines = outcome(error)
        if isinstance(error, jax.errors.JaxRuntimeError):
            reason = str(error).strip().partition("\n")[0][:200]
            lines = [f"error: the connection to another process broke ({reason}); see the messages of that one."]
        for line in lines:
            say(f"process {process}: {line}" if process else line)
        os._exit(status)


def join_processes(flags: argparse.Namespace, work: str = "") -> int:
    """Joins the other processes if there are any; returns the number of this one."""
    num, process, address = (_setting(flags, name) for name in ("num_processes", "process_id", "coordinator"))
    if num is None and process is None and address is None and not _on_tpu_pod():
        return 0
    import jax

    # The service would handle SIGTERM itself; `multihost.any_process_stopped` does its work here.
    jax.config.update("jax_enable_preemption_service", False)
    if num is None and process is None and address is None:
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT)  # a TPU pod provides all three
    elif num == "1" and address is None:
        return 0
    else:
        _initialize(*_validated(num, process, address), seconds=flags.join_timeout, work=work)
    if jax.process_index() == 0:
        say(f"{jax.process_count()} processes, {jax.local_device_count()} of {jax.device_count()} devices in this one.")
    return jax.process_index()


def _initialize(host: str, port: int, num: int, process: int, *, seconds: float, work: str) -> None:
    import jax

    if not 0 < seconds < math.inf:
        raise UserError(f"--join_timeout must be a number of seconds above 0, got {seconds}.")
    version = importlib.metadata.version("jtextdiff")
    run = hashlib.sha256(f"{version} {jax.__version__} {work}".encode()).hexdigest()
    handshake((host, port), num, process, seconds, run)
    jax.distributed.initialize(
        f"{host}:{port}",
        num,
        process,
        cluster_detection_method="deactivate",
        coordinator_bind_address=f"{host if is_loopback(host) else '[::]'}:{port}",
        heartbeat_timeout_seconds=HEARTBEAT,
    )


def _setting(flags: argparse.Namespace, name: str) -> str | None:
    """Returns the value of a flag, else that of the first environment variable that is set, as text."""
    value = getattr(flags, name)
    if value is not None:
        return str(value)
    # SLURM_PROCID is also set in a process that is not one of several.
    sources = [source for source in SOURCES[name] if source != "SLURM_PROCID" or "SLURM_STEP_NUM_TASKS" in os.environ]
    return next((os.environ[source] for source in sources if os.environ.get(source)), None)


def _validated(num: str | None, process: str | None, address: str | None) -> tuple[str, int, int, int]:
    """Returns host, port, the number of processes and the number of this one. Raises UserError if they are invalid."""
    if num is None or process is None or address is None:
        settings = {"--coordinator": address, "--num_processes": num, "--process_id": process}
        missing = ", ".join(name for name, value in settings.items() if value is None)
        raise UserError(
            f"One of several processes needs --coordinator, --num_processes and --process_id; missing: {missing}."
        )
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal() and len(port) < 6 and 0 < int(port) < 65536):
        raise UserError(f"--coordinator must be HOST:PORT, such as 10.0.0.1:7654, got {address!r}.")
    if not all(text.isascii() and text.isdecimal() and len(text) < 10 for text in (num, process)) or not int(
        process
    ) < int(num):
        raise UserError(f"--process_id must be from 0 to --num_processes - 1, got {process} of {num}.")
    return host, int(port), int(num), int(process)


def _on_tpu_pod() -> bool:
    return "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
