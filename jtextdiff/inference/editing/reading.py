"""Reading candidates of an edit again: how probable the controls are in a text, and how fluent it is.

Labels are read from the words and the trigrams of a text. If a control has not learned these, the model reads it, to
which many a text is likely whose neighbouring words do not fit: it was trained to write back what it reads.
"""

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.special import expit, log_softmax, logsumexp

from jtextdiff.control.resolve import WordReadings
from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.devices.sharding import mesh_of, num_shards
from jtextdiff.inference.batched import LengthBucket, jitted, map_batches
from jtextdiff.inference.editing.candidates import Tokens
from jtextdiff.inference.editing.types import EditBatch
from jtextdiff.methods.components.cross_validation import log_p_of_words
from jtextdiff.metrics.ngram_classifier import token_occurrences
from jtextdiff.metrics.trigram_classifier import log_likelihoods
from jtextdiff.sampling.energies import MIN_ENERGY, Energy, energy_terms

Probabilities = dict[Tokens, Float[np.ndarray, "parts"]]
"""The probability of each control in each text."""

Nats = dict[Tokens, float]
"""−log p of each text, in nats."""

ROWS = 1024
"""Texts whose energies are computed at once: one program for any number of texts."""


def read_again(edits: EditBatch, texts: list[Tokens]) -> tuple[Probabilities, Nats]:
    """Returns the probability of each control in texts, with the mean log odds of all readings, and their nats."""
    readings, (tokens, valid) = edits.conditioning.readings, _rows(edits, texts)
    by_words = [] if readings is None else [_by_words(readings, edits.tokenizer, tokens, valid)]
    if readings is None or not readings.trigrams:
        by_other, nats = _by_model(edits, tokens, valid)
    else:
        by_other, nats = _by_trigrams(readings, tokens, valid)
    p = _probabilities(by_other, *by_words)
    return dict(zip(texts, p, strict=True)), dict(zip(texts, nats.tolist(), strict=True))


def _by_words(
    readings: WordReadings, tokenizer: Tokenizer, tokens: Int[np.ndarray, "n l"], valid: Bool[np.ndarray, "n l"]
) -> Float[np.ndarray, "n parts"]:
    """−log p of each control by which words occur in texts."""
    occurrences = token_occurrences(tokens, valid & (tokens != tokenizer.eos), len(readings.neutral))
    log_p = [log_p_of_words(of_label, occurrences) for of_label in readings.words]
    return _terms(readings.of_values, np.concatenate(log_p, axis=-1))


def _by_trigrams(
    readings: WordReadings, tokens: Int[np.ndarray, "n l"], valid: Bool[np.ndarray, "n l"]
) -> tuple[Float[np.ndarray, "n parts"], Float[np.ndarray, "n"]]:
    """−log p of each control by the trigrams of values, and −log p of the texts given the controls.

    The latter is Bayes' rule without its constant: p(text) is that of all values together, of several labels their
    geometric mean, and the log-likelihoods are not scaled.
    """
    by_label = [log_likelihoods(of_label.of_values, tokens, valid) for of_label in readings.trigrams]
    calibrated = [of_label.log_p(log_p) for of_label, log_p in zip(readings.trigrams, by_label, strict=True)]
    nats = -np.mean([logsumexp(log_p, axis=-1, b=1 / log_p.shape[-1]) for log_p in by_label], axis=0)
    unscaled = np.concatenate([log_softmax(log_p, axis=-1) for log_p in by_label], axis=-1)
    nats_given_controls = nats + _terms(readings.of_values, unscaled).sum(-1)
    return _terms(readings.of_values, np.concatenate(calibrated, axis=-1)), nats_given_controls


def _terms(energy: Energy, log_p: Float[np.ndarray, "n all"]) -> Float[np.ndarray, "n parts"]:
    """The energies of controls, from log p of the values of their labels."""
    num = -(-len(log_p) // ROWS)
    padded = np.pad(log_p.astype(np.float32), ((0, num * ROWS - len(log_p)), (0, 0)), mode="edge")
    return np.concatenate([np.asarray(_jitted_terms(energy, part)) for part in np.split(padded, num)])[: len(log_p)]


@jax.jit
def _jitted_terms(energy: Energy, log_p: Float[Array, "n all"]) -> Float[Array, "n parts"]:
    return energy_terms(energy, log_p, 0.0)


def _by_model(
    edits: EditBatch, tokens: Int[np.ndarray, "n l"], valid: Bool[np.ndarray, "n l"]
) -> tuple[Float[np.ndarray, "n parts"], Float[np.ndarray, "n"]]:
    """−log p of each control at the latents of texts, and −ELBO."""
    reread, energy = jitted(edits.method, "reread", mesh_of(edits.params)), edits.conditioning.energy

    def read(bucket: LengthBucket, tokens: Int[np.ndarray, "m l"]) -> tuple[Array, Array]:
        return reread(edits.params, tokens, energy=energy)

    longest, shards = edits.method.text_spec.length, num_shards(mesh_of(edits.params))
    return map_batches(read, tokens, valid.sum(-1), longest=longest, shards=shards)


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
