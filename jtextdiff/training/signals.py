"""Stopping cleanly on SIGINT and SIGTERM."""

import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from jtextdiff.cli.output import say

SAME_SIGNAL = 1.0
"""Seconds within which a second signal counts as the first: a system may signal a process and its whole group."""


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM in a list. A second signal, more than SAME_SIGNAL later, ends the process at once."""
    received: list[int] = []
    first_at = [math.inf]

    def handle(number: int, frame: Any) -> None:
        if received and time.monotonic() < first_at[0] + SAME_SIGNAL:
            return
        if received:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        received.append(number)
        first_at[0] = time.monotonic()
        # The terminal may be gone, or in the middle of a line: what matters is that the run is saved.
        with suppress(OSError, RuntimeError):
            say(f"{signal.Signals(number).name}: saving after this step; send it again to stop at once without saving.")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
