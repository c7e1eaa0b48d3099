"""Entry point of the commands: exit statuses, failures and memory settings.

A user's mistake ends with status 2 and one clear line, a failure of the machine with status 1. Nothing here
imports jax, so that `--help` answers at once.
"""

import ctypes
import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from jtextdiff.cli.errors import Interrupted, UserError
from jtextdiff.cli.output import say
from jtextdiff.cli.streams import decoded, prepare_streams


def main(command: Callable[[Sequence[str]], None]) -> NoReturn:
    """Runs a command on the arguments of the process, and exits."""
    keep_freed_memory()
    prepare_streams()
    try:
        command(decoded(sys.argv[1:]))
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


def outcome(error: BaseException) -> tuple[int, list[str]]:
    """Returns the exit status of a failure, and the lines to print about it."""
    match error:
        case UserError():
            return 2, [f"error: {shortened(str(error))}"]
        case KeyboardInterrupt():
            return 130, ["interrupted"]
        case OSError(errno=errno.ENOSPC):
            return 1, [
                f"error: the disk is full: {error.strerror} ({error.filename or 'no file named'}).",
                "What was saved before is intact. Free some space and run the same command again.",
            ]
        case OSError(errno=errno.ENAMETOOLONG):
            return 2, [f"error: {shortened(error.filename)} is too long for the name of a file."]
        case OSError():
            return 1, [f"error: {error}"]
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
