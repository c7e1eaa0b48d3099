"""Replacing the words of a text that speak most against its controls by those that trigrams expect there.

What a latent is decoded to changes neighbouring words, too, and may lack the one word that would do.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

from jtextdiff.control.resolve import WordReadings
from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.inference.editing.candidates import Tokens
from jtextdiff.metrics.trigram_classifier import TrigramClassifier
from jtextdiff.metrics.trigrams import Trigrams
from jtextdiff.sampling.phrases import WordEnergy, word_terms

MAX_REPLACED = 4
"""Words of a text that are replaced, at most."""

LEAST_AGAINST = 0.25
"""Nats that a word must speak against the controls to be replaced."""

MAX_WEIGHT = 4.0
"""Nats that a word counts for the controls, at most: one that occurs with one value only would always be taken."""

LEAST_PROBABLE = -6.0
"""Log p that a new word must have after the word before it: more improbable ones are seldom the best."""


class _Term(NamedTuple):
    """What words and trigrams say of one control, times its weight."""

    weights: Float[np.ndarray, "v"]  # of words for the control, nats
    wanted: list[Trigrams]  # of the values that the control accepts …
    others: list[Trigrams]  # … and of the others
    factor: float  # of log-likelihoods by trigrams


def replace_words(sources: Sequence[Tokens], readings: WordReadings, tokenizer: Tokenizer) -> list[Tokens]:
    """Returns each text with up to `MAX_REPLACED` of its words replaced, from left to right.

    A new word is one that followed the word before it in texts with the accepted values. Of these, it has the highest
    sum of log p by their trigrams, of all three in which it then occurs, and of its weight for the controls.
    """
    terms, longest = _terms(readings), max(map(len, sources))
    tokens = np.full((len(sources), longest + 4), tokenizer.eos)
    tokens[:, :2] = len(readings.neutral)  # what stands before a text for trigrams
    for row, text in zip(tokens, sources, strict=True):
        row[2 : 2 + len(text)] = text
    lengths = np.asarray([len(text) for text in sources])
    unwritten = [token for token in (tokenizer.eos, tokenizer.unk) if token is not None]
    for rows, places in _places(terms, tokens, lengths) if terms else ():
        _replace(terms, tokens, rows, places, unwritten)
    return [tuple(row[2 : 2 + length].tolist()) for row, length in zip(tokens, lengths, strict=True)]


def _terms(readings: WordReadings) -> list[_Term]:
    """Of the controls that exclude a value."""
    terms = [
        _term(energy, float(weight), readings.trigrams[readings.labels.index(energy.label)])
        for energy, weight in word_terms(readings.energy)
    ]
    return [term for term in terms if term.others]


def _term(energy: WordEnergy, weight: float, classifier: TrigramClassifier) -> _Term:
    of_values = list(zip(classifier.of_values, np.asarray(energy.target), strict=True))
    return _Term(
        weight * float(energy.factor) * np.asarray(energy.token_weights()),
        [of_value for of_value, accepted in of_values if accepted],
        [of_value for of_value, accepted in of_values if not accepted],
        weight * classifier.factor,
    )


def _places(
    terms: list[_Term], tokens: Int[np.ndarray, "n w"], lengths: Int[np.ndarray, "n"]
) -> Iterator[tuple[Int[np.ndarray, "m"], Int[np.ndarray, "m"]]]:
    """Rows of texts and a place of each, from left to right: those of the words that speak most against the controls.

    That is the mean of what the word says and of what the trigrams say in which it occurs.
    """
    threes, num_words = (tokens[:, :-2], tokens[:, 1:-1], tokens[:, 2:]), tokens.shape[1] - 4
    by_word, by_trigram = np.zeros((len(tokens), num_words)), np.zeros((len(tokens), num_words + 2))
    for term in terms:
        by_word += term.weights[tokens[:, 2:-2]]
        by_trigram += term.factor * (_log_p(term.wanted, *threes) - _log_p(term.others, *threes))
    by_trigram = np.where(np.arange(num_words + 2) <= lengths[:, None], by_trigram, 0.0)  # the last ends with EOS
    of_three = np.sum([by_trigram[:, first : first + num_words] for first in range(3)], axis=0)
    against = np.where(np.arange(num_words) < lengths[:, None], -(by_word + of_three) / 2, -np.inf)
    places = np.argsort(-against, axis=-1, kind="stable")[:, :MAX_REPLACED]
    speaks = np.take_along_axis(against, places, axis=-1) > LEAST_AGAINST
    for place in np.sort(np.where(speaks, places, num_words), axis=-1).T:
        rows = np.flatnonzero(place < num_words)
        yield rows, place[rows] + 2


def _replace(
    terms: list[_Term],
    tokens: Int[np.ndarray, "n w"],
    rows: Int[np.ndarray, "m"],
    places: Int[np.ndarray, "m"],
    unwritten: list[int],
) -> None:
    """Replaces one word of each row, unless none but `unwritten` ones are known to follow the word before it."""
    first, second, now, fourth, fifth = (tokens[rows, places + shift] for shift in range(-2, 3))
    found = [of_value.followers(second, LEAST_PROBABLE) for term in terms for of_value in term.wanted]
    of, word = (np.concatenate(parts) for parts in zip(*found, strict=True))
    others = (word != now[of]) & ~np.isin(word, unwritten)
    of, word = of[others], word[others]
    threes = ((first[of], second[of], word), (second[of], word, fourth[of]), (word, fourth[of], fifth[of]))
    score = np.zeros(len(word))
    for term in terms:  # of what follows an EOS, trigrams know nothing: that is the same for all words
        nats = sum(_log_p(term.wanted, *three) for three in threes)
        score += nats / len(terms) + np.minimum(term.weights[word], MAX_WEIGHT)
    order = np.lexsort((score, of))
    best = order[np.flatnonzero(np.diff(of[order], append=-1))]
    tokens[rows[of[best]], places[of[best]]] = word[best]


def _log_p(models: list[Trigrams], *threes: Int[np.ndarray, "*m"]) -> Float[np.ndarray, "*m"]:
    """log p of the third token after the other two, by the mean of several models."""
    return logsumexp([model.log_p(*threes) for model in models], axis=0) - np.log(len(models))
