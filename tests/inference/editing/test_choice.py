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
    Choice,
    Reading,
    _best,
    _candidates,
    _or_source,
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
    """Texts that are rewrites themselves."""
    return [Candidate((number,), value, (number,), number) for number, value in enumerate(bleu)]


def reading(p: list[float], nll: list[float] | None = None) -> Reading:
    """The source has a probability of .2 and 8 nats; the texts have one token and EOS."""
    return Reading(np.asarray([[0.2], *([value] for value in p)]), np.asarray([8.0, *(nll or [8.0] * len(p))]))


@pytest.mark.parametrize(
    ("target", "chosen"),
    [(0.3, 0), (0.6, 1), (0.89, 2), (0.99, 2)],  # .88 is nearly .9, the highest probability there is
)
def test_the_nearest_with_the_probability_is_chosen(target: float, chosen: int) -> None:
    choice = _best(candidates(0.9, 0.7, 0.5, 0.1), reading([0.4, 0.7, 0.88 if target == 0.99 else 0.89, 0.9]), target)
    assert choice is not None and choice.stop == chosen
    assert choice.before.item() == 0.2 and choice.after.item() >= min(target, 0.88)


def test_a_more_fluent_text_may_be_less_near() -> None:
    nearer = FLUENCY_WEIGHT  # than the other
    choose = lambda nats: _best(candidates(0.3 + nearer, 0.3), reading([0.9, 0.9], [8.0 + 2 * nats, 8.0]), 0.5)
    assert choose(0.9).stop == 0 and choose(1.1).stop == 1


@pytest.mark.parametrize(("nats", "chosen"), [(9.9, 1), (10.1, 0)])
def test_a_part_that_is_less_fluent_than_both_of_its_ends_is_not_chosen(nats: float, chosen: int) -> None:
    """The rewrite has 10 nats, the source 8."""
    whole = Candidate((5, 6), 0.2, (5, 6), 0)
    part = Candidate((5, 9), 0.9, (5, 6), 0)
    choice = _best([whole, part], reading([0.9, 0.9], [10.0, nats]), 0.5)
    assert choice is not None and choice.tokens == [whole, part][chosen].tokens


def test_nothing_is_chosen_where_no_flow_was_solved() -> None:
    assert _best([], Reading(np.asarray([[0.2]]), np.asarray([3.0])), 0.9) is None


def test_the_shortlist_has_the_nearest_first_then_the_most_probable_then_their_rewrites() -> None:
    of = [*candidates(0.9, 0.5, 0.8, 0.4), Candidate((9,), 0.45, (3,), 3), Candidate((8,), 0.3, (0,), 0)]
    by_words = {text.tokens: -np.log([p]) for text, p in zip(of, [0.1, 0.95, 0.5, 0.3, 0.93, 0.2], strict=True)}
    chosen = [candidate.tokens for candidate in _shortlist(of, by_words, 0.9, 3)]
    assert chosen == [(1,), (9,), (2,), (3,)]


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
    found = _candidates(0, SOURCE, rewrites, edits, minimal=True)
    assert {len(candidate.tokens) for candidate in found} == sizes
    assert not any(30 in candidate.tokens for candidate in found)
    by_text = {candidate.tokens: candidate for candidate in found}
    assert len(by_text) == len(found) and by_text[5, 20, 7, 21, 8, 9].stop == 0
    assert by_text[5, 20, 7, 8, 9].rewrite == (5, 20, 7, 21, 8, 9)
    whole = _candidates(0, SOURCE, rewrites, edits, minimal=False)
    assert [candidate.tokens for candidate in whole] == [(5, 20, 7, 21, 8, 9), (5, 6, 7, 8)][: 1 if length else 2]


def test_a_rewrite_is_no_part_of_another_rewrite() -> None:
    """Else the shortlist would lack the rewrite with which its fluency is compared."""
    edits: Any = SimpleNamespace(
        tokenizer=SimpleNamespace(eos=1),
        method=SimpleNamespace(text_spec=SimpleNamespace(length=8)),
        conditioning=SimpleNamespace(length=0),
    )
    tokens = np.asarray([[[5, 20, 7, 21, 9, 1], [5, 20, 7, 8, 9, 1]]])
    rewrites: Any = SimpleNamespace(tokens=tokens, solved=np.ones((1, 2), bool))
    found = _candidates(0, SOURCE, rewrites, edits, minimal=True)
    assert {candidate.rewrite for candidate in found} == {(5, 20, 7, 21, 9), (5, 20, 7, 8, 9)}
    for num in range(1, len(found)):
        chosen = _shortlist(found, {candidate.tokens: -np.log([0.95]) for candidate in found}, 0.9, num)
        assert {candidate.rewrite for candidate in chosen} <= {candidate.tokens for candidate in chosen}


@pytest.mark.parametrize(("before", "tokens", "stays"), [(0.95, (7,), True), (0.5, (7,), False), (0.5, (5,), True)])
def test_a_source_stays_if_it_has_the_probability_or_is_the_best(before: float, tokens: tuple, stays: bool) -> None:
    choice = _or_source(Choice(tokens, 3, np.asarray([before]), np.asarray([0.97])), (5,), 0.9)
    assert choice is not None and choice.tokens == ((5,) if stays else (7,))
    assert choice.stop == (None if stays else 3) and choice.after.item() == (before if stays else 0.97)
    assert _or_source(None, (5,), 0.9) is None
