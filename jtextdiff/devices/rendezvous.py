"""A handshake of all processes before jax.distributed starts.

jax's own start-up aborts the process if another one is missing, and does not notice processes that were given different
numbers. Here every process gets a one-line error message.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Sequence
from typing import Any

from jtextdiff.cli.errors import UserError
from jtextdiff.cli.output import say

MAX_MESSAGE = 4096
"""Bytes of one message."""

NOTICE_AFTER = 5.0
"""Seconds after which a process prints what it waits for."""

MESSAGE_TIMEOUT = 5.0
"""Seconds to wait for one message on an open connection."""


def handshake(address: tuple[str, int], num: int, process: int, seconds: float, run: str = "") -> None:
    """Returns once all `num` processes are connected; process 0 listens at `address`, the others connect to it.

    `run` identifies the work of the processes. Raises UserError if two processes have the same number, or if they were
    given different numbers of processes or different work. Raises OSError, which another attempt may avoid, if the port
    is in use or a process does not connect within `seconds`.
    """
    if process == 0:
        _listen(address, num, run, time.monotonic() + seconds, seconds)
    else:
        _connect(address, {"process": process, "num": num, "run": run}, time.monotonic() + seconds, seconds)


def is_loopback(host: str) -> bool:
    """Returns whether only this machine can reach the address."""
    return host in ("localhost", "::1") or host.startswith("127.")


def _listen(address: tuple[str, int], num: int, run: str, deadline: float, seconds: float) -> None:
    """Accepts all other processes, then sends each of them the outcome: an error message, or an empty one."""
    host, port = address
    try:
        server = socket.create_server((host if is_loopback(host) else "", port), backlog=num)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise OSError(f"Process 0 cannot listen at port {port} of {host}: {reason}.") from None
    connected: dict[int, socket.socket] = {}
    with server, contextlib.ExitStack() as connections:
        error, retriable = "", False
        notice = _Notice(seconds)
        while len(connected) < num - 1 and not error:
            server.settimeout(max(min(deadline - time.monotonic(), NOTICE_AFTER), 0.01))
            try:
                peer = connections.enter_context(server.accept()[0])
            except TimeoutError:
                missing = [str(process) for process in range(1, num) if process not in connected]
                if time.monotonic() < deadline:
                    notice.print(f"{_listed(missing)} of {num} to connect to {host}:{port}")
                    continue
                error = f"{_listed(missing)} of {num} did not connect to {host}:{port} within {seconds:.0f} s."
                retriable = True
                break
            error = _register(peer, num, run, connected)
        for peer in connected.values():
            with contextlib.suppress(OSError):
                _send(peer, {"error": error, "retriable": retriable})
    _raise_if(error, retriable)


def _register(peer: socket.socket, num: int, run: str, connected: dict[int, socket.socket]) -> str:
    """Reads the message of a process and adds it to `connected`. Returns an error message, "" if all is well.

    Connections that send anything else are ignored.
    """
    try:
        message = _receive(peer)
        process, num_of_peer = int(message["process"]), int(message["num"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    duplicate = process in connected or not 0 < process < num_of_peer
    connected[process if not duplicate else -1] = peer
    if num_of_peer != num:
        return (
            f"Process 0 was given --num_processes {num}, process {process} was given {num_of_peer}: "
            "the number must be the same for all."
        )
    if message.get("run") != run:
        return f"Process {process} was given another command, config or version of jtextdiff than process 0."
    return f"Two processes have --process_id {process}: each process needs its own." if duplicate else ""


def _connect(address: tuple[str, int], message: dict[str, Any], deadline: float, seconds: float) -> None:
    """Connects to process 0 as soon as it listens, and waits for the outcome."""
    (host, port), process, notice = address, message["process"], _Notice(seconds)
    while True:
        try:
            with socket.create_connection(address, timeout=MESSAGE_TIMEOUT) as connection:
                _send(connection, message)
                connection.settimeout(max(deadline + MESSAGE_TIMEOUT - time.monotonic(), 0.01))
                outcome = _receive(connection)
            break
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            notice.print(f"process 0 at {host}:{port} ({reason})")
            if time.monotonic() > deadline:
                raise OSError(
                    f"Process {process} could not reach process 0 at {host}:{port} within {seconds:.0f} s ({reason}). "
                    "Check that it is running and that the port is open."
                ) from None
            time.sleep(0.2)
    _raise_if(str(outcome.get("error", "")), bool(outcome.get("retriable")))


class _Notice:
    """Prints once what a process waits for, if it has waited for long."""

    def __init__(self, seconds: float):
        self.start, self.seconds, self.printed = time.monotonic(), seconds, False

    def print(self, awaited: str) -> None:
        if not self.printed and time.monotonic() - self.start >= NOTICE_AFTER:
            self.printed = True
            say(f"Waiting for {awaited}, for {self.seconds:.0f} s at most (--join_timeout).")


def _raise_if(error: str, retriable: bool) -> None:
    """Raises OSError for an error that another attempt may avoid, UserError for a mistake."""
    if error:
        raise OSError(error) if retriable else UserError(error)


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _receive(connection: socket.socket) -> dict[str, Any]:
    if connection.gettimeout() is None:
        connection.settimeout(MESSAGE_TIMEOUT)
    line = b""
    while not line.endswith(b"\n"):
        received = connection.recv(MAX_MESSAGE - len(line))
        if not received:
            raise ValueError("the connection ended before its message")
        line += received
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("the message is not a JSON object")
    return message


def _listed(numbers: Sequence[str]) -> str:
    return f"Process {numbers[0]}" if len(numbers) == 1 else f"Processes {', '.join(numbers)}"
