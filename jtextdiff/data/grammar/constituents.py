"""Constituents of a parse tree as labelled spans."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jtextdiff.data.grammar.pcfg import Tree

KIND_OF = {"pos": "words", "tree": "stretches"}
"""The labels, and what each is a label of: every word has a part of speech, every stretch of words a constituent."""

SYNTAX = ("pos", "tree", "span")
"""Names of controls of them: of all words, of all stretches, and of one stretch."""

END = "END"
"""The part of speech of whatever comes after the last word."""

NONE = "none"
"""The constituent of a stretch of words that is none."""


class Stretch(NamedTuple):
    """The words from `start` to before `end`, and the constituent that they are."""

    start: int
    end: int
    name: str


def stretches(tree: Tree) -> list[Stretch]:
    """The constituents of a tree; of several over the same words one, named from the outermost in, A::B."""
    return list(_stretches(tree, 0))


def _stretches(tree: Tree, start: int) -> Iterator[Stretch]:
    names, inner = [tree[0]], tree
    while len(inner) == 2 and not isinstance(inner[1], str):
        inner = inner[1]
        names.append(inner[0])
    end, below = start, []
    for child in inner[1:]:
        found = [] if isinstance(child, str) else list(_stretches(child, end))
        end = end + 1 if isinstance(child, str) else found[0].end
        below += found
    yield Stretch(start, end, "::".join(map(str, names)))
    yield from below


def brackets(text: str) -> list[Stretch]:
    """The constituents of a tree in brackets, (core (cost cheap) (noun pub)); a leaf may be any word.

    Raises ValueError for brackets that do not match, or without a name.
    """
    tokens = text.replace("(", " ( ").replace(")", " ) ").split()
    tree, rest = _read(tokens)
    if rest:
        raise ValueError(f"after the tree there is more: {' '.join(rest)!r}")
    return stretches(tree)


def _read(tokens: Sequence[str]) -> tuple[Tree, Sequence[str]]:
    if len(tokens) < 4 or tokens[0] != "(" or tokens[1] in "()":
        raise ValueError(f"expected (NAME and words or trees) at {' '.join(tokens[:8])!r}")
    branches: list[str | Tree] = [tokens[1]]
    tokens = tokens[2:]
    while tokens and tokens[0] != ")":
        if tokens[0] == "(":
            child, tokens = _read(tokens)
        else:
            child, tokens = tokens[0], tokens[1:]
        branches.append(child)
    if not tokens or len(branches) == 1:
        raise ValueError(f"the tree {branches[0]!r} has no end, or nothing in it")
    return tuple(branches), tokens[1:]
