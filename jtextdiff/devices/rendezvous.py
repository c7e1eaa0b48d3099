"""A rendezvous: the processes of a run say at one address who they are, before any of them relies on the others.

jax's own meeting aborts the process where somebody is missing, and does not notice where the processes were told
different numbers. Here every process learns in a line what is wrong.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Sequence
from typing import Any

from jtextdiff.cli.errors import UserError

LONGEST = 4096
"""Bytes of one message."""

PATIENCE = 5.0
"""Seconds for one message, once somebody has knocked."""


def meet(address: tuple[str, int], num: int, process: int, seconds: float, run: str = "") -> None:
    """Returns once all `num` processes are there; process 0 listens at `address`, the others come to it.

    `run` stands for what they are to do. Raises UserError if two have the same number, were told different numbers of
    processes or are to do different things; OSError, since another try may succeed, if the port is in use or somebody
    does not come within `seconds`.
    """
    if process == 0:
        _receive(address, num, run, time.monotonic() + seconds, seconds)
    else:
        _knock(address, {"process": process, "num": num, "run": run}, time.monotonic() + seconds, seconds)


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach the address."""
    return host in ("localhost", "::1") or host.startswith("127.")


def _receive(address: tuple[str, int], num: int, run: str, until: float, seconds: float) -> None:
    """Hears all others, then tells each of them that all is well, or what is not."""
    host, port = address
    try:
        server = socket.create_server((host if is_loopback(host) else "", port), backlog=num)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise OSError(f"Process 0 cannot listen at port {port} of {host}: {reason}.") from None
    there: dict[int, socket.socket] = {}
    with server, contextlib.ExitStack() as open_ones:
        wrong, late = "", False
        while len(there) < num - 1 and not wrong:
            server.settimeout(max(until - time.monotonic(), 0.01))
            try:
                guest = open_ones.enter_context(server.accept()[0])
            except TimeoutError:
                missing = [str(each) for each in range(1, num) if each not in there]
                wrong, late = f"After {seconds:.0f} s {_of(missing)} of {num} did not come to {host}:{port}.", True
                break
            wrong = _heard(guest, num, run, there)
        for guest in there.values():
            with contextlib.suppress(OSError):
                _send(guest, {"wrong": wrong, "late": late})
    _refuse(wrong, late)


def _heard(guest: socket.socket, num: int, run: str, there: dict[int, socket.socket]) -> str:
    """Notes one process in `there`; what is wrong with it, if anything. Strangers are left alone."""
    try:
        told = _read(guest)
        process, of = int(told["process"]), int(told["num"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    twice = process in there or not 0 < process < of
    there[process if not twice else -1] = guest
    if of != num:
        return f"Process 0 was told of {num} processes, process {process} of {of}: --num_processes must be the same."
    if told.get("run") != run:
        return f"Process {process} was given another command, config or version of jtextdiff than process 0."
    return f"There are two processes of number {process}: --process_id must be another for each." if twice else ""


def _knock(address: tuple[str, int], told: dict[str, Any], until: float, seconds: float) -> None:
    """Comes to process 0, as soon as it listens, and waits until all are there."""
    (host, port), process = address, told["process"]
    while True:
        try:
            with socket.create_connection(address, timeout=PATIENCE) as door:
                _send(door, told)
                door.settimeout(max(until + PATIENCE - time.monotonic(), 0.01))
                answer = _read(door)
            break
        except (OSError, ValueError) as error:
            if time.monotonic() > until:
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                raise OSError(
                    f"Process {process} could not reach process 0 at {host}:{port} within {seconds:.0f} s ({reason}). "
                    "Is it running, and is the port open?"
                ) from None
            time.sleep(0.2)
    _refuse(str(answer.get("wrong", "")), bool(answer.get("late")))


def _refuse(wrong: str, late: bool) -> None:
    """Raises what is wrong, if anything: a lateness may pass, a mistake may not."""
    if wrong:
        raise OSError(wrong) if late else UserError(wrong)


def _send(to: socket.socket, message: dict[str, Any]) -> None:
    to.sendall(json.dumps(message).encode() + b"\n")


def _read(source: socket.socket) -> dict[str, Any]:
    if source.gettimeout() is None:
        source.settimeout(PATIENCE)
    line = b""
    while not line.endswith(b"\n"):
        piece = source.recv(LONGEST - len(line))
        if not piece:
            raise ValueError("the connection ended before its message")
        line += piece
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("the message is no object")
    return message


def _of(numbers: Sequence[str]) -> str:
    return f"process {numbers[0]}" if len(numbers) == 1 else f"processes {', '.join(numbers)}"
