"""Commands: how an entry point parses, fails and ends.

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
from jtextdiff.cli.output import muted, say


def main(command: Callable[[Sequence[str]], None]) -> NoReturn:
    """Runs a command on the arguments of the process, and exits."""
    keep_freed_memory()
    try:
        command(sys.argv[1:])
        if sys.stdout is not None:  # it may have been closed by the caller
            sys.stdout.flush()
    except UserError as error:
        _end(2, f"error: {error}")
    except Interrupted as stop:
        say(str(stop))
        sys.exit(stop.status)  # all stop at the same step, and take leave of each other
    except KeyboardInterrupt:
        _end(130, "interrupted")
    except BrokenPipeError:
        # The reader of stdout has left, as `head` does: what Python still holds for it goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        _end(1)
    except OSError as error:
        _end(1, *_of_machine(error))
    except Exception as error:
        broke = _one_of_many() and type(error).__name__ == "JaxRuntimeError"
        told = f"error: the connection to another process broke ({_first_line(error)}); see what that one says."
        _end(1, told if broke else traceback.format_exc().rstrip())
    sys.exit(0)


def _of_machine(error: OSError) -> list[str]:
    """What to say of a failure of the machine."""
    if error.errno != errno.ENOSPC:
        return [f"error: {error}"]
    return [
        f"error: the disk is full: {error.strerror} ({error.filename or 'no file named'}).",
        "What was saved before is kept. Free some space and run the same command again.",
    ]


def _one_of_many() -> bool:
    return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]


def _end(status: int, *lines: str) -> NoReturn:
    """Ends the process. One of many that has failed ends at once, without waiting for the others, who wait for it."""
    for line in lines:
        print(f"process {muted[0]}: {line}" if muted else line, file=sys.stderr, flush=True)
    if _one_of_many():
        os._exit(status)
    sys.exit(status)


MMAP_THRESHOLD, TRIM_THRESHOLD, TOP_PAD = -3, -1, -2
"""glibc's names of its settings, in malloc.h."""


def keep_freed_memory() -> bool:
    """Tells the C library to hold on to freed memory of up to 2 GiB; whether it could be told.

    A compiled program asks for its working memory at each call. Blocks above 32 MiB are otherwise returned to the
    system and faulted in page by page: of a training step on two cores that was 29 of 116 CPU milliseconds. Linux
    with glibc; elsewhere nothing is done. Older ones refuse a threshold above 32 MiB; where none is taken, the
    others must not be set either, because they would end glibc's own adjusting of it.
    """
    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None), "mallopt"):
        return False
    if not any(libc.mallopt(MMAP_THRESHOLD, size) for size in (2**30, 2**25)):
        return False
    return all([libc.mallopt(TRIM_THRESHOLD, 2**31 - 1), libc.mallopt(TOP_PAD, 2**26)])
