"""Controls of words: what they learn, and how they guide samplers of tokens."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import csr_matrix
from support.cases import slow_but

from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.methods.autoregressive import Autoregressive
from jtextdiff.methods.cmlm import CMLM
from jtextdiff.methods.components.cross_validation import fit_word_weights, log_p_of_words
from jtextdiff.methods.components.latents import LabelledLatents
from jtextdiff.methods.components.types import Given, TextSpec, nothing_given
from jtextdiff.methods.d3pm import D3PM
from jtextdiff.methods.masked import Masked
from jtextdiff.methods.word_classifier import WordClassifier
from jtextdiff.metrics.calibration import MAX_LOG_FACTOR, balanced_weights, calibrated, calibration_error
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.denoiser_transforms import LogitShaping
from jtextdiff.sampling.energies import Not, Sum, stacked
from jtextdiff.sampling.phrases import WordEnergy, occurring

SPEC = TextSpec(vocab_size=9, mask=9, pad=0, eos=1, unk=2, length=6, length_counts=(0, 0, 0, 1, 1, 1, 1))
TRUNK = Transformer(num_layers=1, width=8, num_heads=2)
MASKED = Masked(text_spec=SPEC, trunk=TRUNK)
METHODS: dict[str, Any] = {
    "masked": MASKED,
    "absorbing": D3PM(text_spec=SPEC, trunk=TRUNK, num_steps=64),
    "cmlm": CMLM(text_spec=SPEC, trunk=TRUNK),
}
WEIGHTS = jnp.asarray(np.random.default_rng(0).normal(size=(9, 3)) * (np.arange(9) >= 3)[:, None], jnp.float32)
TEXTS = jnp.asarray([[3, 4, 3, 1, 0, 0], [5, 6, 7, 8, 5, 1]])
VALID = jnp.asarray([[1, 1, 1, 1, 0, 0], [1] * 6], bool)


def energy(*target: bool) -> WordEnergy:
    return WordEnergy(
        weights=WEIGHTS, bias=jnp.asarray([0.3, 0.0, -0.2]), factor=jnp.float32(2.0), target=jnp.asarray(target)
    )


def by_hand(words: set[int]) -> np.ndarray:
    """log p of each value of a text with these words."""
    logits = 2.0 * np.asarray(WEIGHTS, np.float64)[sorted(words)].sum(0) + np.asarray([0.3, 0.0, -0.2])
    return logits - np.log(np.exp(logits).sum())


def test_an_energy_of_words_counts_each_word_once() -> None:
    expected = [by_hand({3, 4, 1}), by_hand({5, 6, 7, 8, 1})]
    for target, values in (((False, True, False), [1]), ((True, True, False), [0, 1])):
        log_p = [np.log(np.exp(row[values]).sum()) for row in expected]
        np.testing.assert_allclose(energy(*target)(TEXTS, 0.0, VALID), [-p for p in log_p], rtol=1e-4)
        excluded = energy(*target).complement(TEXTS, 0.0, VALID)
        np.testing.assert_allclose(excluded, [-np.log(-np.expm1(p)) for p in log_p], rtol=1e-4)


def test_the_gain_of_a_word_is_the_energy_that_it_saves() -> None:
    """By adding each word to the text; one that occurs already saves nothing."""
    of_target = energy(False, True, False)
    gain = np.asarray(of_target.gain(occurring(TEXTS, VALID, 9)))
    for row, words in enumerate(({3, 4, 1}, {5, 6, 7, 8, 1})):
        for word in range(9):
            saved = by_hand(words | {word} - {0})[1] - by_hand(words)[1]
            assert gain[row, word] == pytest.approx(saved, abs=1e-4), (row, word)
    assert gain[0, 3] == gain[0, 4] == 0.0
    anything = [energy(*target).gain(occurring(TEXTS, VALID, 9)) for target in ((True,) * 3, (False,) * 3)]
    np.testing.assert_allclose(anything, 0.0, atol=1e-6)


def test_a_gain_has_its_digits_where_the_target_is_improbable() -> None:
    """p(target) is e^−120 here, which float32 does not have; a word that never occurs with the target has a bound."""
    weights = jnp.zeros((9, 3)).at[3, 0].set(60.0).at[4, 1].set(2.0).at[5, 1].set(-200.0)
    gain = dataclasses.replace(energy(False, True, False), weights=weights).gain(occurring(TEXTS[:1, :1], None, 9))[0]
    assert gain[4] == pytest.approx(4.0, abs=1e-4)
    assert np.all(np.isfinite(gain)) and gain[5] < -60


def test_a_missing_word_is_drawn_in_proportion_to_the_probability_of_the_target() -> None:
    """p(word | text, target) ∝ p(word | text) p(target | text with it): Bayes' rule, for sums and exclusions, too."""
    noisy = lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(1), leaf.shape)
    with jax.debug_key_reuse(False):  # all parameters are moved by the same noise
        params = jax.jit(lambda key: jax.tree.map(noisy, MASKED.init(key)))(jax.random.key(0))
    tokens = jnp.asarray([[3, 0, 4, 1, 0, 0]])
    given = Given(tokens, jnp.asarray([[True, False, True, True, False, False]]), jnp.asarray([4]))

    @jax.jit
    def log_p_of_missing(guide: Any) -> jax.Array:
        start, predict = MASKED._denoiser(params).start(given, given.length, LogitShaping(), guide)
        return predict(start.tokens, 1.0, None)[0][0, 1]

    control = Sum(
        energies=(energy(False, True, False), Not(energy=energy(True, False, False))), weights=(1.0, jnp.float32(2.0))
    )
    plain, guided = np.asarray(log_p_of_missing(None)), np.asarray(log_p_of_missing(control))
    expected = np.full(9, -np.inf)
    for word in range(3, 9):
        log_p = by_hand({3, 4, 1, word})
        expected[word] = plain[word] + log_p[1] + 2 * np.log(-np.expm1(log_p[0]))
    expected = expected - np.log(np.exp(expected).sum())
    np.testing.assert_allclose(guided[3:], expected[3:], rtol=1e-3, atol=1e-3)
    assert np.max(np.abs(guided[3:] - plain[3:])) > 0.1


