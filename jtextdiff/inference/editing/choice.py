"""Choosing an edit among candidates.

A rewrite changes more than it must. Of the candidates that have the target probability when they are read again, the
one is taken that is near to the source and fluent: with the highest BLEU less a multiple of its nats per token, by the
ELBO and by trigrams. To a text VAE, which was trained to write back what it reads, many a text is likely whose
neighbouring words do not fit; trigrams see that. A source that has the probability itself stays as it is.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.special import expit

from jtextdiff.devices.sharding import mesh_of, num_shards
from jtextdiff.inference.batched import LengthBucket, jitted, map_batches
from jtextdiff.inference.editing.candidates import Candidate, Tokens, candidates_of, tokens_of
from jtextdiff.inference.editing.types import EditBatch
from jtextdiff.methods.components.latents import Rewrite
from jtextdiff.sampling.energies import MIN_ENERGY, Energy, energy_terms

Nats = dict[Tokens, tuple[float, ...]]
"""−log p of each text by each model of text, in nats."""

ByControl = dict[Tokens, Float[np.ndarray, "parts"]]
"""The probability of each control in each text, or −log p."""

NEARLY_BEST = 0.95
"""If no candidate has the target probability, those with this share of the highest one count as having it."""

FLUENCY_WEIGHT = 0.5
"""BLEU with the source that is given up for one nat per token."""


class Choice(NamedTuple):
    """The chosen text, the number of its rewrite, and the probability of each control in the source and in it."""

    tokens: Tokens
    stop: int | None  # None: the source stays as it is
    before: Float[np.ndarray, "parts"]
    after: Float[np.ndarray, "parts"]


def choose(edits: EditBatch, rewrites: Rewrite, *, target: float, minimal: bool, num_read: int) -> list[Choice | None]:
    """Returns one choice per text; None if no rewrite of it is solved.

    With `minimal`, which needs controls that have learned words, the candidates are the source, the rewrites and their
    partial edits; the best `num_read` by BLEU and trigrams, of those whose words have the `target` probability, are
    read again by the model. Else they are the rewrites, all of which are read.
    """
    sources = [tokens_of(row, edits) for row in edits.batch.tokens]
    rows = [candidates_of(row, source, rewrites, edits, minimal) for row, source in enumerate(sources)]
    texts = _distinct(sources, rows)
    words, by_trigrams = _nats_of_words(edits, texts), _nats_of_trigrams(edits, texts)
    if minimal:
        p_of_words = dict(zip(texts, _probabilities(np.stack([words[text] for text in texts])).prod(-1), strict=True))
        rows = [_fluent(row, source, by_trigrams) for row, source in zip(rows, sources, strict=True)]
        rows = [_shortlist(row, p_of_words, by_trigrams, target, num_read) for row in rows]
        texts = _distinct(sources, rows)
    p, nats = _read(edits, texts, words, by_trigrams)
    choices = [_best(row, source, p, nats, target) for row, source in zip(rows, sources, strict=True)]
    return [
        _or_source(choice, source, target) if minimal else choice
        for choice, source in zip(choices, sources, strict=True)
    ]


def _distinct(sources: Sequence[Tokens], rows: Sequence[Sequence[Candidate]]) -> list[Tokens]:
    """The sources and all candidates, each once."""
    return list(dict.fromkeys([*sources, *(candidate.tokens for row in rows for candidate in row)]))


def _fluent(candidates: list[Candidate], source: Tokens, nats: Nats) -> list[Candidate]:
    """Leaves out a part that a model finds less fluent than both the source and the whole rewrite.

    It often contradicts itself.
    """
    return [
        candidate
        for candidate in candidates
        if all(
            of_part <= max(of_source, of_rewrite)
            for of_part, of_source, of_rewrite in zip(
                nats[candidate.tokens], nats[source], nats[candidate.rewrite], strict=True
            )
        )
    ]


def _score(candidate: Candidate, nats: Nats) -> float:
    """How near and fluent a candidate is; how near, before it is read again, if controls have no trigrams."""
    of_text, num_tokens = nats[candidate.tokens], len(candidate.tokens) + 1
    return candidate.bleu - FLUENCY_WEIGHT * sum(of_text) / max(len(of_text), 1) / num_tokens


def _shortlist(
    candidates: list[Candidate], p: dict[Tokens, float], nats: Nats, target: float, num: int
) -> list[Candidate]:
    """The best candidates with the target probability; if they are too few, the next probable ones.

    Also the rewrites of which they are parts.
    """

    def rank(candidate: Candidate) -> tuple[bool, float]:
        misses = p[candidate.tokens] < target
        return misses, -p[candidate.tokens] if misses else -_score(candidate, nats)

    chosen = sorted(candidates, key=rank)[:num]
    needed = {candidate.rewrite for candidate in chosen} - {candidate.tokens for candidate in chosen}
    return chosen + [candidate for candidate in candidates if candidate.tokens in needed]


def _best(candidates: list[Candidate], source: Tokens, p: ByControl, nats: Nats, target: float) -> Choice | None:
    """The near and fluent candidate whose controls together have the target probability."""
    if not candidates:
        return None
    p_of = {candidate: p[candidate.tokens].prod() for candidate in _fluent(candidates, source, nats)}
    highest = max(p_of.values())
    least = target if highest >= target else NEARLY_BEST * highest
    probable = [candidate for candidate, value in p_of.items() if value >= least]
    best = max(probable, key=lambda candidate: _score(candidate, nats))
    return Choice(best.tokens, best.stop, p[source], p[best.tokens])


def _or_source(choice: Choice | None, source: Tokens, target: float) -> Choice | None:
    """The source, if it has the target probability already or is the best of all candidates; else the choice."""
    if choice is None or (choice.tokens != source and choice.before.prod() < target):
        return choice
    return Choice(source, None, choice.before, choice.before)


def _read(edits: EditBatch, texts: list[Tokens], words: ByControl, by_trigrams: Nats) -> tuple[ByControl, Nats]:
    """The probability of each control in texts that are read again, see `_probabilities`, and their nats."""
    reread, energy = jitted(edits.method, "reread", mesh_of(edits.params)), edits.conditioning.energy

    def read(bucket: LengthBucket, tokens: Int[np.ndarray, "m l"]) -> tuple[Array, Array]:
        return reread(edits.params, tokens, energy=energy)

    by_latent, nll = _map(read, edits, texts)
    by_words = (np.stack([words[text] for text in texts]),) if words else ()
    p = dict(zip(texts, _probabilities(by_latent, *by_words), strict=True))
    return p, {text: (*by_trigrams[text], nats) for text, nats in zip(texts, nll.tolist(), strict=True)}


def _nats_of_words(edits: EditBatch, texts: list[Tokens]) -> ByControl:
    """−log p of each control by the words of each text; {} if a control has learned no words."""
    if edits.conditioning.readings is None:
        return {}
    energy = edits.conditioning.readings.energy
    return dict(zip(texts, _map(lambda bucket, tokens: _text_energies(energy, tokens), edits, texts), strict=True))


@jax.jit
def _text_energies(energy: Energy, tokens: Int[Array, "n l"]) -> Float[Array, "n parts"]:
    return energy_terms(energy, tokens, 0.0)


def _nats_of_trigrams(edits: EditBatch, texts: list[Tokens]) -> Nats:
    """−log p of each text by the trigrams of a control, if it has learned any."""
    readings = edits.conditioning.readings
    if readings is None or readings.trigrams is None:
        return dict.fromkeys(texts, ())
    return {text: (nats,) for text, nats in zip(texts, readings.trigrams.nll(*_rows(edits, texts)), strict=True)}


def _map(function: Any, edits: EditBatch, texts: list[Tokens]) -> Any:
    """Calls `function(bucket, tokens)` on batches of padded rows."""
    tokens, valid = _rows(edits, texts)
    longest, shards = edits.method.text_spec.length, num_shards(mesh_of(edits.params))
    return map_batches(function, tokens, valid.sum(-1), longest=longest, shards=shards)


def _rows(edits: EditBatch, texts: list[Tokens]) -> tuple[Int[np.ndarray, "n l"], Bool[np.ndarray, "n l"]]:
    """Texts as padded rows of tokens with EOS, and which positions are theirs."""
    longest = edits.method.text_spec.length
    tokens = np.full((len(texts), longest), edits.tokenizer.pad, np.int32)
    for row, text in zip(tokens, texts, strict=True):
        ended = (*text, edits.tokenizer.eos)[:longest]
        row[: len(ended)] = ended
    lengths = np.minimum([len(text) + 1 for text in texts], longest)
    return tokens, np.arange(longest) < lengths[:, None]


def _probabilities(*nats: Float[np.ndarray, "*n parts"]) -> Float[np.ndarray, "*n parts"]:
    """The probabilities with the mean log odds of several readings, whose −log p are `nats`."""
    positive = [np.maximum(of_reading, MIN_ENERGY).astype(np.float64) for of_reading in nats]
    return expit(np.mean([-of_reading - np.log(-np.expm1(-of_reading)) for of_reading in positive], axis=0))
