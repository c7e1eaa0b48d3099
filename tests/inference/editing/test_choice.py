"""Of several rewrites and their partial edits, the nearest to the source that has the target probability is chosen."""

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jtextdiff.inference.editing.choice import (
    FLUENCY_WEIGHT,
    MAX_CHANGES,
    Candidate,
    Reading,
    _best,
    _candidates,
    _probabilities,
    _shortlist,
    partial_edits,
)

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


def test_odds_are_the_geometric_mean_of_those_of_the_readings() -> None:
    latent, words = np.asarray([[0.1, 0.7], [1.0, 1e-30]]), np.asarray([[0.3, 0.7], [0.5, 0.5]])
    odds = lambda p: p / (1 - p)
    mean = np.sqrt(odds(latent[0]) * odds(words[0]))
    p = _probabilities(-np.log(latent), -np.log(words))
    np.testing.assert_allclose(odds(p[0]), mean, rtol=1e-6)
    assert np.all(np.isfinite(p)) and 0.9 < p[1, 0] < 1 and 0 < p[1, 1] < 0.1
    np.testing.assert_allclose(_probabilities(-np.log(words)), words, rtol=1e-6)


def candidates(*bleu: float) -> list[Candidate]:
    return [Candidate((number,), number, value) for number, value in enumerate(bleu)]


def reading(p: list[float], nll: list[float] | None = None) -> Reading:
    """The source has a probability of .2 and 3 nats a token."""
    return Reading(np.asarray([[0.2], *([value] for value in p)]), np.asarray([3.0, *(nll or [3.0] * len(p))]))


@pytest.mark.parametrize(
    ("target", "chosen"),
    [(0.3, 0), (0.6, 1), (0.89, 2), (0.99, 2)],  # .88 is nearly .9, the highest probability there is
)
def test_the_nearest_with_the_probability_is_chosen(target: float, chosen: int) -> None:
    choice = _best(candidates(0.9, 0.7, 0.5, 0.1), reading([0.4, 0.7, 0.88 if target == 0.99 else 0.89, 0.9]), target)
    assert choice is not None and choice.rewrite == chosen
    assert choice.before.item() == 0.2 and choice.after.item() >= min(target, 0.88)


def test_a_more_fluent_text_may_be_less_near() -> None:
    nearer = 0.9 * FLUENCY_WEIGHT  # than the other
    choose = lambda nats: _best(candidates(0.3 + nearer, 0.3), reading([0.9, 0.9], [3.0 + nats, 3.0]), 0.5)
    assert choose(0.8).rewrite == 0 and choose(1.0).rewrite == 1


def test_nothing_is_chosen_where_no_flow_was_solved() -> None:
    assert _best([], Reading(np.asarray([[0.2]]), np.asarray([3.0])), 0.9) is None


def test_the_shortlist_has_the_nearest_first_then_the_most_probable() -> None:
    of = candidates(0.9, 0.5, 0.8, 0.4)
    order = [candidate.rewrite for candidate in _shortlist(of, np.asarray([0.1, 0.95, 0.5, 0.92]), 0.9, 3)]
    assert order == [1, 3, 2]


@pytest.mark.parametrize(("length", "sizes"), [(0, {4, 5, 6}), (6, {5, 6})])
def test_candidates_have_a_length_that_is_given_and_come_from_solved_flows(length: int, sizes: set[int]) -> None:
    """A rewrite is a candidate whatever its length, which the decoder has set."""
    edits: Any = SimpleNamespace(
        tokenizer=SimpleNamespace(eos=1),
        method=SimpleNamespace(text_spec=SimpleNamespace(length=8)),
        conditioning=SimpleNamespace(length=length),
    )
    tokens = np.asarray([[[5, 20, 7, 21, 8, 9, 1], [5, 6, 7, 8, 1, 1, 1], [30, 31, 32, 1, 1, 1, 1]]])
    rewrites: Any = SimpleNamespace(
        tokens=tokens[:, :1] if length else tokens, solved=np.asarray([[True, True, False]])
    )
    if length:
        rewrites.solved = rewrites.solved[:, :1]
    found = _candidates(0, SOURCE, rewrites, edits, minimal=True)
    assert {len(candidate.tokens) for candidate in found} == sizes
    assert not any(30 in candidate.tokens for candidate in found)
    assert len({candidate.tokens for candidate in found}) == len(found)
    by_text = {candidate.tokens: candidate for candidate in found}
    assert by_text[5, 20, 7, 21, 8, 9].rewrite == 0
    assert [c.tokens for c in _candidates(0, SOURCE, rewrites, edits, minimal=False)][0] == (5, 20, 7, 21, 8, 9)
