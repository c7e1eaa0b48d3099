"""Choosing an edit among candidates.

A rewrite changes more than it must. Of the candidates that have the target probability when they are read again, the
one is taken that is near to the source and fluent: with the highest BLEU less a multiple of its nats per token. A
source that has the probability itself stays as it is.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jtextdiff.inference.editing.candidates import Candidate, Tokens, candidates_of, tokens_of
from jtextdiff.inference.editing.reading import Nats, Probabilities, read_again
from jtextdiff.inference.editing.replacements import replace_words
from jtextdiff.inference.editing.types import EditBatch
from jtextdiff.methods.components.latents import Rewrite

NEARLY_BEST = 0.95
"""If no candidate has the target probability, those with this share of the highest one count as having it."""

FLUENCY_WEIGHT = 0.4
"""BLEU with the source that is given up for one nat per token."""

REPLACED_MARGIN = 0.05
"""BLEU by which a text with words replaced must be better: trigrams, which chose them, find it too fluent."""


class Choice(NamedTuple):
    """The chosen text, where it is from, and the probability of each control in the source and in it."""

    tokens: Tokens
    decoded: int | None  # as of a `Candidate`; also None where the source stays as it is
    before: Float[np.ndarray, "parts"]
    after: Float[np.ndarray, "parts"]


def choose(edits: EditBatch, rewrites: Rewrite, *, target: float, minimal: bool) -> list[Choice | None]:
    """Returns one choice per text; None if no rewrite of it is solved.

    With `minimal` the candidates are the source, the rewrites, their partial edits and texts with words replaced, else
    the rewrites.
    """
    sources = [tokens_of(row, edits) for row in edits.batch.tokens]
    readings, replaced = edits.conditioning.readings, [[]] * len(sources)
    if minimal and readings is not None and readings.guides and readings.trigrams:
        replaced = replace_words(sources, readings, edits.tokenizer)
    rows = [candidates_of(row, source, rewrites, edits, minimal, replaced[row]) for row, source in enumerate(sources)]
    p, nats = read_again(edits, _distinct(sources, rows))
    choices = [_best(row, source, p, nats, target) for row, source in zip(rows, sources, strict=True)]
    return [
        _or_source(choice, row, source, target) if minimal else choice
        for choice, row, source in zip(choices, rows, sources, strict=True)
    ]


def _distinct(sources: Sequence[Tokens], rows: Sequence[Sequence[Candidate]]) -> list[Tokens]:
    """The sources and all candidates, each once."""
    return list(dict.fromkeys([*sources, *(candidate.tokens for row in rows for candidate in row)]))


def _fluent(candidates: list[Candidate], source: Tokens, nats: Nats) -> list[Candidate]:
    """Leaves out a part that is less fluent than both the source and the whole rewrite: it often contradicts itself."""
    return [
        candidate for candidate in candidates if nats[candidate.tokens] <= max(nats[source], nats[candidate.rewrite])
    ]


def _score(candidate: Candidate, nats: Nats) -> float:
    """How near and fluent a candidate is."""
    margin = REPLACED_MARGIN if candidate.decoded is None else 0.0
    return candidate.bleu - FLUENCY_WEIGHT * nats[candidate.tokens] / (len(candidate.tokens) + 1) - margin


def _best(candidates: list[Candidate], source: Tokens, p: Probabilities, nats: Nats, target: float) -> Choice | None:
    """The near and fluent candidate whose controls together have the target probability."""
    if not candidates:
        return None
    p_of = {candidate: p[candidate.tokens].prod() for candidate in _fluent(candidates, source, nats)}
    highest = max(p_of.values())
    least = target if highest >= target else NEARLY_BEST * highest
    probable = [candidate for candidate, value in p_of.items() if value >= least]
    best = max(probable, key=lambda candidate: _score(candidate, nats))
    return Choice(best.tokens, best.decoded, p[source], p[best.tokens])


def _or_source(choice: Choice | None, candidates: list[Candidate], source: Tokens, target: float) -> Choice | None:
    """The source, if it has the target probability already or is the best of all candidates; else the choice.

    It is no candidate where another length is given.
    """
    if choice is None or (choice.tokens != source and choice.before.prod() < target):
        return choice
    may_stay = any(candidate.tokens == source for candidate in candidates)
    return Choice(source, None, choice.before, choice.before) if may_stay else choice