@pytest.mark.parametrize("name", slow_but(["masked"], METHODS))
def test_samples_follow_the_target_of_their_row_and_keep_what_is_given(name: str) -> None:
    method, num = METHODS[name], 64
    weights = jnp.zeros((9, 3)).at[4, 0].set(4.0).at[5, 1].set(4.0).at[6, 2].set(4.0)
    shared = {"weights": weights, "bias": jnp.zeros(3), "factor": jnp.float32(1.0)}
    of_values = [WordEnergy(target=jnp.asarray(target), **shared) for target in np.eye(3, dtype=bool)]
    rows = [Sum(energies=(of_value,), weights=(np.float32(3.0),)) for of_value in of_values]
    which = np.arange(num) % 3
    given = nothing_given(num, 6)._replace(
        tokens=jnp.full((num, 6), 7), fixed=jnp.zeros((num, 6), bool).at[:, 0].set(True), length=jnp.full(num, 6)
    )
    sample = jax.jit(method.sample)(
        method.init(jax.random.key(0)), keys_for(jax.random.key(3), jnp.arange(num)), given, energy=stacked(rows, which)
    )
    tokens = np.asarray(sample.tokens)
    assert np.all(tokens[:, 0] == 7) and np.all(tokens[:, 5] == 1)
    assert np.mean([word in row for row, word in zip(tokens, which + 4, strict=True)]) > 0.9


def texts(num: int, seed: int) -> LabelledLatents:
    """Word 3 makes nine of ten texts good, word 4 as many bad; the others say nothing."""
    random = np.random.default_rng(seed)
    occurs = random.uniform(size=(num, 9)) < 0.3
    odds = np.log(9) * (occurs[:, 3].astype(float) - occurs[:, 4])
    value = (random.uniform(size=num) < 1 / (1 + np.exp(-odds))).astype(np.int32)
    nothing = jnp.zeros((num, 0))
    return LabelledLatents(
        nothing[:, None], nothing, nothing.sum(-1), value, occurrences=csr_matrix(occurs.astype(float))
    )


def test_a_control_learns_which_words_speak_for_a_value_and_how_much() -> None:
    method = WordClassifier(text_spec=SPEC, base=MASKED, label="mood", values=("bad", "good"))
    params, metrics = method.fit_latents(jax.random.key(0), {}, texts(2_000, 0))
    report = method.report(params, texts(4_000, 1))
    assert report["valid_calibration_error"] < 0.05 and report["valid_accuracy"] == pytest.approx(
        metrics["accuracy"], abs=0.03
    )
    words = params["words"]
    odds = float(words["factor"]) * np.asarray(words["weights"][:, 1] - words["weights"][:, 0])
    np.testing.assert_allclose(odds[[3, 4]], [np.log(9), -np.log(9)], atol=0.4)
    np.testing.assert_allclose(np.delete(odds, [3, 4]), 0.0, atol=0.4)
    assert params.keys() == method.init(jax.random.key(0)).keys()
    good = method.energy(params, np.asarray([False, True]), {})
    np.testing.assert_allclose(good.token_weights()[3], words["weights"][3, 1] - words["weights"][3, 0], rtol=1e-5)


def test_a_report_judges_texts_as_the_energy_does() -> None:
    """A value is more probable than the words say: the bias counts in both."""
    method = WordClassifier(text_spec=SPEC, base=MASKED, label="mood", values=("bad", "fair", "good"))
    words = {"weights": WEIGHTS, "factor": jnp.float32(2.0), "bias": jnp.asarray([4.0, 0.0, -1.0])}
    tokens, value = jax.random.randint(jax.random.key(6), (60, 3), 3, 9), np.arange(60, dtype=np.int32) % 7 % 3
    nothing, occurrences = jnp.zeros((60, 0)), csr_matrix(np.asarray(occurring(tokens, None, 9)))
    report = method.report(
        {"words": words}, LabelledLatents(nothing[:, None], nothing, nothing.sum(-1), value, occurrences=occurrences)
    )
    p = np.stack([np.exp(-method.energy({"words": words}, row, {})(tokens, 0.0)) for row in np.eye(3, dtype=bool)], -1)
    right, weights = p.argmax(-1) == value, balanced_weights(value)
    assert report["valid_accuracy"] == pytest.approx(np.average(right, weights=weights), rel=1e-5)
    error = calibration_error(p.max(-1), right, weights)
    assert report["valid_calibration_error"] == pytest.approx(error, rel=1e-4)


