"""Lines and JSON of text files, with file and line in every error."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

_UTF16_MARKS = ("\udcff\udcfe", "\udcfe\udcff")  # the bytes FF FE and FE FF, as surrogateescape has them


def read_lines(stream: BinaryIO, name: str | Path) -> Iterator[tuple[int, str]]:
    """Yields the number, from 1, and the content of each line of text in UTF-8, as soon as it can be read.

    A line ends with \\n, \\r\\n or \\r; other separators, such as U+2028, belong to a text. A byte-order mark is
    skipped. Raises ValueError, with the `name` of the file and the line, for what is not UTF-8 and for NUL.
    """
    lines = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline=None)
    try:
        for number, line in enumerate(lines, start=1):
            if not line.isascii() or "\0" in line:
                _check_characters(line, f"{name}, line {number}")
            yield number, line.removesuffix("\n")
    finally:
        lines.detach()  # the stream is the caller's to close


def lines_of(file: Path) -> Iterator[tuple[int, str]]:
    """Yields the lines of a file, as `read_lines` does. Raises ValueError also for a file that cannot be read."""
    try:
        with open(file, "rb") as stream:
            yield from read_lines(stream, file)
    except OSError as error:
        raise ValueError(cannot_read(file, error)) from error


def cannot_read(file: str | Path, error: OSError) -> str:
    """Returns the message that a file cannot be read, and what to do."""
    remedies = {
        FileNotFoundError: "; check the path",
        IsADirectoryError: "; name a file in it",
        PermissionError: "; check its permissions",
    }
    return f"cannot read {file}: {error.strerror}{remedies.get(type(error), '')}"


def parse_json(
    text: str, place: str, make_object: Callable[[list[tuple[str, Any]]], dict[str, Any]] | None = None
) -> Any:
    """Returns the value of a JSON text. Raises ValueError, starting with its `place`, for what cannot be read.

    `make_object` makes an object of its fields, or raises ValueError.
    """
    try:
        value = json.loads(text, object_pairs_hook=make_object)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}: not JSON ({error.msg}): {excerpt(text)}") from None
    except UnicodeEncodeError as error:
        half = error.object[error.start].encode("unicode_escape").decode()
        raise ValueError(f"{place}: {half} is half of a character, a surrogate without its partner") from None
    except RecursionError:
        raise ValueError(f"{place}: too many brackets inside each other") from None
    except ValueError as error:
        too_long = str(error).startswith("Exceeds the limit")  # of Python, for an integer
        raise ValueError(f"{place}: {'a number has too many digits' if too_long else error}") from None
    return value


def excerpt(text: str) -> str:
    """Returns the first 60 characters, quoted, for a message."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _check_characters(line: str, place: str) -> None:
    if "\0" in line or line.startswith(_UTF16_MARKS):
        raise ValueError(
            f"{place}: the character NUL or the byte-order mark of UTF-16 is no text in UTF-8; convert a file in "
            "UTF-16, for example with iconv -f UTF-16 -t UTF-8"
        )
    try:
        line.encode("utf-8")
    except UnicodeEncodeError as error:
        byte = ord(error.object[error.start]) - 0xDC00  # as surrogateescape has it
        raise ValueError(
            f"{place}: byte {byte:#04x} is not UTF-8; convert the file, for example with iconv -f GB18030 -t UTF-8 if "
            "it is Chinese, or -f latin1 if it is of Western Europe"
        ) from None
