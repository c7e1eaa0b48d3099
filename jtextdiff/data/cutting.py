"""Cutting long texts into pieces of whole sentences or clauses."""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

_CLOSING = "[”’」』）)\"'》】]*"
_SENTENCE_END = re.compile(rf"(?:[。！？!?；;~～…]+|\.+(?=\s|$)){_CLOSING}\s*")
_CLAUSE_END = re.compile(rf"(?:[，、：]+|,+(?!\d)|:+(?=\s)){_CLOSING}\s*")
_CLAUSE_END_OR_SPACE = re.compile(rf"{_CLAUSE_END.pattern}|\s+")


class Pieces(NamedTuple):
    """The pieces of a text in their order, which joined are the text, and whether each is no longer than required."""

    texts: list[str]
    fit: list[bool]


def cut(text: str, longest: int, *, size: Callable[[str], int], at_spaces: bool) -> Pieces:
    """Cuts a text into runs of whole sentences whose `size` is at most `longest`, as few as fit one after another.

    A sentence that is longer is cut into clauses: at commas and, `at_spaces`, at every space, which stands for a comma
    in Chinese and Japanese. A clause that is longer than that stays whole and does not fit. Blanks at the end of a
    piece do not count.
    """

    def fits(piece: str) -> bool:
        return size(piece.strip()) <= longest

    clauses: list[str] = []
    for sentence in _parts(text, _SENTENCE_END):
        clause_end = _CLAUSE_END_OR_SPACE if at_spaces else _CLAUSE_END
        clauses += [sentence] if fits(sentence) else _parts(sentence, clause_end)
    pieces: list[str] = []
    for clause in clauses:
        if pieces and fits(pieces[-1] + clause):
            pieces[-1] += clause
        else:
            pieces.append(clause)
    return Pieces(pieces, [fits(piece) for piece in pieces])


def _parts(text: str, end: re.Pattern[str]) -> Iterator[str]:
    """Yields the parts of a text that end in a match of `end`, and what follows the last of them."""
    start = 0
    for match in end.finditer(text):
        if text[start : match.end()].strip():
            yield text[start : match.end()]
            start = match.end()
    if start < len(text):
        yield text[start:]
