"""Entry point of the commands: exit statuses, failures and memory settings.

A user's mistake ends with status 2 and one clear line, a failure of the machine with status 1. Nothing here
imports jax, so that `--help` answers at once.
"""

import contextlib
import ctypes
import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from jtextdiff.cli.errors import Interrupted, UserError
from jtextdiff.cli.output import say
from jtextdiff.cli.streams import decoded, prepare_streams


def main(command: Callable[[Sequence[str]], None]) -> NoReturn:
    """Runs a command on the arguments of the process, and exits."""
    keep_freed_memory()
    prepare_streams()
    try:
        with interrupts():
            command(decoded(sys.argv[1:]))
        if sys.stdout is not None:  # it may have been closed by the caller
            sys.stdout.flush()
    except Interrupted as stop:
        if str(stop):
            say(str(stop))
        sys.exit(stop.status)
    except BrokenPipeError:
        # The reader of stdout has exited, as `head` does: what Python still buffers for it is discarded.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except (Exception, KeyboardInterrupt) as error:
        status, lines = outcome(error)
        for line in lines:
            say(line)
        sys.exit(status)
    sys.exit(0)


INTERRUPTED = 128 + signal.SIGINT
SHOW_CURSOR = "\x1b[?25h"
"""What a terminal needs after a progress bar."""


@contextlib.contextmanager
def interrupts() -> Iterator[None]:
    """Ends the process at SIGINT, with status 130. Nothing is done if SIGINT is ignored.

    No KeyboardInterrupt is raised: imports and callbacks of libraries discard it, turn it into another exception or
    abort. Python does not clean up, which would crash while jax computes in another thread.
    """

    def end(number: int, frame: Any) -> NoReturn:
        say((SHOW_CURSOR if sys.stderr and sys.stderr.isatty() else "") + "interrupted")
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            print(end="", flush=True)  # results that are still buffered
        os._exit(INTERRUPTED)

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def outcome(error: BaseException) -> tuple[int, list[str]]:
    """Returns the exit status of a failure, and the lines to print about it."""
    match error:
        case UserError():
            return 2, [f"error: {shortened(str(error))}"]
        case KeyboardInterrupt():
            return INTERRUPTED, ["interrupted"]
        case OSError(errno=errno.ENOSPC):
            return 1, [
                f"error: the disk is full: {error.strerror} ({error.filename or 'no file named'}).",
                "What was saved before is intact. Free some space and run the same command again.",
            ]
        case OSError(errno=errno.ENAMETOOLONG):
            name = shortened(str(error.filename2 or error.filename or "a name"))
            return 2, [f"error: {name} is too long for the name of a file."]
        case OSError():
            return 1, [f"error: {error}"]
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return 1, [
            f"error: out of memory: {shortened(str(error).strip() or 'no more could be allocated')}",
            "Lower batch_size, raise optim.accumulate, or lower text.length or --num; what was saved before is intact.",
        ]
    return 1, ["".join(traceback.format_exception(error)).rstrip()]


def shortened(message: str) -> str:
    """Returns a message without its middle if it quotes an input of thousands of characters."""
    return message if len(message) <= 2000 else f"{message[:1000]} […] {message[-500:]}"


MMAP_THRESHOLD, TRIM_THRESHOLD, TOP_PAD = -3, -1, -2
"""glibc's names of its settings, in malloc.h."""


def keep_freed_memory() -> bool:
    """Sets the C library to keep freed memory of up to 2 GiB; returns whether that was possible.

    A compiled program allocates its working memory at each call. Blocks above 32 MiB are otherwise returned to the
    system and faulted in page by page: in a training step on two cores that was 29 of 116 CPU milliseconds. This
    applies to Linux with glibc; elsewhere nothing is done. Older versions refuse a threshold above 32 MiB. Where no
    threshold is accepted, the other settings must stay too, because they would end glibc's own adjusting of it.
    """
    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None), "mallopt"):
        return False
    if not any(libc.mallopt(MMAP_THRESHOLD, size) for size in (2**30, 2**25)):
        return False
    return all([libc.mallopt(TRIM_THRESHOLD, 2**31 - 1), libc.mallopt(TOP_PAD, 2**26)])
