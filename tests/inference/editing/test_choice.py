"""Of candidates that have the target probability, one is chosen that is near to the source and fluent."""

import math
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.inference.editing import choice
from jtextdiff.inference.editing.candidates import Candidate
from jtextdiff.inference.editing.choice import (
    FLUENCY_WEIGHT,
    Choice,
    _best,
    _fluent,
    _or_source,
    _probabilities,
    _shortlist,
    choose,
)


def test_odds_are_the_geometric_mean_of_those_of_the_readings() -> None:
    latent, words = np.asarray([[0.1, 0.7], [1.0, 1e-30]]), np.asarray([[0.3, 0.7], [0.5, 0.5]])
    odds = lambda p: p / (1 - p)
    mean = np.sqrt(odds(latent[0]) * odds(words[0]))
    p = _probabilities(-np.log(latent), -np.log(words))
    np.testing.assert_allclose(odds(p[0]), mean, rtol=1e-6)
    assert np.all(np.isfinite(p)) and 0.9 < p[1, 0] < 1 and 0 < p[1, 1] < 0.1
    np.testing.assert_allclose(_probabilities(-np.log(words)), words, rtol=1e-6)


SOURCE = (4,)


def candidates(*bleu: float) -> list[Candidate]:
    """Texts of one token that are rewrites themselves."""
    return [Candidate((number,), value, (number,), number) for number, value in enumerate(bleu, 10)]


def best(of: list[Candidate], p: list[float], nats: list[tuple[float, ...]], target: float) -> Choice:
    """The source has a probability of .2, and 8 nats by each model."""
    texts = [SOURCE, *(candidate.tokens for candidate in of)]
    p_of = dict(zip(texts, map(np.atleast_1d, [0.2, *p]), strict=True))
    nats_of = dict(zip(texts, [(8.0,) * len(nats[0]), *nats], strict=True))
    choice = _best(of, SOURCE, p_of, nats_of, target)
    assert choice is not None and choice.before.item() == 0.2
    return choice


@pytest.mark.parametrize(
    ("target", "chosen"),
    [(0.3, 0), (0.6, 1), (0.89, 2), (0.99, 2)],  # .88 is nearly .9, the highest probability there is
)
def test_the_nearest_with_the_probability_is_chosen(target: float, chosen: int) -> None:
    p = [0.4, 0.7, 0.88 if target == 0.99 else 0.89, 0.9]
    choice = best(candidates(0.9, 0.7, 0.5, 0.1), p, [(8.0,)] * 4, target)
    assert choice.stop == 10 + chosen and choice.after.item() == p[chosen]


def test_a_more_fluent_text_may_be_less_near() -> None:
    """A nat per token of the mean of both models is worth as much BLEU as the weight says."""
    of = candidates(0.3 + FLUENCY_WEIGHT, 0.3)
    stop = lambda nats: best(of, [0.9, 0.9], [nats, (8.0, 8.0)], 0.5).stop
    assert stop((8.0 + 1.8, 8.0 + 1.8)) == 10 and stop((8.0 + 2.2, 8.0 + 2.2)) == 11
    assert stop((8.0 + 3.8, 8.0)) == 10 and stop((8.0, 8.0 + 4.2)) == 11


@pytest.mark.parametrize(("nats", "chosen"), [((9.9, 8.0), 1), ((10.1, 8.0), 0), ((9.0, 8.2), 0)])
def test_a_part_that_a_model_finds_less_fluent_than_both_of_its_ends_is_not_chosen(nats: Any, chosen: int) -> None:
    """The rewrite has 10 nats by the first model and 8 by the second, the source 8 by both."""
    whole = Candidate((5, 6), 0.2, (5, 6), 0)
    part = Candidate((5, 9), 0.9, (5, 6), 0)
    choice = best([whole, part], [0.9, 0.9], [(10.0, 8.0), nats], 0.5)
    assert choice.tokens == [whole, part][chosen].tokens
    assert (part in _fluent([whole, part], SOURCE, {SOURCE: (8.0, 8.0), (5, 6): (10.0, 8.0), (5, 9): nats})) == chosen


def test_a_part_may_be_as_fluent_as_a_source_that_is_less_fluent_than_the_rewrite() -> None:
    part = Candidate((5, 9), 0.9, (5, 6), 0)
    assert _fluent([part], SOURCE, {SOURCE: (8.0,), (5, 6): (6.0,), (5, 9): (7.9,)}) == [part]


