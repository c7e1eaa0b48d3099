"""Messages on stderr, results on stdout, and atomic writes of files."""

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress


def say(text: str) -> None:
    """Prints a message for the user on stderr; stdout is for results.

    It is dropped if the terminal is gone, or from a signal handler if another message is just being printed.
    """
    with contextlib.suppress(OSError, RuntimeError):
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


NOT_IN_A_LINE = re.compile(r"[\x00-\x08\n-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\\]")
"""Characters that end a line for some reader, that a terminal obeys, or that UTF-8 cannot encode; and the backslash."""

NOT_IN_JSON = re.compile(r"[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Those of them that Python's JSON would leave as they are."""


def one_line(text: str) -> str:
    """Returns a text as one line: a newline is written as \\n, other control characters alike, a backslash as \\\\."""
    return NOT_IN_A_LINE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def to_json_text(value: Any, indent: int | None = None) -> str:
    """Returns a value as JSON with its characters as they are, except those that would end a line or cannot be written.

    Without `indent` it is one line.
    """
    return NOT_IN_JSON.sub(
        lambda match: f"\\u{ord(match[0]):04x}", json.dumps(value, indent=indent, ensure_ascii=False)
    )


def write_atomically(file: Path, text: str) -> None:
    """Writes a file so that it exists whole or not at all."""
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, file)


def write_result(result: dict[str, Any], out: str | None) -> None:
    """Writes a command's result as JSON, to the file `out` or to stdout."""
    text = to_json_text(result, indent=2)
    if out:
        write_atomically(Path(out), text + "\n")
    else:
        print(text)
