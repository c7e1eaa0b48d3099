"""Replacing the words of a text that speak most against its controls by words of the same kind that speak for them.

What a latent is decoded to changes neighbouring words, too, and may lack the one word that would do.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

from jtextdiff.control.resolve import WordReadings
from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.inference.editing.candidates import Tokens
from jtextdiff.metrics.trigrams import Trigrams
from jtextdiff.sampling.phrases import word_terms

MAX_REPLACED = 5
"""Words of a text that are replaced, at most."""

LEAST_AGAINST = 0.25
"""Nats that a word must speak against the controls to be replaced."""

MAX_WEIGHT = 4.0
"""Nats that a word counts for the controls, at most: one that occurs with one value only would always be taken."""

SIMILARITY_WEIGHT = 14.0
"""Nats for a new word of the same direction as the old one, see `LatentVariableModel.word_vectors`."""

MAX_NEW_WORDS = 1024
"""Words that may be written: those that speak most for the controls."""

NUM_TRIED = 32
"""Of these, so many are tried in a place: the most similar and telling ones."""


class _Term(NamedTuple):
    """What words and trigrams say of one control, times its weight."""

    weights: Float[np.ndarray, "v"]  # of words for the control, nats
    wanted: list[Trigrams]  # of the values that the control accepts


def replace_words(sources: Sequence[Tokens], readings: WordReadings, tokenizer: Tokenizer) -> list[list[Tokens]]:
    """Returns each text with some of its words replaced: all sets of the `MAX_REPLACED` that speak most against.

    A new word is one that speaks for the controls. Of these, it has the highest sum of log p by trigrams of the wanted
    values, of all three in which it occurs if nothing else changes, of its weight for the controls, and of
    `SIMILARITY_WEIGHT` times the cosine of its vector and the old word's.
    """
    terms = _terms(readings)
    weights = np.sum([term.weights for term in terms], axis=0)
    tokens = np.full((len(sources), max(map(len, sources)) + 4), tokenizer.eos)
    tokens[:, :2] = len(readings.neutral)  # what stands before a text for trigrams
    for row, text in zip(tokens, sources, strict=True):
        row[2 : 2 + len(text)] = text
    rows, places = _places(weights, tokens, np.asarray([len(text) for text in sources]))
    speaks_for = np.argsort(-weights, kind="stable")[:MAX_NEW_WORDS]
    unwritten = [token for token in (tokenizer.eos, tokenizer.unk, tokenizer.pad) if token is not None]
    allowed = speaks_for[(weights[speaks_for] > 0) & ~np.isin(speaks_for, unwritten)]
    if not len(allowed):
        return [[] for _ in sources]
    new = _new_words(terms, weights, readings.vectors, tokens, rows, places, allowed)
    return [_with_each_set(source, places[rows == row] - 2, new[rows == row]) for row, source in enumerate(sources)]


def _terms(readings: WordReadings) -> list[_Term]:
    terms = []
    for energy, weight in word_terms(readings.energy):
        classifier = readings.trigrams[readings.labels.index(energy.label)]
        accepted = zip(classifier.of_values, np.asarray(energy.target), strict=True)
        wanted = [of_value for of_value, of_target in accepted if of_target]
        terms.append(_Term(float(weight * energy.factor) * np.asarray(energy.token_weights()), wanted))
    return terms


def _places(
    weights: Float[np.ndarray, "v"], tokens: Int[np.ndarray, "n w"], lengths: Int[np.ndarray, "n"]
) -> tuple[Int[np.ndarray, "m"], Int[np.ndarray, "m"]]:
    """Rows and places of the words that speak most against the controls, of each row from left to right."""
    num_words = tokens.shape[1] - 4
    against = np.where(np.arange(num_words) < lengths[:, None], -weights[tokens[:, 2:-2]], -np.inf)
    most = np.argsort(-against, axis=-1, kind="stable")[:, :MAX_REPLACED]
    most = np.sort(np.where(np.take_along_axis(against, most, axis=-1) > LEAST_AGAINST, most, num_words), axis=-1)
    rows, columns = np.nonzero(most < num_words)
    return rows, most[rows, columns] + 2


def _new_words(
    terms: list[_Term],
    weights: Float[np.ndarray, "v"],
    vectors: Float[np.ndarray, "v d"],
    tokens: Int[np.ndarray, "n w"],
    rows: Int[np.ndarray, "m"],
    places: Int[np.ndarray, "m"],
    allowed: Int[np.ndarray, "k"],
) -> Int[np.ndarray, "m"]:
    """The best of the allowed words in each place."""
    old, of_old = np.unique(tokens[rows, places], return_inverse=True)
    alone = SIMILARITY_WEIGHT * vectors[old] @ vectors[allowed].T + np.minimum(weights[allowed], MAX_WEIGHT)
    tried = np.argsort(-alone, axis=-1, kind="stable")[:, :NUM_TRIED]
    word, score = allowed[tried][of_old], np.take_along_axis(alone, tried, axis=-1)[of_old]
    around = [np.broadcast_to(tokens[rows, places + shift, None], word.shape) for shift in (-2, -1, 1, 2)]
    first, second, fourth, fifth = around
    for three in ((first, second, word), (second, word, fourth), (word, fourth, fifth)):
        score = score + np.mean([_log_p(term.wanted, *three) for term in terms], axis=0)
    return np.take_along_axis(word, score.argmax(axis=-1)[:, None], axis=-1)[:, 0]


def _with_each_set(source: Tokens, places: Int[np.ndarray, "k"], new: Int[np.ndarray, "k"]) -> list[Tokens]:
    """A text with each set of places replaced but the empty one."""
    pairs = list(zip(places.tolist(), new.tolist(), strict=True))
    texts = []
    for size in range(1, len(pairs) + 1):
        for chosen in itertools.combinations(pairs, size):
            text = list(source)
            for place, word in chosen:
                text[place] = word
            texts.append(tuple(text))
    return texts


def _log_p(models: list[Trigrams], *threes: Int[np.ndarray, "*m"]) -> Float[np.ndarray, "*m"]:
    """log p of the third token after the other two, by the mean of several models."""
    return logsumexp([model.log_p(*threes) for model in models], axis=0) - np.log(len(models))
