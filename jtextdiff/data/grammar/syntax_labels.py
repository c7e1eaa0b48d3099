"""Part-of-speech and constituent labels of the grammar's texts, from their derivations."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Int

from jtextdiff.data.cache import Split
from jtextdiff.data.corpus import Corpus
from jtextdiff.data.grammar.constituents import END_TAG, NO_CONSTITUENT, constituents_of
from jtextdiff.data.grammar.pcfg import Derivation, Grammar


def with_syntax_labels(corpus: Corpus, label: str, num_texts: int | None, log: Callable[[str], None]) -> Corpus:
    """Returns the grammar's corpus with a label of KIND_OF for at most `num_texts` evenly spaced training texts.

    `labels["pos"]` are value ids [N, l]. `labels["tree"]` are value ids [N, l, l], the span from word i to word j at
    [i, j]. `l` is the last bucket. Both come from the derivations of the texts. Raises ValueError if tokens are not
    words or the corpus is not the grammar's.
    """
    if corpus.grammar is None:
        raise ValueError(f"{label} is a label of the grammar's texts; this corpus was not drawn from the grammar")
    train = corpus.splits["train"]
    splits = {"train": train.select(train.evenly_spaced(num_texts or len(train))), "valid": corpus.splits["valid"]}
    sizes = np.diff(splits["valid"].offsets) - 1
    if any(size != len(text.split()) for size, text in zip(sizes, splits["valid"].texts(), strict=True)):
        raise ValueError(
            f"{label} is a label of words, but the tokens of this text are not its words; use text.tokenizer=words"
        )
    log(f"Parsing {sum(map(len, splits.values())):,} texts of the grammar …")
    derivations = {name: [_derivation(corpus.grammar, t) for t in split.texts()] for name, split in splits.items()}
    labels = _tag_labels if label == "pos" else _constituent_labels
    values, ids = labels(derivations, corpus.buckets[-1])
    return dataclasses.replace(
        corpus,
        splits={name: _with_label(split, label, ids[name]) for name, split in splits.items()},
        label_values={**corpus.label_values, label: values},
    )


Derivations = dict[str, list[Derivation]]
"""split -> the derivations of its texts."""


def _derivation(grammar: Grammar, text: str) -> Derivation:
    derivation = grammar.parse(text.split())
    if derivation is None:
        raise ValueError(f"{text!r} is not a sentence of the grammar, so its words have no labels")
    return derivation


def _with_label(split: Split, label: str, ids: Int[np.ndarray, "n *cells"]) -> Split:
    return dataclasses.replace(split, labels={**split.labels, label: ids})


def _tag_labels(derivations: Derivations, length: int) -> tuple[tuple[str, ...], dict[str, Int[np.ndarray, "n l"]]]:
    """Returns (tags of the training texts and END_TAG, split -> value ids).

    Other tags count as END_TAG, which no word of the grammar has.
    """
    values = (*sorted({tag for derivation in derivations["train"] for tag in derivation.tags}), END_TAG)
    index = {tag: value for value, tag in enumerate(values)}

    def tag_ids(derivation: Derivation) -> Int[np.ndarray, "l"]:
        row = np.full(length, index[END_TAG], np.uint8)
        row[: len(derivation.tags)] = [index.get(tag, index[END_TAG]) for tag in derivation.tags]
        return row

    return values, {name: np.stack([tag_ids(d) for d in of_split]) for name, of_split in derivations.items()}


def _constituent_labels(
    derivations: Derivations, length: int
) -> tuple[tuple[str, ...], dict[str, Int[np.ndarray, "n l l"]]]:
    """Returns (NO_CONSTITUENT and the constituents of the training texts, split -> value ids)."""
    names = {span.name for derivation in derivations["train"] for span in constituents_of(derivation.tree)}
    values = (NO_CONSTITUENT, *sorted(names))
    index = {name: value for value, name in enumerate(values)}

    def constituent_ids(derivation: Derivation) -> Int[np.ndarray, "l l"]:
        chart = np.full((length, length), index[NO_CONSTITUENT], np.uint8)
        for start, end, name in constituents_of(derivation.tree):
            chart[start, end - 1] = index.get(name, index[NO_CONSTITUENT])
        return chart

    return values, {name: np.stack([constituent_ids(d) for d in of_split]) for name, of_split in derivations.items()}
