"""Choosing an edit among several rewrites of a text, and among texts that make only some of their changes.

A rewrite changes more than it must. Of the candidates that have the target probability when they are read again, the
one is taken that is near to the source and fluent: with the highest BLEU less a multiple of −ELBO. A source that has
the probability itself stays as it is.
"""

import itertools
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.special import expit

from jtextdiff.devices.sharding import mesh_of, num_shards
from jtextdiff.inference.batched import LengthBucket, jitted, map_batches
from jtextdiff.inference.editing.types import EditBatch
from jtextdiff.methods.components.latents import Rewrite
from jtextdiff.metrics.bleu import bleu_against
from jtextdiff.sampling.energies import MIN_ENERGY, Energy, energy_terms

Tokens = tuple[int, ...]
"""A text without EOS and PAD."""

NatsOf = dict[Tokens, Float[np.ndarray, "parts"]]
"""−log p of each control by the words of a text."""

MAX_CHANGES = 6
"""Up to so many changes, all subsets are tried; of more, none, single ones, pairs, and all but one."""

NEARLY_BEST = 0.95
"""If no candidate has the target probability, those with this share of the highest one count as having it."""

FLUENCY_WEIGHT = 0.4
"""BLEU with the source that is given up for one nat per token of the negative ELBO."""


class Candidate(NamedTuple):
    """A text, its BLEU with the source, and the rewrite that it is a part of, with the number of that."""

    tokens: Tokens
    bleu: float
    rewrite: Tokens
    stop: int


class Reading(NamedTuple):
    """Texts as the model reads them: the probability of each control, and −ELBO in nats."""

    p: Float[np.ndarray, "n parts"]
    nll: Float[np.ndarray, "n"]


class Choice(NamedTuple):
    """The chosen text, the number of its rewrite, and the probability of each control in the source and in it."""

    tokens: Tokens
    stop: int | None  # None: the source stays as it is
    before: Float[np.ndarray, "parts"]
    after: Float[np.ndarray, "parts"]


def choose(edits: EditBatch, rewrites: Rewrite, *, target: float, minimal: bool, num_read: int) -> list[Choice | None]:
    """Returns one choice per text; None if no rewrite of it is solved.

    With `minimal`, which needs controls that have learned words, the candidates are the source, the rewrites and their
    `partial_edits`; the `num_read` nearest whose words have the `target` probability are read again by the model. Else
    they are the rewrites, all of which are read.
    """
    sources = [tokens_of(row, edits) for row in edits.batch.tokens]
    rows = [_candidates(row, source, rewrites, edits, minimal) for row, source in enumerate(sources)]
    by_words = _by_words(edits, [*sources, *(candidate.tokens for row in rows for candidate in row)])
    if minimal:
        rows = [_shortlist(row, by_words, target, num_read) for row in rows]
    texts = [[source, *(candidate.tokens for candidate in row)] for source, row in zip(sources, rows, strict=True)]
    p, nll = _read(edits, [text for of_row in texts for text in of_row], by_words)
    readings = zip(_split(p, texts), _split(nll, texts), strict=True)
    choices = [_best(row, Reading(*reading), target) for row, reading in zip(rows, readings, strict=True)]
    return [
        _or_source(choice, source, target) if minimal else choice
        for choice, source in zip(choices, sources, strict=True)
    ]


def tokens_of(row: Int[np.ndarray, "l"], edits: EditBatch) -> Tokens:
    """Returns the tokens of a padded row before its EOS."""
    ends = np.flatnonzero(row == edits.tokenizer.eos)
    return tuple(row[: ends[0] if len(ends) else None].tolist())


def partial_edits(source: Tokens, edit: Tokens) -> list[Tokens]:
    """Returns the texts that make some of the changes of an edit: first none, which is the source, and last all."""
    blocks = SequenceMatcher(None, source, edit, autojunk=False).get_opcodes()
    changes = [index for index, (kind, *_) in enumerate(blocks) if kind != "equal"]
    n = len(changes)
    sizes = range(n + 1) if n <= MAX_CHANGES else (0, 1, 2, n - 1, n)
    subsets = itertools.chain.from_iterable(itertools.combinations(changes, size) for size in sizes)

    def with_changes(made: tuple[int, ...]) -> Tokens:
        pieces = (
            edit[new:new_end] if index in made else source[old:old_end]
            for index, (_, old, old_end, new, new_end) in enumerate(blocks)
        )
        return tuple(itertools.chain.from_iterable(pieces))

    return list(map(with_changes, subsets))


def _candidates(row: int, source: Tokens, rewrites: Rewrite, edits: EditBatch, minimal: bool) -> list[Candidate]:
    """The distinct rewrites of a text, and their partial edits that have a valid length."""
    longest, length = edits.method.text_spec.length, edits.conditioning.length
    valid = lambda text: text and (len(text) + 1 == length if length > 0 else len(text) < longest)
    stop_of: dict[Tokens, int] = {}
    for stop in np.flatnonzero(rewrites.solved[row]).tolist():
        stop_of.setdefault(tokens_of(np.asarray(rewrites.tokens[row, stop]), edits), stop)
    rewrite_of = {text: text for text in stop_of}  # first, since a rewrite counts as no part of another one
    if minimal:
        for rewrite in stop_of:
            for text in filter(valid, partial_edits(source, rewrite)):
                rewrite_of.setdefault(text, rewrite)
    bleu = bleu_against(source)
    return [Candidate(text, bleu(text), of, stop_of[of]) for text, of in rewrite_of.items()]


