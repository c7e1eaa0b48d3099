"""Texts are read again by words and trigrams of values, or by the model if a control has none."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.inference.editing.reading import ROWS, _probabilities, _terms, read_again
from jtextdiff.metrics.trigram_classifier import TrigramClassifier, fit_each
from jtextdiff.sampling.energies import Not, Sum, ValueEnergy

PAD, EOS, VOCAB = 0, 1, 12


def test_odds_are_the_geometric_mean_of_those_of_the_readings() -> None:
    latent, words = np.asarray([[0.1, 0.7], [1.0, 1e-30]]), np.asarray([[0.3, 0.7], [0.5, 0.5]])
    odds = lambda p: p / (1 - p)
    mean = np.sqrt(odds(latent[0]) * odds(words[0]))
    p = _probabilities(-np.log(latent), -np.log(words))
    np.testing.assert_allclose(odds(p[0]), mean, rtol=1e-6)
    assert np.all(np.isfinite(p)) and 0.9 < p[1, 0] < 1 and 0 < p[1, 1] < 0.1
    np.testing.assert_allclose(_probabilities(-np.log(words)), words, rtol=1e-6)


def value(columns: tuple[int, int], *target: bool) -> ValueEnergy:
    return ValueEnergy(target=jnp.asarray(target), columns=columns)


@pytest.mark.parametrize("num", [1, ROWS - 1, ROWS + 1])
def test_energies_are_those_of_the_label_s_columns_for_any_number_of_texts(num: int) -> None:
    """Two labels, of three and of two values; the second control excludes a value."""
    logits = np.random.default_rng(0).normal(size=(num, 5))
    p = np.concatenate(
        [np.exp(part) / np.exp(part).sum(-1, keepdims=True) for part in (logits[:, :3], logits[:, 3:])], -1
    )
    energy = Sum(
        energies=(value((0, 3), True, False, True), Not(energy=value((3, 5), True, False))), weights=(1.0, 1.0)
    )
    expected = -np.log(np.stack([p[:, 0] + p[:, 2], p[:, 4]], -1))
    np.testing.assert_allclose(_terms(energy, np.log(p)), expected, rtol=1e-4, atol=1e-6)


class Model(NamedTuple):
    """A method that reads every text as having the control with p = .8, at 7 nats."""

    text_spec: Any = SimpleNamespace(length=6)

    def __hash__(self) -> int:
        return 0

    def reread(self, params: Any, tokens: Any, energy: Any) -> Any:
        return jnp.full((len(tokens), 1), -np.log(0.8)), jnp.full(len(tokens), 7.0)


WEIGHTS = np.zeros((VOCAB, 2))
WEIGHTS[[3, 4]] = [[0.5, -0.5], [-1.0, 1.0]]
WEIGHTS[EOS] = [9.0, -9.0]  # which is no word
WORDS = {"weights": jnp.asarray(WEIGHTS), "factor": jnp.asarray(2.0), "bias": jnp.asarray([0.1, 0.0])}
TRAINED = ([5, 3, 6], [3, 6, 5], [5, 4, 6], [4, 6, 7, 4])
"""The first two have the first value."""


def classifier() -> TrigramClassifier:
    tokens = np.asarray([[*text, EOS, *[PAD] * (5 - len(text))] for text in TRAINED])
    valid = np.arange(6) <= np.asarray([[len(text)] for text in TRAINED])
    return TrigramClassifier(fit_each(tokens, valid, np.asarray([0, 0, 1, 1]), 2, VOCAB), 0.5, np.asarray([0.0, 0.2]))


def edits(trigrams: tuple[TrigramClassifier, ...]) -> Any:
    of_values = Sum(energies=(value((0, 2), False, True),), weights=(1.0,))
    readings = SimpleNamespace(of_values=of_values, words=(WORDS,), trigrams=trigrams, neutral=np.ones(VOCAB))
    conditioning = SimpleNamespace(energy=None, length=0, readings=readings)
    tokenizer = SimpleNamespace(eos=EOS, pad=PAD)
    return SimpleNamespace(method=Model(), params={}, tokenizer=tokenizer, conditioning=conditioning)


def log_odds_of_words(text: tuple[int, ...]) -> float:
    logits = 2.0 * WEIGHTS[sorted(set(text))].sum(0) + [0.1, 0.0]
    return float(logits[1] - logits[0])


def test_words_and_trigrams_are_read_and_fluency_is_that_given_the_value() -> None:
    of_label, texts = classifier(), [(5, 4, 6), (5, 3, 3, 6), (4,)]
    p, nats = read_again(edits((of_label,)), texts)
    for text in texts:
        tokens = np.asarray([[*text, EOS]])
        of_value = [float(trigrams.nll(tokens, tokens > 0)[0]) for trigrams in of_label.of_values]
        log_odds = 0.5 * (of_value[0] - of_value[1]) + 0.2
        expected = (log_odds + log_odds_of_words(text)) / 2
        assert p[text][0] == pytest.approx(1 / (1 + np.exp(-expected)), rel=1e-4)
        # −log p(text | the second value) = −log p(text) − log p(value | text) + log ½
        assert nats[text] == pytest.approx(of_value[1] - np.log(0.5), rel=1e-4)


def test_the_model_reads_texts_where_a_control_has_no_trigrams() -> None:
    p, nats = read_again(edits(()), [(5, 4, 6)])
    expected = (np.log(0.8 / 0.2) + log_odds_of_words((5, 4, 6))) / 2
    assert p[5, 4, 6][0] == pytest.approx(1 / (1 + np.exp(-expected)), rel=1e-4)
    assert nats[5, 4, 6] == pytest.approx(7.0)


def test_a_text_of_all_positions_has_no_eos() -> None:
    full = (5, 4, 6, 5, 4, 6)
    p, _ = read_again(edits((classifier(),)), [full, (5, 4)])
    assert np.all(np.isfinite([p[full], p[5, 4]]))
