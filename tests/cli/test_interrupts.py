"""Ctrl-C ends a command at once with status 130, without the cleaning up that would crash jax."""

import signal
import subprocess
import sys

COMMAND = """
import atexit, os, signal, time
from jtextdiff.cli.main import main

def command(arguments):
    atexit.register(os.abort)
    print("a result")
    {body}

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
main(command)
"""
CAUGHT = """
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    except BaseException:
        time.sleep(60)
"""


def test_an_interrupt_ends_a_command_even_if_a_library_would_catch_it() -> None:
    command = [sys.executable, "-c", COMMAND.format(body=CAUGHT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, "a result\n", "interrupted\n")


def test_an_ignored_interrupt_stays_ignored() -> None:
    """As for a command that a script starts in the background."""
    ignored = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
    script = COMMAND.replace("\nmain(command)", f"\n{ignored}\nmain(command)").replace("os.abort", "print")
    body = "os.kill(os.getpid(), signal.SIGINT)"
    done = subprocess.run([sys.executable, "-c", script.format(body=body)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0