def test_labels_that_words_decide_have_finite_weights() -> None:
    decided = texts(300, 2)
    assert decided.occurrences is not None
    decided = decided._replace(value=np.asarray(decided.occurrences[:, 3].todense()).ravel().astype(np.int32))
    method = WordClassifier(text_spec=SPEC, base=MASKED, label="mood", values=("bad", "good"))
    params, _ = method.fit_latents(jax.random.key(0), {}, decided)
    assert float(params["words"]["factor"]) < 8.0 and np.all(np.isfinite(params["words"]["bias"]))
    value = np.arange(20) % 2
    factor, _ = calibrated(0.01 * np.eye(2)[value], value)
    assert factor == pytest.approx(np.exp(MAX_LOG_FACTOR), rel=1e-3), "any larger one would have less loss"


def test_a_calibration_does_not_depend_on_how_many_texts_have_a_value() -> None:
    random = np.random.default_rng(4)
    value = np.arange(90, dtype=np.int32) % 3
    logits = random.normal(size=(90, 3)) + np.eye(3)[value]
    more = np.concatenate([np.arange(90), np.tile(np.flatnonzero(value == 2), 9)])  # ten of each text of one value
    factor, bias = calibrated(logits, value)
    other_factor, other_bias = calibrated(logits[more], value[more])
    assert other_factor == pytest.approx(factor, rel=1e-2)
    np.testing.assert_allclose(other_bias - other_bias.mean(), bias - bias.mean(), atol=1e-2)


def test_only_methods_that_sample_masked_words_are_guided_by_words() -> None:
    causal = dataclasses.replace(TRUNK, causal=True)
    uniform = D3PM(text_spec=SPEC, trunk=TRUNK, num_steps=64, kernel="uniform", schedule="cosine_d3pm")
    for base in (Autoregressive(text_spec=SPEC, trunk=causal), uniform):
        with pytest.raises(ValueError, match="does not sample masked words"):
            WordClassifier(base=base)
    with pytest.raises(ValueError, match="weight"):
        WordClassifier(weight=-1.0)


def test_energies_of_different_labels_are_not_stacked() -> None:
    """Their words have different weights, so that their texts run apart; those of one label run together."""
    first, same = (energy(*target) for target in ((True, False, False), (False, True, False)))
    other = dataclasses.replace(first, label="mood")
    assert jax.tree.structure(first) == jax.tree.structure(same) != jax.tree.structure(other)
    assert jax.tree.structure(other.excluded()) == jax.tree.structure(other)


def occurrences_of(texts: list[set[int]]) -> csr_matrix:
    return csr_matrix([[float(word in text) for word in range(6)] for text in texts])


def test_two_labelled_texts_of_each_value_are_enough() -> None:
    texts, value = [{0, 2}, {0, 3}, {1, 2}, {1, 3}], np.asarray([0, 0, 1, 1])
    occurrences = occurrences_of(texts)
    score = lambda rows, weights: occurrences[rows] @ weights
    words, logits = fit_word_weights(occurrences, score, np.eye(2)[value], value >= 0)
    assert np.all(log_p_of_words(words, occurrences).argmax(-1) == value) and logits.shape == (4, 2)


def test_words_of_texts_without_a_label_are_learned_from_their_probabilities() -> None:
    """Word 4 occurs in them alone, where the first value is probable; word 5 where both are alike."""
    texts = [{0, 2}, {0, 3}, {1, 2}, {1, 3}, {2, 4}, {3, 4}, {2, 5}, {3, 5}]
    p = np.asarray([[1, 0], [1, 0], [0, 1], [0, 1], [0.9, 0.1], [0.9, 0.1], [0.5, 0.5], [0.5, 0.5]])
    occurrences, labelled = occurrences_of(texts), np.arange(8) < 4
    score = lambda rows, weights: occurrences[rows] @ weights
    words, logits = fit_word_weights(occurrences, score, p, labelled)
    assert logits.shape == (4, 2)
    factor, shift = calibrated(logits, np.asarray([0, 0, 1, 1]))
    assert factor == pytest.approx(1.0, rel=1e-2) or words["factor"] == pytest.approx(np.exp(MAX_LOG_FACTOR), rel=1e-3)
    np.testing.assert_allclose(shift - shift.mean(), 0.0, atol=0.02)
    for_first = np.asarray(words["weights"])[:, 0]
    assert for_first[0] > for_first[4] > 0.05 and abs(for_first[5]) < 0.05 and for_first[1] < -0.05
    alone, _ = fit_word_weights(occurrences[:4], score, p[:4], labelled[:4])
    np.testing.assert_allclose(np.asarray(alone["weights"])[4:], 0.0, atol=1e-6)
