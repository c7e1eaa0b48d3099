"""Of candidates that have the target probability, one is chosen that is near to the source and fluent."""

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.inference.editing.candidates import Candidate
from jtextdiff.inference.editing.choice import (
    FLUENCY_WEIGHT,
    REPLACED_MARGIN,
    Choice,
    _best,
    _fluent,
    _or_source,
    choose,
)
from jtextdiff.metrics.trigram_classifier import TrigramClassifier, fit_each
from jtextdiff.sampling.energies import Sum, ValueEnergy
from jtextdiff.sampling.phrases import WordEnergy

SOURCE = (4,)


def candidates(*bleu: float) -> list[Candidate]:
    """Texts of one token that are rewrites themselves."""
    return [Candidate((number,), value, (number,), number) for number, value in enumerate(bleu, 10)]


def best(of: list[Candidate], p: list[float], nats: list[float], target: float) -> Choice:
    """The source has a probability of .2, and 8 nats."""
    texts = [SOURCE, *(candidate.tokens for candidate in of)]
    p_of = dict(zip(texts, map(np.atleast_1d, [0.2, *p]), strict=True))
    nats_of = dict(zip(texts, [8.0, *nats], strict=True))
    choice = _best(of, SOURCE, p_of, nats_of, target)
    assert choice is not None and choice.before.item() == 0.2
    return choice


@pytest.mark.parametrize(
    ("target", "chosen"),
    [(0.3, 0), (0.6, 1), (0.89, 2), (0.99, 2)],  # .88 is nearly .9, the highest probability there is
)
def test_the_nearest_with_the_probability_is_chosen(target: float, chosen: int) -> None:
    p = [0.4, 0.7, 0.88 if target == 0.99 else 0.89, 0.9]
    choice = best(candidates(0.9, 0.7, 0.5, 0.1), p, [8.0] * 4, target)
    assert choice.decoded == 10 + chosen and choice.after.item() == p[chosen]


def test_a_more_fluent_text_may_be_less_near() -> None:
    """A nat per token is worth as much BLEU as the weight says; each text has two tokens with EOS."""
    of = candidates(0.3 + FLUENCY_WEIGHT, 0.3)
    stop = lambda nats: best(of, [0.9, 0.9], [nats, 8.0], 0.5).decoded
    assert stop(8.0 + 1.8) == 10 and stop(8.0 + 2.2) == 11


@pytest.mark.parametrize(("better", "chosen"), [(REPLACED_MARGIN - 0.01, 0), (REPLACED_MARGIN + 0.01, 1)])
def test_a_text_with_words_replaced_must_be_better_by_a_margin(better: float, chosen: int) -> None:
    decoded, replaced = Candidate((10,), 0.2, (10,), 10), Candidate((11,), 0.2 + better, (11,), None)
    assert best([decoded, replaced], [0.9, 0.9], [8.0, 8.0], 0.5).tokens == [(10,), (11,)][chosen]


@pytest.mark.parametrize(("nats", "chosen"), [(9.9, 1), (10.1, 0)])
def test_a_part_that_is_less_fluent_than_both_of_its_ends_is_not_chosen(nats: float, chosen: int) -> None:
    """The rewrite has 10 nats, the source 8."""
    whole = Candidate((5, 6), 0.2, (5, 6), 0)
    part = Candidate((5, 9), 0.9, (5, 6), 0)
    choice = best([whole, part], [0.9, 0.9], [10.0, nats], 0.5)
    assert choice.tokens == [whole, part][chosen].tokens
    assert (part in _fluent([whole, part], SOURCE, {SOURCE: 8.0, (5, 6): 10.0, (5, 9): nats})) == chosen


def test_a_part_may_be_as_fluent_as_a_source_that_is_less_fluent_than_the_rewrite() -> None:
    part = Candidate((5, 9), 0.9, (5, 6), 0)
    assert _fluent([part], SOURCE, {SOURCE: 8.0, (5, 6): 6.0, (5, 9): 7.9}) == [part]


def test_nothing_is_chosen_where_no_flow_was_solved() -> None:
    assert _best([], SOURCE, {SOURCE: np.asarray([0.2])}, {SOURCE: 3.0}, 0.9) is None


