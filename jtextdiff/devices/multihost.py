"""Together: what many processes of one run do alike, one after another, or once for all."""

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


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Returns once every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def check_shared(workdir: Path) -> None:
    """Raises UserError where this process does not see what the first one has written to `workdir`."""
    wait_for_all("the first process has written")
    if not (workdir / "config.json").is_file():
        raise UserError(
            f"{socket.gethostname()} does not see {workdir.absolute()} as the first process does. All must have the "
            "same directory, on a file system that they share: give one with --workdir."
        )


def heard_by_all(mesh: Mesh, stopped: list[int]) -> Callable[[], bool]:
    """A function, to be called once a step, that tells all processes alike whether one of them was asked to stop.

    Of many processes it tells what was asked at its call before, so that no device is waited for.
    """
    if jax.process_count() == 1:
        return lambda: bool(stopped)
    one_a_device = NamedSharding(mesh, P(mesh.axis_names))
    any_of = jax.jit(jnp.any, out_shardings=NamedSharding(mesh, P()))
    asked = []

    def ask() -> bool:
        mine = np.full(len(mesh.local_devices), bool(stopped))
        asked.append(any_of(jax.make_array_from_process_local_data(one_a_device, mine, (mesh.size,))))
        return len(asked) > 1 and bool(asked.pop(0))

    return ask


@contextlib.contextmanager
def first_alone(what: str) -> Iterator[None]:
    """The first process does it alone, the others after it: what it has written need not be made again."""
    if not is_first():
        wait_for_all(what)
    yield
    if is_first():
        wait_for_all(what)
