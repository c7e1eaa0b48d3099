"""Quotation marks around names and values that hold a sign of `--control` or `--targets`."""

import re
from collections.abc import Iterable

QUOTED = r'"(?:[^"]|"")+"' r"|'(?:[^']|'')+'"
"""A text between single or double marks, in which the same mark is written twice."""

NAME_SIGNS, VALUE_SIGNS = "=!*|:+", "*|"
"""Signs that end a name, or a value, that has no quotation marks."""


def quoted(text: str, signs: str) -> str:
    """Returns a text as it must be written: in quotation marks if it holds one of the signs or begins with a mark."""
    if text[:1] not in ("'", '"') and not set(signs) & set(text):
        return text
    mark = "'" if '"' in text and "'" not in text else '"'
    return mark + text.replace(mark, 2 * mark) + mark


def listed(texts: Iterable[str], signs: str) -> str:
    """Returns names or values as they must be written, separated by commas."""
    return ", ".join(quoted(text, signs) for text in texts)


def unquoted(text: str) -> str:
    """Returns a text without blanks around it, and without the quotation marks if it is in such."""
    text = text.strip()
    if re.fullmatch(QUOTED, text, re.DOTALL) is None:
        return text
    return text[1:-1].replace(2 * text[0], text[0])