def _shortlist(candidates: list[Candidate], by_words: NatsOf, target: float, num: int) -> list[Candidate]:
    """The nearest candidates whose words have the target probability; if they are too few, the next probable ones.

    Also the rewrites of which they are parts.
    """
    if not candidates:
        return []
    p = _probabilities(np.stack([by_words[candidate.tokens] for candidate in candidates])).prod(axis=-1)
    order = sorted(range(len(p)), key=lambda i: (p[i] < target, -candidates[i].bleu if p[i] >= target else -p[i]))
    chosen = [candidates[i] for i in order[:num]]
    needed = {candidate.rewrite for candidate in chosen} - {candidate.tokens for candidate in chosen}
    return chosen + [candidate for candidate in candidates if candidate.tokens in needed]


def _best(candidates: list[Candidate], reading: Reading, target: float) -> Choice | None:
    """The near and fluent candidate with the target probability; the reading begins with that of the source.

    A part of a rewrite that is less fluent than both the source and the rewrite contradicts itself.
    """
    if not candidates:
        return None
    p, nll, source_nll = reading.p.prod(axis=-1)[1:], reading.nll[1:], reading.nll[0]
    nll_of = {candidate.tokens: nats for candidate, nats in zip(candidates, nll, strict=True)}
    fluent = nll <= [max(source_nll, nll_of[candidate.rewrite]) for candidate in candidates]
    highest = p[fluent].max()
    least = target if highest >= target else NEARLY_BEST * highest
    per_token = nll / [len(candidate.tokens) + 1 for candidate in candidates]
    scores = np.asarray([candidate.bleu for candidate in candidates]) - FLUENCY_WEIGHT * per_token
    best = int(np.argmax(np.where(fluent & (p >= least), scores, -np.inf)))
    return Choice(candidates[best].tokens, candidates[best].stop, reading.p[0], reading.p[1 + best])


def _or_source(choice: Choice | None, source: Tokens, target: float) -> Choice | None:
    """The source, if it has the target probability already or is the best of all candidates; else the choice."""
    if choice is None or (choice.tokens != source and choice.before.prod() < target):
        return choice
    return Choice(source, None, choice.before, choice.before)


def _read(edits: EditBatch, texts: Sequence[Tokens], by_words: NatsOf) -> Reading:
    """Reads texts again: the probabilities of controls are those of `_probabilities`."""
    reread, energy = jitted(edits.method, "reread", mesh_of(edits.params)), edits.conditioning.energy

    def read(bucket: LengthBucket, tokens: Int[np.ndarray, "m l"]) -> tuple[Array, Array]:
        return reread(edits.params, tokens, energy=energy)

    latent, nll = _map(read, edits, texts)
    words = (np.stack([by_words[text] for text in texts]),) if by_words else ()
    return Reading(_probabilities(latent, *words), nll)


def _by_words(edits: EditBatch, texts: Sequence[Tokens]) -> NatsOf:
    """−log p of each control by the words of each text, nats; {} if a control has learned no words."""
    if edits.conditioning.readings is None:
        return {}
    energy, distinct = edits.conditioning.readings.energy, list(dict.fromkeys(texts))
    return dict(
        zip(distinct, _map(lambda bucket, tokens: _text_energies(energy, tokens), edits, distinct), strict=True)
    )


@jax.jit
def _text_energies(energy: Energy, tokens: Int[Array, "n l"]) -> Float[Array, "n parts"]:
    return energy_terms(energy, tokens, 0.0)


def _map(function: Any, edits: EditBatch, texts: Sequence[Tokens]) -> Any:
    """Calls `function(bucket, tokens)` on batches of padded rows."""
    longest = edits.method.text_spec.length
    lengths = np.minimum([len(text) + 1 for text in texts], longest)
    tokens = np.full((len(texts), longest), edits.tokenizer.pad, np.int32)
    for row, text in zip(tokens, texts, strict=True):
        ended = (*text, edits.tokenizer.eos)[:longest]
        row[: len(ended)] = ended
    return map_batches(function, tokens, lengths, longest=longest, shards=num_shards(mesh_of(edits.params)))


def _probabilities(*nats: Float[np.ndarray, "n parts"]) -> Float[np.ndarray, "n parts"]:
    """The probabilities with the mean log odds of several readings, whose −log p are `nats`."""
    positive = [np.maximum(of_reading, MIN_ENERGY).astype(np.float64) for of_reading in nats]
    return expit(np.mean([-of_reading - np.log(-np.expm1(-of_reading)) for of_reading in positive], axis=0))


def _split(values: Any, like: Sequence[Sequence[Any]]) -> list[Any]:
    """Divides the rows of an array into as many as each of the sequences has."""
    return np.split(values, np.cumsum([len(row) for row in like])[:-1])
