"""Barriers and agreement between the processes of a run."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jtextdiff.cli.errors import UserError


def is_process_zero() -> bool:
    """Returns whether this is process 0, which writes files and prints messages."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Returns once every process has reached the barrier of this name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def check_shared_workdir(workdir: Path) -> None:
    """Raises UserError if this process does not see what process 0 has written to `workdir`."""
    wait_for_all("process 0 has written")
    if not (workdir / "config.json").is_file():
        raise UserError(
            f"{socket.gethostname()} does not see the files that process 0 wrote to {workdir.absolute()}. All "
            "processes need the same directory on a shared file system: give one with --workdir."
        )


def any_process_stopped(mesh: Mesh, stopped: list[int]) -> Callable[[], bool]:
    """Returns a function that reports, once per step, whether any process received a stop signal.

    All processes get the same report. With several processes it lags one step, so that no device blocks.
    """
    if jax.process_count() == 1:
        return lambda: bool(stopped)
    one_per_device = NamedSharding(mesh, P(mesh.axis_names))
    any_device = jax.jit(jnp.any, out_shardings=NamedSharding(mesh, P()))
    pending = []

    def poll() -> bool:
        local = np.full(len(mesh.local_devices), bool(stopped))
        pending.append(any_device(jax.make_array_from_process_local_data(one_per_device, local, (mesh.size,))))
        return len(pending) > 1 and bool(pending.pop(0))

    return poll


@contextlib.contextmanager
def process_zero_first(name: str) -> Iterator[None]:
    """Runs the body in process 0 first, then in the others, so that they find the files that process 0 wrote.

    `name` identifies the barrier between the two.
    """
    if not is_process_zero():
        wait_for_all(name)
    yield
    if is_process_zero():
        wait_for_all(name)
