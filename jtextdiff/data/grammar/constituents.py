"""Constituents of a parse tree as labelled spans."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jtextdiff.data.grammar.pcfg import Tree

KIND_OF = {"pos": "words", "tree": "spans"}
"""Syntax labels and the kind of classifier that predicts them: `pos` tags each word, `tree` each span of words."""

SYNTAX_CONTROLS = ("pos", "tree", "span")
"""Names of the syntax controls: the tag of every word, the constituent of every span, and that of one span."""

END_TAG = "END"
"""The part-of-speech tag of every position after the last word."""

NO_CONSTITUENT = "none"
"""The label of a span that is no constituent."""


class Constituent(NamedTuple):
    """The name of a constituent and its words, from `start` to before `end`."""

    start: int
    end: int
    name: str


def constituents_of(tree: Tree) -> list[Constituent]:
    """Returns the constituents of a tree, parents first. Several over the same words become one, named A::B from the
    outermost in.
    """
    return list(_constituents(tree, 0))


def _constituents(tree: Tree, start: int) -> Iterator[Constituent]:
    names, innermost = [tree[0]], tree
    while len(innermost) == 2 and not isinstance(innermost[1], str):
        innermost = innermost[1]
        names.append(innermost[0])
    end, descendants = start, []
    for child in innermost[1:]:
        of_child = [] if isinstance(child, str) else list(_constituents(child, end))
        end = end + 1 if isinstance(child, str) else of_child[0].end
        descendants += of_child
    yield Constituent(start, end, "::".join(map(str, names)))
    yield from descendants


def parse_brackets(text: str) -> list[Constituent]:
    """Returns the constituents of a tree in brackets, (core (cost cheap) (noun pub)); a leaf may be any word.

    Raises ValueError for brackets that do not match, or without a name.
    """
    tokens = text.replace("(", " ( ").replace(")", " ) ").split()
    tree, trailing = _read_tree(tokens)
    if trailing:
        raise ValueError(f"there is more text after the tree: {' '.join(trailing)!r}")
    return constituents_of(tree)


def _read_tree(tokens: Sequence[str]) -> tuple[Tree, Sequence[str]]:
    """Returns the tree at the front of `tokens`, and the tokens after it."""
    if len(tokens) < 4 or tokens[0] != "(" or tokens[1] in "()":
        raise ValueError(f"expected (NAME and words or trees) at {' '.join(tokens[:8])!r}")
    branches: list[str | Tree] = [tokens[1]]
    tokens = tokens[2:]
    while tokens and tokens[0] != ")":
        if tokens[0] == "(":
            child, tokens = _read_tree(tokens)
        else:
            child, tokens = tokens[0], tokens[1:]
        branches.append(child)
    if not tokens or len(branches) == 1:
        raise ValueError(f"the tree {branches[0]!r} has no closing bracket, or is empty")
    return tuple(branches), tokens[1:]
