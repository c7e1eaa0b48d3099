"""Annotations: what the grammar says of each word of its texts, and of each stretch of them, as labels to learn."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jtextdiff.text.corpora import Corpus, Split
from jtextdiff.text.grammar import Derivation, Tree
from jtextdiff.text.restaurants import grammar

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


def annotated(corpus: Corpus, label: str, rows: int | None, tell: Callable[[str], None]) -> Corpus:
    """The grammar's corpus with a label of KIND_OF, of at most `rows` training texts, evenly taken.

    `labels["pos"]` are [N, l], `labels["tree"]` [N, l, l] value ids, the stretch from word i to word j at [i, j]; `l`
    is the last bucket. Both are what the texts' derivations say. Raises ValueError if tokens are not words.
    """
    train = corpus.splits["train"]
    splits = {"train": train.only(train.evenly(rows or len(train))), "valid": corpus.splits["valid"]}
    sizes = np.diff(splits["valid"].offsets) - 1
    if any(size != len(text.split()) for size, text in zip(sizes, splits["valid"].texts(), strict=True)):
        raise ValueError(f"{label} is a label of words, and the tokens of this text are not its words; use words")
    tell(f"Parsing {sum(map(len, splits.values())):,} texts of the grammar …")
    derived = {name: [_derived(text) for text in split.texts()] for name, split in splits.items()}
    read = (lambda one: [*enumerate(one.tags)]) if label == "pos" else (lambda one: stretches(one.tree))
    names = sorted({found[-1] for one in derived["train"] for found in read(one)})
    values = (*names, END) if label == "pos" else (NONE, *names)
    fill = _tags if label == "pos" else _chart
    index, size = {name: value for value, name in enumerate(values)}, corpus.buckets[-1]
    ids = {name: np.stack([fill(one, index, size) for one in of_split]) for name, of_split in derived.items()}
    return dataclasses.replace(
        corpus,
        splits={name: _with(split, label, ids[name]) for name, split in splits.items()},
        label_values={**corpus.label_values, label: values},
    )


def _derived(text: str) -> Derivation:
    found = grammar().parse(text.split())
    if found is None:
        raise ValueError(f"{text!r} is no sentence of the grammar, which alone can tell its words' labels")
    return found


def _with(split: Split, label: str, ids: Int[np.ndarray, "n *cells"]) -> Split:
    return dataclasses.replace(split, labels={**split.labels, label: ids})


def _tags(one: Derivation, index: dict[str, int], size: int) -> Int[np.ndarray, "l"]:
    """Tags that training text does not have count as the end, which the grammar's texts have none of."""
    row = np.full(size, index[END], np.uint8)
    row[: len(one.tags)] = [index.get(tag, index[END]) for tag in one.tags]
    return row


def _chart(one: Derivation, index: dict[str, int], size: int) -> Int[np.ndarray, "l l"]:
    chart = np.full((size, size), index[NONE], np.uint8)
    for start, end, name in stretches(one.tree):
        chart[start, end - 1] = index.get(name, index[NONE])
    return chart


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
