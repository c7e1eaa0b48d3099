"""Decoding that is guided by words: what is added to the logits, with and without beams."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.methods.components.autoregressive_sampler import DecodingSettings, decode, guided_by_words
from jtextdiff.methods.components.types import TextSpec, nothing_given
from jtextdiff.sampling.energies import Not, Sum
from jtextdiff.sampling.phrases import WordEnergy, WordGuide

PAD, EOS, VOCAB, LENGTH = 0, 1, 8, 5
SPEC = TextSpec(vocab_size=VOCAB, mask=VOCAB, pad=PAD, eos=EOS, length=LENGTH, length_counts=(0, 1, 1, 1, 1, 1))
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(LENGTH, VOCAB))
LOGITS[:-1, EOS] = -9.0
LOGITS = jnp.asarray(LOGITS, jnp.float32)
WEIGHTS = jnp.asarray(RNG.normal(size=(VOCAB, 2)), jnp.float32)
NEUTRAL = jnp.asarray([1, 1, 1, 1, 1, 1, 0.5, 0.25], jnp.float32)
SOURCES = ({2, 6}, {5}, {7})
"""The words of three sources."""
SOURCE = jnp.asarray([[token in words for token in range(VOCAB)] for words in SOURCES], jnp.float32)


def guide(strength: float, hold: float) -> WordGuide:
    energy = WordEnergy(weights=WEIGHTS, bias=jnp.zeros(2), factor=jnp.float32(2.0), target=jnp.asarray([True, False]))
    other = Not(
        energy=WordEnergy(
            weights=WEIGHTS[:, ::-1], bias=jnp.ones(2), factor=jnp.float32(1.0), target=jnp.asarray([True, False])
        )
    )
    both = Sum(energies=(energy, other), weights=(1.0, 0.5))
    return WordGuide(energy=both, neutral=NEUTRAL, source=SOURCE, strength=strength, hold=hold)


def log_p(words: set[int], weights: np.ndarray, bias: float, factor: float) -> float:
    """log p(first value) of a text with these words."""
    logits = factor * weights[sorted(words)].sum(0) + bias
    return float(logits[0] - np.log(np.exp(logits).sum()))


def guided(words: set[int], row: int, position: int, strength: float, hold: float) -> np.ndarray:
    """The logits that follow these words, by hand."""
    weights = np.asarray(WEIGHTS, np.float64)

    def nats(words: set[int]) -> float:
        # The second energy excludes the first value of the reversed weights: it asks for their second.
        return log_p(words, weights, 0.0, 2.0) + 0.5 * log_p(words, weights, 1.0, 1.0)

    logits = np.asarray(LOGITS[position], np.float64).copy()
    for token in range(VOCAB):
        logits[token] += strength * (nats(words | {token}) - nats(words))
        if token not in words:
            logits[token] += hold * float(NEUTRAL[token] * SOURCE[row, token])
    return logits


def next_logits(previous: Any, position: Any, cache: Any) -> tuple[Any, Any]:
    return jnp.broadcast_to(LOGITS[position], (len(previous), VOCAB)), cache


def decoded(settings: DecodingSettings, of: WordGuide | None, seed: int = 0) -> np.ndarray:
    given, keys = nothing_given(3, LENGTH), keys_for(jax.random.key(seed), jnp.arange(3))
    if of is None:
        return np.asarray(decode(settings, SPEC, given, keys, next_logits, ()).tokens)
    cache = jnp.zeros((3 * settings.beams, VOCAB)), ()
    return np.asarray(decode(settings, SPEC, given, keys, guided_by_words(next_logits, of), cache).tokens)


@pytest.mark.parametrize(("strength", "hold"), [(0.0, 1.5), (1.0, 0.0), (3.0, 2.0)])
def test_greedy_texts_take_the_best_guided_token_of_each_position(strength: float, hold: float) -> None:
    texts = decoded(DecodingSettings(name="greedy"), guide(strength, hold))
    for row, text in enumerate(texts):
        words: set[int] = set()
        for position, token in enumerate(text[:-1]):
            logits = guided(words, row, position, strength, hold)
            logits[[PAD]] = -np.inf  # never written
            assert token == logits.argmax(), (row, position)
            words.add(int(token))
    unguided = decoded(DecodingSettings(name="greedy"), None)
    assert np.any(texts != unguided)


def test_a_guide_without_weight_changes_nothing() -> None:
    for settings in (DecodingSettings(name="sample"), DecodingSettings(name="beam", beams=2)):
        np.testing.assert_array_equal(decoded(settings, guide(0.0, 0.0)), decoded(settings, None))


def test_the_last_token_is_drawn_by_bayes_rule() -> None:
    """At a strength of 1, p(token) ∝ p(token | text) p(both controls | all words) for one position."""
    before = jnp.asarray(np.tile(np.arange(VOCAB) == 4, (3, 1)), jnp.float32)
    following = jax.jit(guided_by_words(next_logits, guide(1.0, 0.0)))
    logits, (occurs, _) = following(jnp.asarray([2, 3, 3]), jnp.asarray(LENGTH - 1), (before, ()))
    p = np.asarray(jax.nn.softmax(logits))
    weights = np.asarray(WEIGHTS, np.float64)
    for row, words in enumerate(({2, 4}, {3, 4}, {3, 4})):
        assert set(np.flatnonzero(occurs[row])) == words
        joint = np.asarray(LOGITS[-1], np.float64) + [
            log_p(words | {token}, weights, 0.0, 2.0) + 0.5 * log_p(words | {token}, weights, 1.0, 1.0)
            for token in range(VOCAB)
        ]
        np.testing.assert_allclose(p[row], np.exp(joint) / np.exp(joint).sum(), rtol=1e-4)


def test_beams_follow_the_guide_of_their_own_text() -> None:
    """Held strongly, the words of its own source come first in each text."""
    texts = decoded(DecodingSettings(name="beam", beams=3), guide(0.0, 60.0))
    assert set(texts[0][:2]) == {2, 6} and texts[1][0] == 5 and texts[2][0] == 7


def test_beams_keep_what_is_given_of_their_own_text() -> None:
    """A prefix of the first text, and the lengths of the others."""
    given = nothing_given(3, LENGTH)._replace(length=jnp.asarray([0, 2, 4]))
    given = given._replace(
        tokens=given.tokens.at[0, :2].set(jnp.asarray([5, 3])), fixed=given.fixed.at[0, :2].set(True)
    )
    settings = DecodingSettings(name="beam", beams=3)
    texts = np.asarray(
        decode(settings, SPEC, given, keys_for(jax.random.key(0), jnp.arange(3)), next_logits, ()).tokens
    )
    assert texts[0, :2].tolist() == [5, 3]
    assert np.argmax(texts == EOS, axis=1)[1:].tolist() == [1, 3]
