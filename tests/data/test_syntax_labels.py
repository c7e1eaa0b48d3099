"""Annotations are what the derivations say, word for word, whatever rows are taken and however a tree is written."""

from pathlib import Path

import numpy as np
import pytest

from jtextdiff.data.corpus import Corpus, Text, prepare
from jtextdiff.data.grammar.constituents import END, NONE, Stretch, brackets, stretches
from jtextdiff.data.grammar.pcfg import Tree
from jtextdiff.data.grammar.restaurants import grammar, sentences
from jtextdiff.data.syntax_labels import annotated


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    from jtextdiff.data import sources

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "_GRAMMAR", {"train": (300, 0), "valid": (20, 1)})
        return prepare(Text(length=32), cache=Path(tmp_path_factory.mktemp("cache")), warn=lambda note: None)


def written(tree: Tree) -> str:
    return f"({' '.join(branch if isinstance(branch, str) else written(branch) for branch in tree)})"


def test_the_stretches_of_a_tree() -> None:
    """Of A over B alone one constituent is made, A::B."""
    tree = ("text", ("whole", ("name", "The", "Mill"), ("be", "is"), ("site", ("house", "a", ("noun", "pub")))))
    found = [(0, 5, "text::whole"), (0, 2, "name"), (2, 3, "be"), (3, 5, "site::house"), (4, 5, "noun")]
    assert stretches(tree) == [Stretch(*each) for each in found]


def test_brackets_are_read_as_they_are_written() -> None:
    for one in sentences(50, seed=3):
        assert brackets(written(one.tree)) == stretches(one.tree)
    assert brackets("(core (cost x) ( noun y z ))") == [
        Stretch(0, 3, "core"),
        Stretch(0, 1, "cost"),
        Stretch(1, 3, "noun"),
    ]


@pytest.mark.parametrize(
    "text", ["", "core", "(core", "(core)", "(core ())", "(core x))", "(core x) (noun y)", "((core x))"]
)
def test_brackets_that_are_no_tree_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected|no end|more"):
        brackets(text)


@pytest.mark.parametrize("label", ["pos", "tree"])
def test_labels_are_those_of_the_derivations(corpus: Corpus, label: str) -> None:
    labelled = annotated(corpus, label, 40, lambda told: None)
    values, size = labelled.label_values[label], corpus.buckets[-1]
    assert len(labelled.splits["train"]) == 40 and len(labelled.splits["valid"]) == 20
    for split in labelled.splits.values():
        for text, ids in zip(split.texts(), split.labels[label], strict=True):
            one = grammar().parse(text.split())
            assert one is not None
            if label == "pos":
                assert (
                    tuple(values[tag] for tag in ids[: len(one.words)]) == one.tags
                    or split is not labelled.splits["train"]
                )
                assert {values[tag] for tag in ids[len(one.words) :]} == {END} and len(ids) == size
            else:
                known = {each for each in stretches(one.tree) if each.name in values}
                cells = {Stretch(i, j + 1, values[ids[i, j]]) for i, j in zip(*np.nonzero(ids), strict=True)}
                assert values[0] == NONE and cells == known and ids.shape == (size, size)
