"""Latent classifiers: calibrated probabilities, energies, and folds that are left out."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from jtextdiff.methods.components.affine_prior import initial_prior, whitened
from jtextdiff.methods.components.cross_validation import _fit_members, cross_validation
from jtextdiff.methods.components.latent_levels import Levels
from jtextdiff.methods.components.latents import LabelledLatents
from jtextdiff.methods.components.types import TextSpec
from jtextdiff.methods.latent_classifier import LatentClassifier
from jtextdiff.methods.text_vae import TextVAE
from jtextdiff.metrics.calibration import balanced_weights, calibration_error, fold_ids
from jtextdiff.nets.transformer import Transformer

TEXT_SPEC = TextSpec(vocab_size=5, mask=5, eos=1, length=4, length_counts=(0, 1, 1, 1, 1))
SHAPE = Transformer(num_layers=1, width=8, num_heads=2)
METHOD = LatentClassifier(
    base=TextVAE(text_spec=TEXT_SPEC, encoder=SHAPE, decoder=dataclasses.replace(SHAPE, causal=True), latent_dim=4),
    label="mood",
    values=("bad", "good"),
    learns_words=False,
    width=16,
    samples=2,
    max_iterations=20,
    penalties=(0.1, 3.0, 300.0),
)


def world(num: int, seed: int, slope: float = 3.0) -> LabelledLatents:
    """p(good | z) = σ(slope · z_0), of latents that are known exactly."""
    z, lot = np.random.default_rng(seed).normal(size=(num, 4)), np.random.default_rng(seed + 1).uniform(size=num)
    value = (lot < 1 / (1 + np.exp(-slope * z[:, 0]))).astype(np.int32)
    mean = jnp.asarray(z, jnp.float32)
    noise = jax.random.normal(jax.random.key(seed), (num, METHOD.samples, 4))
    return LabelledLatents(mean[:, None] + 1e-3 * noise, mean, jnp.zeros(num), value)


@pytest.fixture(scope="module")
def found() -> tuple[dict, dict]:
    return METHOD.fit_latents(jax.random.key(0), {"law": initial_prior(4)}, world(600, 0))


def test_probabilities_of_new_latents_are_near_the_true_ones(found: tuple[dict, dict]) -> None:
    params, metrics = found
    new = world(4000, 10)
    log_p = np.asarray(METHOD.log_p(params, new.mean))
    true = 1 / (1 + np.exp(-3 * np.asarray(new.mean[:, 0], np.float64)))
    assert np.mean(np.abs(np.exp(log_p[:, 1]) - true)) < 0.05
    np.testing.assert_allclose(np.exp(log_p).sum(-1), 1.0, rtol=1e-5)
    assert metrics["accuracy"] == pytest.approx(np.mean((true > 0.5) == (new.value == 1)), abs=0.06)
    assert calibration_error(np.exp(log_p.max(-1)), log_p.argmax(-1) == new.value, np.ones(4000)) < 0.05


@pytest.mark.slow
def test_the_accuracy_of_a_level_is_that_of_its_part_of_the_latent(found: tuple[dict, dict]) -> None:
    """Only the first number depends on the value, so that the second level is right as often as chance."""
    new = world(2000, 12)
    two_levels = dataclasses.replace(METHOD, base=dataclasses.replace(METHOD.base, levels=Levels(num=2)))
    params = {**found[0], "frozen": {"law": initial_prior(4)}}
    report = two_levels.report(params, new)
    assert report["valid_accuracy_1"] == pytest.approx(report["valid_accuracy"], abs=0.02)
    assert report["valid_accuracy_2"] == pytest.approx(0.5, abs=0.05)
    # A prior that mixes the levels: the same z has other whitened coordinates, of which the classifier knows nothing.
    mixing = jax.tree.map(jnp.copy, params["frozen"]["law"])
    mixing["scale"] = mixing["scale"].at[2, 0].set(5.0)
    moved = new._replace(mean=whitened(mixing, new.mean))
    net = dict(found[0], frozen={"law": mixing})
    alone = two_levels.report(net, moved)
    by_hand = two_levels.log_p(found[0], whitened(mixing, new.mean.at[:, :2].set(0.0)))
    right = np.asarray(by_hand).argmax(-1) == new.value
    assert alone["valid_accuracy_2"] == pytest.approx(np.average(right, weights=balanced_weights(new.value)))
    metrics = {**found[1], **report, "text_accuracy": 0.5}
    assert "each level alone" in two_levels.describe(metrics, 2000)[-1]
    one_level = METHOD.report(found[0], new)
    assert "valid_accuracy_1" not in one_level


@pytest.mark.slow
def test_a_report_does_not_depend_on_how_many_texts_have_a_value(found: tuple[dict, dict]) -> None:
    new, reports = world(500, 12), []
    bad, good = (np.flatnonzero(new.value == value)[:200] for value in (0, 1))
    for rows in map(np.concatenate, ([bad, good, good, good], [bad, bad, bad, good])):
        repeated = jax.tree.map(lambda leaf, rows=rows: leaf[rows], new)
        reports.append(METHOD.report(found[0], repeated))
    assert reports[0] == pytest.approx(reports[1], rel=1e-4)


def test_a_higher_temperature_gives_less_confidence(found: tuple[dict, dict]) -> None:
    params, z = found[0], jax.random.normal(jax.random.key(4), (5, 4))
    confidence = [
        np.abs(np.exp(METHOD.log_p({**params, "temperature": jnp.float32(t)}, z)) - 0.5) for t in (1.0, 2.0, 1e6)
    ]
    assert np.all(confidence[1] < confidence[0])
    np.testing.assert_allclose(confidence[2], 0.0, atol=1e-4)


def test_its_energy_is_its_log_probability_and_values_sum_to_one(found: tuple[dict, dict]) -> None:
    params, z = found[0], jax.random.normal(jax.random.key(3), (5, 4))
    energy = lambda *target: np.exp(-np.asarray(METHOD.energy(params, np.asarray(target), {})(z, 0.0)))
    np.testing.assert_allclose(energy(True, False) + energy(False, True), 1.0, rtol=1e-5)
    np.testing.assert_allclose(energy(True, True), 1.0, rtol=1e-5)


@pytest.mark.slow
def test_random_labels_give_probabilities_near_one_half() -> None:
    """Labels independent of the latents: the strongest penalty is selected."""
    noise = world(200, 5)._replace(value=np.arange(200, dtype=np.int32) % 2)
    params, metrics = METHOD.fit_latents(jax.random.key(0), {"law": initial_prior(4)}, noise)
    assert metrics["penalty"] == 300.0 and metrics["log_loss"] == pytest.approx(np.log(2), abs=0.03)
    log_p = np.asarray(METHOD.log_p(params, noise.mean))
    assert np.max(np.abs(np.exp(log_p) - 0.5)) < 0.15


@pytest.mark.slow
def test_values_weigh_the_same_however_many_texts_have_them() -> None:
    """Latents that say nothing about the value: its probability is one half, and not the share of the texts."""
    np.testing.assert_allclose(balanced_weights(np.asarray([0, 0, 0, 1])), [2 / 3, 2 / 3, 2 / 3, 2.0], rtol=1e-6)
    rare = world(300, 5, slope=0.0)._replace(value=(np.arange(300) % 10 == 0).astype(np.int32))
    params, _ = METHOD.fit_latents(jax.random.key(0), {"law": initial_prior(4)}, rare)
    p = np.exp(np.asarray(METHOD.log_p(params, rare.mean)))[:, 1]
    assert p.mean() == pytest.approx(0.5, abs=0.1)


def test_every_fold_has_the_same_number_of_each_value() -> None:
    value = np.asarray([0] * 7 + [1] * 5 + [2] * 3)
    fold = fold_ids(value, 3)
    counts = np.asarray([[np.sum((value == v) & (fold == s)) for s in range(3)] for v in range(3)])
    assert counts.sum() == 15 and np.all(counts.max(1) - counts.min(1) <= 1)


def test_the_penalty_of_a_member_balances_the_residuals_of_its_texts() -> None:
    """Of a linear member, at the least of Σ weight · −log p + ½ penalty ‖w‖² outside its fold; biases are free."""
    epsilon, value = jax.random.normal(jax.random.key(1), (2, 24, 3)), np.arange(24, dtype=np.int32) % 3 // 2
    initial = {"w": jnp.zeros((2, 3, 2)), "b": jnp.zeros((2, 2))}
    logits = lambda net, z: z @ net["w"] + net["b"]
    nets = _fit_members(logits, 20, cross_validation(epsilon, value, 2), initial, jnp.float32(0.7))
    for member in range(2):
        net = jax.tree.map(lambda leaf, member=member: leaf[member], nets)
        residual = jax.nn.softmax(logits(net, epsilon)) - jax.nn.one_hot(value, 2)
        outside = balanced_weights(value) * (fold_ids(value, 2) != member)
        residual = outside[:, None] * np.asarray(residual, np.float64) / 2  # the mean over two samples
        np.testing.assert_allclose(np.einsum("snz,snc->zc", epsilon, residual), -0.7 * net["w"], atol=2e-3)
        np.testing.assert_allclose(residual.sum((0, 1)), 0.0, atol=2e-3)


@pytest.mark.slow
def test_a_member_is_not_fitted_to_its_fold() -> None:
    """With the labels of one fold flipped, that member is the same, and the others are not."""
    texts = world(90, 7)._replace(value=np.arange(90, dtype=np.int32) % 2)  # flipped, both are as frequent as before
    fold = fold_ids(texts.value, METHOD.ensemble_size)
    flipped = np.where(fold == 1, 1 - texts.value, texts.value).astype(np.int32)
    single = dataclasses.replace(METHOD, penalties=(3.0,))
    nets = []
    for value in (texts.value, flipped):
        # Folds depend on the values: fix them.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("jtextdiff.methods.components.cross_validation.fold_ids", lambda value, num: fold)
            nets.append(
                single.fit_latents(jax.random.key(0), {"law": initial_prior(4)}, texts._replace(value=value))[0]["net"]
            )
    same = jax.tree.map(lambda one, other: np.all(one == other, axis=tuple(range(1, one.ndim))), *nets)
    for leaf in jax.tree.leaves(same):
        assert leaf.tolist() == [False, True, False]


class Words:
    """A base whose latents are log-odds of the words of a text: word 3 or 4 occurs if number 0 or 1 of z is large."""

    latent_dim, levels = 4, Levels()

    def init(self, key: jax.Array) -> dict:
        return {"law": initial_prior(4)}

    def word_params(self, params: dict) -> dict:
        return {"slope": params["slope"]}

    def word_presence(self, params: dict, epsilon: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(params["slope"] * jnp.pad(epsilon[:, :2], ((0, 0), (3, 0))))


BASE = {"law": initial_prior(4), "slope": jnp.asarray(4.0)}
OF_WORDS = dataclasses.replace(METHOD, base=None, reads="words", learns_words=True)
OF_WORDS.__dict__["base"] = Words()
OF_BOTH = dataclasses.replace(METHOD, base=None, reads="both", learns_words=True)
OF_BOTH.__dict__["base"] = Words()


def worded(num: int, seed: int) -> LabelledLatents:
    """A text is good if word 3 occurs in it, in 19 of 20 cases; word 4 says nothing."""
    texts = world(num, seed, slope=0.0)
    lot = np.random.default_rng(seed).uniform(size=(num, 6))
    occurs = lot[:, :5] < np.asarray(Words().word_presence(BASE, texts.mean))
    value = np.where(lot[:, 5] < 0.95, occurs[:, 3], ~occurs[:, 3]).astype(np.int32)
    return texts._replace(value=value, occurrences=csr_matrix(occurs.astype(float)))


@pytest.fixture(scope="module")
def of_words() -> dict:
    params, _ = OF_WORDS.fit_latents(jax.random.key(0), BASE, worded(400, 0))
    return {**params, "base": BASE}


def test_words_that_say_something_have_weights_and_others_next_to_none(of_words: dict) -> None:
    weights = np.asarray(of_words["words"]["weights"])
    np.testing.assert_allclose(weights.sum(-1), 0.0, atol=1e-5)
    assert weights[3, 1] > 0.5 and np.all(np.abs(weights[[0, 1, 2, 4], 1]) < 0.2 * weights[3, 1])
    report = OF_WORDS.report(of_words, worded(2000, 10))
    assert report["valid_accuracy"] > 0.8 and report["valid_calibration_error"] < 0.06


def test_an_energy_of_words_is_that_of_their_expected_presence(of_words: dict) -> None:
    z = jax.random.normal(jax.random.key(3), (5, 4))
    energy = OF_WORDS.energy(of_words, np.asarray([False, True]), {**BASE, "unused": jnp.zeros(3)})
    assert energy.params["base"].keys() == {"slope"}
    presence = 1 / (1 + np.exp(-4.0 * np.asarray(z[:, :2], np.float64)))
    presence = np.concatenate([np.full((5, 3), 0.5), presence], axis=-1)
    words = {name: np.asarray(part) for name, part in of_words["words"].items()}
    logits = words["factor"] * (presence @ words["weights"]) + words["bias"]
    expected = np.log1p(np.exp(logits[:, 0] - logits[:, 1]))
    np.testing.assert_allclose(energy(z, 0.0), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(energy.complement(z, 0.0), -np.log(-np.expm1(-expected)), rtol=1e-4, atol=1e-5)


def test_both_multiply_the_probabilities_of_the_latent_and_of_its_words(of_words: dict) -> None:
    z = jax.random.normal(jax.random.key(3), (5, 4))  # the fit is the same whatever is read
    both, words, latent = (
        np.exp(np.asarray(method.log_p(of_words, z), np.float64)) for method in (OF_BOTH, OF_WORDS, METHOD)
    )
    product = words * latent
    np.testing.assert_allclose(both, product / product.sum(-1, keepdims=True), rtol=1e-4)
