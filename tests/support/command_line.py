"""Runs commands in the process of the tests and returns their output and exit status."""

import contextlib
import importlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from jtextdiff.cli.main import main


class Completed(NamedTuple):
    """The exit status and the output of a command."""

    returncode: int
    stdout: str
    stderr: str


def run(module: str, *arguments: str, cwd: Path, text: str = "") -> Completed:
    """Runs `python -m jtextdiff.MODULE ARGUMENTS` in the folder `cwd`, with `text` on its standard input.

    It calls the command's `main`, including errors and exit status, without the start-up time of a new process.
    """
    command = importlib.import_module(f"jtextdiff.{module}").command
    stdout, stderr, status = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        mock.patch.object(sys, "argv", [module, *arguments]),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()))),
        mock.patch("jtextdiff.cli.main.keep_freed_memory"),  # the setting would outlive the command
    ):
        try:
            main(command)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
    return Completed(status, stdout.getvalue(), stderr.getvalue())


def run_optimized(module: str, *arguments: str, cwd: Path) -> None:
    """Runs `python -m jtextdiff.MODULE ARGUMENTS` in a new process, compiled as it is for users. It must succeed."""
    env = {name: value for name, value in os.environ.items() if name != "JAX_DISABLE_MOST_OPTIMIZATIONS"}
    command = [sys.executable, "-m", f"jtextdiff.{module}", *arguments]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
