"""Stopping cleanly on SIGINT, SIGTERM, SIGHUP and SIGUSR1, and when nothing reads the messages any more."""

import errno
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from typing import Any

from jtextdiff.cli.output import say

SAME_SIGNAL = 1.0
"""Seconds within which a second signal counts as the first: a system may signal a process and its whole group."""


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collects SIGINT, SIGTERM, SIGHUP and SIGUSR1, with which Slurm may warn of a time limit, in a list.

    A second one, more than SAME_SIGNAL later, acts as without this.
    A message on stderr to a pipe without a reader counts as SIGPIPE; one to a terminal that is gone is dropped. A
    SIGHUP that is ignored, as under nohup, stays so. Signals reach the main thread alone: in another one the list stays
    empty.
    """
    received: list[int] = []
    first_at = [math.inf]

    def handle(number: int, frame: Any) -> None:
        if received and time.monotonic() < first_at[0] + SAME_SIGNAL:
            return
        if received:
            signal.signal(number, previous[number])
            os.kill(os.getpid(), number)
            return
        received.append(number)
        first_at[0] = time.monotonic()
        say(f"{signal.Signals(number).name}: saving after this step; send it again to stop at once without saving.")

    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def no_reader() -> None:
        received.append(signal.SIGPIPE)
        first_at[0] = time.monotonic()

    messages: Any = _Messages(sys.stderr, no_reader)
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        numbers.remove(signal.SIGHUP)
    previous: dict[int, Any] = {number: signal.signal(number, handle) or signal.SIG_DFL for number in numbers}
    try:
        with redirect_stderr(messages) if sys.stderr else nullcontext():
            yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Messages:
    """A text stream that drops what can no longer be written; `no_reader` is called if it was a pipe."""

    def __init__(self, stream: Any, no_reader: Callable[[], None]):
        self._stream, self._no_reader = stream, no_reader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def _attempt(self, output: Callable[[], Any]) -> None:
        try:
            output()
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):  # EIO: of a terminal
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # so that what is still buffered can be written
            os.close(nowhere)
            if error.errno == errno.EPIPE:
                self._no_reader()
