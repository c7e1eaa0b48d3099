"""Annotations: what the grammar says of each word of its texts, and of each stretch of them, as labels to learn."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Int

from jtextdiff.data.cache import Split
from jtextdiff.data.corpus import Corpus
from jtextdiff.data.grammar.constituents import END, NONE, stretches
from jtextdiff.data.grammar.pcfg import Derivation
from jtextdiff.data.grammar.restaurants import grammar


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
