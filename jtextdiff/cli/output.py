"""Messages on stderr, results on stdout, and atomic writes of files."""

import json
import os
import sys
from pathlib import Path
from typing import Any

muted: list[int] = []
"""The number of this process, if it is one of many and another one speaks for all."""


def say(text: str) -> None:
    """A line for the person; stdout is kept for texts."""
    if not muted:
        print(text, file=sys.stderr, flush=True)


def mute(process: int) -> None:
    """From here on process number `process` says nothing but its errors: another one speaks for all."""
    muted.append(process)
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  for as long as the process lasts


def one_line(text: str) -> str:
    """A text as one line: newlines and backslashes written as \\n and \\\\."""
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def write_whole(file: Path, text: str) -> None:
    """Writes a file so that it is there whole or not at all."""
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, file)


def hand_over(result: dict[str, Any], out: str | None) -> None:
    """A command's result as JSON, in the file `out` or on stdout."""
    text = json.dumps(result, indent=2, ensure_ascii=False)
    if out:
        write_whole(Path(out), text + "\n")
    else:
        print(text)