@pytest.mark.parametrize(("before", "tokens", "stays"), [(0.95, (7,), True), (0.5, (7,), False), (0.5, (5,), True)])
def test_a_source_stays_if_it_has_the_probability_or_is_the_best(before: float, tokens: tuple, stays: bool) -> None:
    source = Candidate((5,), 1.0, (7,), 3)
    made = Choice(tokens, 3, np.asarray([before]), np.asarray([0.97]))
    choice = _or_source(made, [source], (5,), 0.9)
    assert choice is not None and choice.tokens == ((5,) if stays else (7,))
    assert choice.decoded == (None if stays else 3) and choice.after.item() == (before if stays else 0.97)
    assert _or_source(None, [source], (5,), 0.9) is None
    assert _or_source(made, [], (5,), 0.9) is made, "its length is not the one that is given"


PAD, EOS, VOCAB = 0, 1, 12
GOOD, BAD, NICE = 5, 6, 7


def edits(source: tuple[int, ...], length: int = 0, guides: bool = True) -> Any:
    """A control of words and trigrams: texts end with BAD, or with GOOD and NICE."""
    trained = np.asarray([[3, 4, BAD, EOS]] * 2 + [[3, 4, GOOD, EOS]] * 2)
    of_values = fit_each(trained, trained > 0, np.asarray([0, 0, 1, 1]), 2, VOCAB)
    weights = jnp.zeros((VOCAB, 2)).at[jnp.asarray([GOOD, BAD, NICE])].set(jnp.asarray([[-2.0, 2], [2, -2], [-2, 2]]))
    words = {"weights": weights, "factor": jnp.ones(()), "bias": jnp.zeros(2)}
    target = jnp.asarray([False, True])
    readings = SimpleNamespace(
        energy=Sum(energies=(WordEnergy(target=target, label="mood", **words),), weights=(1.0,)),
        of_values=Sum(energies=(ValueEnergy(target=target, columns=(0, 2)),), weights=(1.0,)),
        guides=guides,
        labels=("mood",),
        words=(words,),
        trigrams=(TrigramClassifier(of_values, 1.0, np.zeros(2)),),
        neutral=np.ones(VOCAB),
        vectors=np.eye(VOCAB),
    )
    return SimpleNamespace(
        method=SimpleNamespace(text_spec=SimpleNamespace(length=8)),
        tokenizer=SimpleNamespace(eos=EOS, unk=2, pad=PAD),
        batch=SimpleNamespace(tokens=np.asarray([[*source, EOS, *[PAD] * (7 - len(source))]])),
        conditioning=SimpleNamespace(energy=None, length=length, readings=readings),
    )


def chosen(source: tuple[int, ...], rewrite: tuple[int, ...], minimal: bool = True, **settings: Any) -> Choice:
    rewrites: Any = SimpleNamespace(tokens=np.asarray([[[*rewrite, EOS]]]), solved=np.ones((1, 1), bool))
    (choice,) = choose(edits(source, **settings), rewrites, target=0.9, minimal=minimal)
    assert choice is not None
    return choice


def test_of_a_rewrite_the_change_is_made_that_the_control_needs() -> None:
    made = chosen((3, 4, BAD), (8, 4, GOOD))
    assert made.tokens == (3, 4, GOOD) and made.before[0] < 0.1 and made.after[0] > 0.9
    assert chosen((3, 4, BAD), (8, 4, GOOD), minimal=False).tokens == (8, 4, GOOD)


def test_a_word_is_replaced_if_the_rewrite_is_worse() -> None:
    """Its words are unknown to the trigrams."""
    made = chosen((3, 4, BAD), (9, 10, NICE))
    assert made.tokens == (3, 4, GOOD) and made.decoded is None
    assert chosen((3, 4, BAD), (9, 10, NICE), guides=False).tokens[-1] == NICE, "only where words guide"


def test_a_text_with_a_word_replaced_or_the_source_has_the_length_that_is_given() -> None:
    assert chosen((3, 4, BAD), (3, 9, 10, NICE), length=5).tokens == (3, 9, 10, NICE)
    assert chosen((3, 4, GOOD), (3, 9, 10, NICE), length=5).tokens == (3, 9, 10, NICE), "though it has the control"
    assert chosen((3, 4, GOOD), (3, 9, 10, NICE), length=4).tokens == (3, 4, GOOD)
