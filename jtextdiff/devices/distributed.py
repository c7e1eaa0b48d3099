"""Processes: many as one run. They meet, the first one speaks, and a failure of one ends all."""

import argparse
import hashlib
import importlib.metadata
import math
import os

from jtextdiff.cli.arguments import Parser
from jtextdiff.cli.errors import UserError
from jtextdiff.cli.output import mute, say
from jtextdiff.devices.rendezvous import is_loopback, meet

SOURCES = {
    "num_processes": ("JAX_NUM_PROCESSES", "SLURM_STEP_NUM_TASKS"),
    "process_id": ("JAX_PROCESS_ID", "SLURM_PROCID"),
    "coordinator": ("JAX_COORDINATOR_ADDRESS",),
}
"""Where each flag is read from the environment, if it is not given."""

HEARTBEAT = 30
"""Seconds without a sign of life after which a process counts as dead, and all others end."""


def add_processes(parser: Parser) -> None:
    """The arguments by which a process learns that it is one of many."""
    group = parser.add_argument_group(
        "many processes",
        "One process a host or a device, all with the same command; launch/ starts them. Each flag is otherwise read "
        "from the environment: JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID, or Slurm's own.",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens, reachable by all others")
    group.add_argument("--num_processes", type=int, metavar="N", help="how many there are")
    group.add_argument("--process_id", type=int, metavar="I", help="which one this is, from 0")
    group.add_argument(
        "--join_timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="how long to wait for others (default: 300)",
    )


def join(flags: argparse.Namespace, what: str = "") -> None:
    """Makes this process one of many, if it was told so; all but the first then say nothing but their errors.

    `what` they are all to do must be the same. To be called before jax looks for devices. Raises UserError or OSError
    if the others cannot be met.
    """
    num, process, address = (_told(flags, name) for name in ("num_processes", "process_id", "coordinator"))
    if num is None and process is None and address is None and not _on_tpu_pod():
        return
    import jax

    # It would take SIGTERM for itself; `together.heard_by_all` does what it is for.
    jax.config.update("jax_enable_preemption_service", False)
    if num is None and process is None and address is None:
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT)  # the pod knows all of it
    elif num == "1" and address is None:
        return
    else:
        _meet_at(*_checked(num, process, address), seconds=flags.join_timeout, what=what)
    if jax.process_index() > 0:
        mute(jax.process_index())
    say(f"{jax.process_count()} processes, {jax.local_device_count()} of {jax.device_count()} devices in this one.")


def _meet_at(host: str, port: int, num: int, process: int, *, seconds: float, what: str) -> None:
    import jax

    if not 0 < seconds < math.inf:
        raise UserError(f"--join_timeout must be a number of seconds above 0, got {seconds}.")
    version = importlib.metadata.version("jtextdiff")
    run = hashlib.sha256(f"{version} {jax.__version__} {what}".encode()).hexdigest()
    meet((host, port), num, process, seconds, run)
    jax.distributed.initialize(
        f"{host}:{port}",
        num,
        process,
        cluster_detection_method="deactivate",
        coordinator_bind_address=f"{host if is_loopback(host) else '[::]'}:{port}",
        heartbeat_timeout_seconds=HEARTBEAT,
    )


def _told(flags: argparse.Namespace, name: str) -> str | None:
    """What a flag or the environment says, as a text."""
    given = getattr(flags, name)
    if given is not None:
        return str(given)
    # Slurm numbers a process that it has not started as one of several, too.
    known = [source for source in SOURCES[name] if source != "SLURM_PROCID" or "SLURM_STEP_NUM_TASKS" in os.environ]
    return next((os.environ[source] for source in known if os.environ.get(source)), None)


def _checked(num: str | None, process: str | None, address: str | None) -> tuple[str, int, int, int]:
    """Host, port, number of processes and which one this is. Raises UserError if they make no sense."""
    if num is None or process is None or address is None:
        given = {"--coordinator": address, "--num_processes": num, "--process_id": process}
        missing = ", ".join(name for name, value in given.items() if value is None)
        raise UserError(
            f"One of many processes needs --coordinator, --num_processes and --process_id; missing: {missing}."
        )
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise UserError(f"--coordinator must be HOST:PORT, such as 10.0.0.1:7654, got {address!r}.")
    if not all(text.isascii() and text.isdecimal() for text in (num, process)) or not int(process) < int(num):
        raise UserError(f"--process_id must be from 0 to --num_processes - 1, got {process} of {num}.")
    return host, int(port), int(num), int(process)


def _on_tpu_pod() -> bool:
    return "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
