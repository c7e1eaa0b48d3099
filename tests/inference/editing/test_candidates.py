"""Candidates of an edit are rewrites of solved flows, and texts that make some of the changes of one."""

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jtextdiff.inference.editing.candidates import MAX_CHANGES, candidates_of, partial_edits

SOURCE = (5, 6, 7, 8, 9)


@pytest.mark.parametrize(
    ("edit", "blocks"),
    [
        # A replaced, an inserted and a deleted word; and one block of replaced words.
        ((5, 20, 7, 21, 8), [[(5,)], [(6,), (20,)], [(7,)], [(), (21,)], [(8,)], [(9,), ()]]),
        ((5, 20, 21, 8, 9), [[(5,)], [(6, 7), (20, 21)], [(8, 9)]]),
        (SOURCE, [[SOURCE]]),
    ],
)
def test_partial_edits_make_every_subset_of_the_changes(edit: tuple, blocks: list) -> None:
    every = {tuple(itertools.chain(*choice)) for choice in itertools.product(*blocks)}
    texts = partial_edits(SOURCE, edit)
    assert set(texts) == every and len(texts) == len(every)
    assert texts[0] == SOURCE and texts[-1] == edit


def test_of_many_changes_few_or_all_but_one_are_made() -> None:
    source = tuple(range(2 * MAX_CHANGES + 2))
    edit = tuple(token + 100 if token % 2 else token for token in source)
    n = MAX_CHANGES + 1
    made = [sum(token > 99 for token in text) for text in partial_edits(source, edit)]
    assert sorted(made) == sorted([0] + [1] * n + [2] * (n * (n - 1) // 2) + [n - 1] * n + [n])


@pytest.mark.parametrize(("length", "sizes"), [(0, {4, 5, 6}), (6, {5, 6})])
def test_candidates_have_a_length_that_is_given_and_come_from_solved_flows(length: int, sizes: set[int]) -> None:
    """A rewrite is a candidate whatever its length, which the decoder has set."""
    edits: Any = SimpleNamespace(
        tokenizer=SimpleNamespace(eos=1),
        method=SimpleNamespace(text_spec=SimpleNamespace(length=8)),
        conditioning=SimpleNamespace(length=length),
    )
    tokens = np.asarray([[[5, 20, 7, 21, 8, 9, 1], [5, 6, 7, 8, 1, 1, 1], [30, 31, 32, 1, 1, 1, 1]]])
    stops, solved = slice(1 if length else 3), np.asarray([[True, True, False]])
    rewrites: Any = SimpleNamespace(tokens=tokens[:, stops], solved=solved[:, stops])
    found = candidates_of(0, SOURCE, rewrites, edits, minimal=True)
    assert {len(candidate.tokens) for candidate in found} == sizes
    assert not any(30 in candidate.tokens for candidate in found)
    by_text = {candidate.tokens: candidate for candidate in found}
    assert len(by_text) == len(found) and by_text[5, 20, 7, 21, 8, 9].decoded == 0
    assert by_text[5, 20, 7, 8, 9].rewrite == (5, 20, 7, 21, 8, 9)
    whole = candidates_of(0, SOURCE, rewrites, edits, minimal=False)
    assert [candidate.tokens for candidate in whole] == [(5, 20, 7, 21, 8, 9), (5, 6, 7, 8)][: 1 if length else 2]


def test_a_rewrite_is_no_part_of_another_rewrite() -> None:
    """Its fluency is compared with the source alone."""
    edits: Any = SimpleNamespace(
        tokenizer=SimpleNamespace(eos=1),
        method=SimpleNamespace(text_spec=SimpleNamespace(length=8)),
        conditioning=SimpleNamespace(length=0),
    )
    tokens = np.asarray([[[5, 20, 7, 21, 9, 1], [5, 20, 7, 8, 9, 1]]])
    rewrites: Any = SimpleNamespace(tokens=tokens, solved=np.ones((1, 2), bool))
    found = candidates_of(0, SOURCE, rewrites, edits, minimal=True)
    assert {candidate.rewrite for candidate in found} == {(5, 20, 7, 21, 9), (5, 20, 7, 8, 9)}


@pytest.mark.parametrize(("solved", "minimal"), [(True, True), (True, False), (False, True)])
def test_a_text_with_words_replaced_is_a_rewrite_where_another_one_is_solved(solved: bool, minimal: bool) -> None:
    edits: Any = SimpleNamespace(
        tokenizer=SimpleNamespace(eos=1),
        method=SimpleNamespace(text_spec=SimpleNamespace(length=8)),
        conditioning=SimpleNamespace(length=0),
    )
    rewrites: Any = SimpleNamespace(tokens=np.asarray([[[5, 20, 7, 8, 9, 1]]]), solved=np.asarray([[solved]]))
    found = candidates_of(0, SOURCE, rewrites, edits, minimal, [(5, 20, 7, 8, 30), (5, 6, 7, 8, 9), (5,) * 8])
    by_text = {candidate.tokens: (candidate.rewrite, candidate.decoded) for candidate in found}
    if not solved:
        assert not found
        return
    assert by_text[5, 20, 7, 8, 9] == ((5, 20, 7, 8, 9), 0), "of both, the one that is decoded"
    assert by_text[5, 20, 7, 8, 30] == ((5, 20, 7, 8, 30), None)
    assert (5, 6, 7, 8, 30) not in by_text, "its parts are given, too"
    assert (5,) * 8 not in by_text, "it is too long"
    of_part = by_text[5, 6, 7, 8, 9]
    assert of_part == (((5, 20, 7, 8, 9), 0) if minimal else ((5, 6, 7, 8, 9), None)), (
        "of both, the one that is decoded"
    )
