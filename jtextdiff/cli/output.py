"""Messages on stderr, results on stdout, and atomic writes of files."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress


def say(text: str) -> None:
    """Prints a message for the user on stderr; stdout is for results."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Discards everything that the body prints on stdout and stderr."""
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def progress_bar(*columns: Any, disable: bool = False) -> "Progress":
    """Returns a transient progress bar on stderr; it prints nothing unless that is a terminal or a notebook."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    shown = console.is_interactive or console.is_jupyter
    return Progress(*columns, console=console, transient=True, disable=disable or not shown)


def one_line(text: str) -> str:
    """Returns a text as one line: newlines and backslashes written as \\n and \\\\."""
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def write_atomically(file: Path, text: str) -> None:
    """Writes a file so that it exists whole or not at all."""
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, file)


def write_result(result: dict[str, Any], out: str | None) -> None:
    """Writes a command's result as JSON, to the file `out` or to stdout."""
    text = json.dumps(result, indent=2, ensure_ascii=False)
    if out:
        write_atomically(Path(out), text + "\n")
    else:
        print(text)
