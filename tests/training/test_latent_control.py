"""Controls of latents know what can be known, say how sure they are, and look at no label that they were not given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion.distributions import Normal
from jtextdiff.methods.components.latents import fresh_law
from jtextdiff.methods.components.types import Language
from jtextdiff.methods.latent_classifier import LatentClassifier
from jtextdiff.methods.text_vae import TextVAE
from jtextdiff.training.latent_control import Known, calibration_error, fitted, shares

LANGUAGE = Language(vocab_size=5, mask=5, eos=1, length=4, length_counts=(0, 1, 1, 1, 1))
METHOD = LatentClassifier(
    base=TextVAE(language=LANGUAGE, latent_dim=4),
    label="mood",
    values=("bad", "good"),
    rounds=60,
    penalties=(0.1, 3.0, 300.0),
)


def world(num: int, seed: int, slope: float = 3.0) -> Known:
    """p(good | z) = σ(slope · z_0), of latents that are known exactly."""
    z, lot = np.random.default_rng(seed).normal(size=(num, 4)), np.random.default_rng(seed + 1).uniform(size=num)
    value = (lot < 1 / (1 + np.exp(-slope * z[:, 0]))).astype(np.int32)
    return Known(Normal(mean=jnp.asarray(z, jnp.float32), std=jnp.full(z.shape, 1e-3)), value)


@pytest.fixture(scope="module")
def found() -> tuple[dict, dict]:
    return fitted(METHOD, jax.random.key(0), fresh_law(4), world(600, 0))


def test_it_comes_near_what_is_true_of_latents_never_seen(found: tuple[dict, dict]) -> None:
    params, told = found
    new = world(4000, 10)
    log_p = np.asarray(METHOD.log_p(params, new.law.mean))
    true = 1 / (1 + np.exp(-3 * np.asarray(new.law.mean[:, 0], np.float64)))
    assert np.mean(np.abs(np.exp(log_p[:, 1]) - true)) < 0.05
    np.testing.assert_allclose(np.exp(log_p).sum(-1), 1.0, rtol=1e-5)
    assert told["accuracy"] == pytest.approx(np.mean((true > 0.5) == (new.value == 1)), abs=0.06)
    assert calibration_error(np.exp(log_p.max(-1)), log_p.argmax(-1) == new.value) < 0.05


def test_the_hotter_the_less_sure(found: tuple[dict, dict]) -> None:
    params, z = found[0], jax.random.normal(jax.random.key(4), (5, 4))
    sure = [np.abs(np.exp(METHOD.log_p({**params, "temperature": jnp.float32(t)}, z)) - 0.5) for t in (1.0, 2.0, 1e6)]
    assert np.all(sure[1] < sure[0])
    np.testing.assert_allclose(sure[2], 0.0, atol=1e-4)


def test_its_energy_is_its_log_probability_and_values_sum_to_one(found: tuple[dict, dict]) -> None:
    params, z = found[0], jax.random.normal(jax.random.key(3), (5, 4))
    energy = lambda *target: np.exp(-np.asarray(METHOD.wanting(params, np.asarray(target))(z, 0.0)))
    np.testing.assert_allclose(energy(True, False) + energy(False, True), 1.0, rtol=1e-5)
    np.testing.assert_allclose(energy(True, True), 1.0, rtol=1e-5)


def test_what_cannot_be_told_is_not_believed() -> None:
    """Labels that have nothing to do with latents: the strongest penalty, and probabilities near one half."""
    noise = world(200, 5)._replace(value=np.arange(200, dtype=np.int32) % 2)
    params, told = fitted(METHOD, jax.random.key(0), fresh_law(4), noise)
    assert told["penalty"] == 300.0 and told["log_loss"] == pytest.approx(np.log(2), abs=0.03)
    log_p = np.asarray(METHOD.log_p(params, noise.law.mean))
    assert np.max(np.abs(np.exp(log_p) - 0.5)) < 0.15


def test_every_share_has_as_many_of_each_value() -> None:
    value = np.asarray([0] * 7 + [1] * 5 + [2] * 3)
    share = shares(value, 3)
    counts = np.asarray([[np.sum((value == v) & (share == s)) for s in range(3)] for v in range(3)])
    assert counts.sum() == 15 and np.all(counts.max(1) - counts.min(1) <= 1)


def test_a_member_has_not_seen_its_share() -> None:
    """With the labels of one share turned over, that member is the same, and the others are not."""
    texts = world(90, 7)
    share = shares(texts.value, METHOD.members)
    turned = np.where(share == 1, 1 - texts.value, texts.value).astype(np.int32)
    single = LatentClassifier(base=METHOD.base, label="mood", values=METHOD.values, rounds=20, penalties=(3.0,))
    nets = []
    for value in (texts.value, turned):
        # The shares are of the values: they are kept as they were by fitting with the same ones.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("jtextdiff.training.latent_control.shares", lambda value, num: share)
            nets.append(fitted(single, jax.random.key(0), fresh_law(4), texts._replace(value=value))[0]["net"])
    same = jax.tree.map(lambda one, other: np.all(one == other, axis=tuple(range(1, one.ndim))), *nets)
    for leaf in jax.tree.leaves(same):
        assert leaf.tolist() == [False, True, False]


def test_how_sure_against_how_often_right() -> None:
    sure = np.asarray([0.95] * 100 + [0.55] * 100)
    assert calibration_error(sure, np.asarray([1] * 95 + [0] * 5 + [1] * 55 + [0] * 45)) == pytest.approx(0, abs=1e-9)
    assert calibration_error(sure, np.ones(200)) == pytest.approx((0.05 + 0.45) / 2)