def test_nothing_is_chosen_where_no_flow_was_solved() -> None:
    assert _best([], SOURCE, {SOURCE: np.asarray([0.2])}, {SOURCE: (3.0,)}, 0.9) is None


@pytest.mark.parametrize(("nats", "first"), [((), 11), ((9.0,), 14)])
def test_the_shortlist_has_the_best_first_then_the_most_probable_then_their_rewrites(nats: tuple, first: int) -> None:
    """The best are the nearest, or if trigrams find these less fluent, others."""
    of = [*candidates(0.9, 0.5, 0.8, 0.4), Candidate((14,), 0.45, (13,), 3), Candidate((15,), 0.3, (10,), 0)]
    p = dict(zip([text.tokens for text in of], [0.1, 0.95, 0.5, 0.05, 0.93, 0.2], strict=True))
    nats_of = {text.tokens: nats if text.tokens == (11,) else nats and (8.0,) for text in of}
    chosen = [candidate.tokens for candidate in _shortlist(of, p, nats_of, 0.9, 3)]
    assert chosen == [(first,), (25 - first,), (12,), (13,)]


class Reader(NamedTuple):
    """A method that reads every text alike, but for the nats of one that begins with 5, 20."""

    text_spec: Any = SimpleNamespace(length=8)

    def __hash__(self) -> int:
        return 0

    def reread(self, params: Any, tokens: Any, energy: Any) -> Any:
        return jnp.full((len(tokens), 1), -math.log(0.95)), 8.0 - 0.1 * (tokens[:, 1] == 20)


@pytest.mark.parametrize(
    ("nats", "num_read", "chosen"),
    [
        # Both parts are near. Trigrams prefer the second by more than the ELBO prefers the first.
        ({(5, 20, 7, 8, 9): 3.9, (5, 6, 7, 21, 22, 9): 1.0}, 6, (5, 6, 7, 21, 22, 9)),
        ({(5, 20, 7, 8, 9): 3.9, (5, 6, 7, 21, 22, 9): 3.9}, 6, (5, 20, 7, 8, 9)),
        # A part that they find less fluent than both ends takes no place of another.
        ({(5, 20, 7, 8, 9): 4.1, (5, 6, 7, 21, 22, 9): 3.9}, 1, (5, 6, 7, 21, 22, 9)),
    ],
)
def test_trigrams_take_part_in_the_choice(nats: dict, num_read: int, chosen: tuple, monkeypatch: Any) -> None:
    """Of (5, 6, 7, 8, 9) and the rewrite (5, 20, 7, 21, 22, 9), with 4 nats each."""
    source, rewrite, pad, eos = (5, 6, 7, 8, 9), (5, 20, 7, 21, 22, 9), 0, 1

    def nll(tokens: np.ndarray, valid: np.ndarray) -> np.ndarray:
        return np.asarray([nats.get(tuple(row[of][:-1].tolist()), 4.0) for row, of in zip(tokens, valid, strict=True)])

    edits: Any = SimpleNamespace(
        method=Reader(),
        params={},
        tokenizer=SimpleNamespace(eos=eos, pad=pad),
        batch=SimpleNamespace(tokens=np.asarray([[*source, eos, pad, pad]])),
        conditioning=SimpleNamespace(
            energy=None, length=0, readings=SimpleNamespace(trigrams=SimpleNamespace(nll=nll))
        ),
    )
    rewrites: Any = SimpleNamespace(tokens=np.asarray([[[*rewrite, eos]]]), solved=np.ones((1, 1), bool))
    of_words = lambda edits, texts: {text: -np.log([0.1 if text == source else 0.95]) for text in texts}
    monkeypatch.setattr(choice, "_nats_of_words", of_words)
    (made,) = choose(edits, rewrites, target=0.9, minimal=True, num_read=num_read)
    assert made is not None and made.tokens == chosen


@pytest.mark.parametrize(("before", "tokens", "stays"), [(0.95, (7,), True), (0.5, (7,), False), (0.5, (5,), True)])
def test_a_source_stays_if_it_has_the_probability_or_is_the_best(before: float, tokens: tuple, stays: bool) -> None:
    choice = _or_source(Choice(tokens, 3, np.asarray([before]), np.asarray([0.97])), (5,), 0.9)
    assert choice is not None and choice.tokens == ((5,) if stays else (7,))
    assert choice.stop == (None if stays else 3) and choice.after.item() == (before if stays else 0.97)
    assert _or_source(None, (5,), 0.9) is None
