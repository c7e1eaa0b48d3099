"""Syntax labels equal the derivations of the texts, and bracketed trees are read as written."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from jtextdiff.data.corpus import Corpus, Text, prepare_corpus
from jtextdiff.data.grammar.constituents import END_TAG, NO_CONSTITUENT, Constituent, constituents_of, parse_brackets
from jtextdiff.data.grammar.pcfg import Tree
from jtextdiff.data.grammar.restaurants import grammar, sentences
from jtextdiff.data.grammar.syntax_labels import with_syntax_labels


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    from jtextdiff.data import sources

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "_GRAMMAR", {"train": (300, 0), "valid": (20, 1)})
        return prepare_corpus(Text(length=32), cache=Path(tmp_path_factory.mktemp("cache")), warn=lambda note: None)


def bracketed(tree: Tree) -> str:
    return f"({' '.join(branch if isinstance(branch, str) else bracketed(branch) for branch in tree)})"


def test_the_constituents_of_a_tree() -> None:
    """A with B as its only child is one constituent, A::B."""
    tree = ("text", ("whole", ("name", "The", "Mill"), ("be", "is"), ("site", ("house", "a", ("noun", "pub")))))
    expected = [(0, 5, "text::whole"), (0, 2, "name"), (2, 3, "be"), (3, 5, "site::house"), (4, 5, "noun")]
    assert constituents_of(tree) == [Constituent(*span) for span in expected]


def test_bracketed_trees_are_read_as_written() -> None:
    for derivation in sentences(50, seed=3):
        assert parse_brackets(bracketed(derivation.tree)) == constituents_of(derivation.tree)
    assert parse_brackets("(core (cost x) ( noun y z ))") == [
        Constituent(0, 3, "core"),
        Constituent(0, 1, "cost"),
        Constituent(1, 3, "noun"),
    ]


@pytest.mark.parametrize(
    "text", ["", "core", "(core", "(core)", "(core ())", "(core x))", "(core x) (noun y)", "((core x))"]
)
def test_malformed_brackets_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected|no closing|more"):
        parse_brackets(text)


@pytest.mark.parametrize("label", ["pos", "tree"])
def test_labels_are_those_of_the_derivations(corpus: Corpus, label: str) -> None:
    labelled = with_syntax_labels(corpus, label, 40, lambda message: None)
    values, size = labelled.label_values[label], corpus.buckets[-1]
    assert len(labelled.splits["train"]) == 40 and len(labelled.splits["valid"]) == 20
    for split in labelled.splits.values():
        for text, ids in zip(split.texts(), split.labels[label], strict=True):
            derivation = grammar().parse(text.split())
            assert derivation is not None
            if label == "pos":
                assert (
                    tuple(values[tag] for tag in ids[: len(derivation.words)]) == derivation.tags
                    or split is not labelled.splits["train"]
                )
                assert {values[tag] for tag in ids[len(derivation.words) :]} == {END_TAG} and len(ids) == size
            else:
                expected = {span for span in constituents_of(derivation.tree) if span.name in values}
                cells = {Constituent(i, j + 1, values[ids[i, j]]) for i, j in zip(*np.nonzero(ids), strict=True)}
                assert values[0] == NO_CONSTITUENT and cells == expected and ids.shape == (size, size)


def test_only_texts_of_the_grammar_have_syntax_labels(corpus: Corpus) -> None:
    with pytest.raises(ValueError, match="pos is a label of the grammar's texts"):
        with_syntax_labels(dataclasses.replace(corpus, grammar=None), "pos", 40, lambda message: None)
