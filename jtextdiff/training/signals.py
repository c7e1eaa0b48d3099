"""Stopping cleanly on SIGINT and SIGTERM."""

import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from jtextdiff.cli.output import say

TWICE = 1.0
"""Seconds within which a second signal is the same: a system may send one to a process and to its whole group."""


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying of them; a second one, a second later, is not waited for."""
    received: list[int] = []
    since = [math.inf]

    def note(number: int, frame: Any) -> None:
        if received and time.monotonic() < since[0] + TWICE:
            return
        if received:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        received.append(number)
        since[0] = time.monotonic()
        # The terminal may be gone, or in the middle of a line: what counts is that the run is saved.
        with suppress(OSError, RuntimeError):
            say(f"{signal.Signals(number).name}: saving after this step; once more to stop at once and lose it.")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
