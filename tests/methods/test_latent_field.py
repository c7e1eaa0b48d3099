"""Latent fields: the flow of two normals is exact, a fitted network finds it, and couplings do not change it."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.methods.components.affine_prior import initial_prior
from jtextdiff.methods.components.latents import LabelledLatents
from jtextdiff.methods.components.types import TextSpec
from jtextdiff.methods.latent_field import HELD_OUT_FOLDS, LatentField, Pairs, _fit_net, _loss
from jtextdiff.methods.text_vae import TextVAE
from jtextdiff.metrics.calibration import fold_ids
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.rectified_flow import energy_distance, normal_velocity, regression_loss, transport_order

DIM = 3
SHAPE = Transformer(num_layers=1, width=8, num_heads=2)
BASE = TextVAE(
    text_spec=TextSpec(vocab_size=5, mask=5, eos=1, length=4, length_counts=(0, 1, 1, 1, 1)),
    encoder=SHAPE,
    decoder=dataclasses.replace(SHAPE, causal=True),
    latent_dim=DIM,
)
METHOD = LatentField(
    base=BASE,
    label="mood",
    values=("bad", "good"),
    width=32,
    pairs=4_096,
    steps=500,
    batch=256,
    rate=3e-3,
    ema=0.99,
    coupling="independent",
)
MEAN = np.asarray([[0.0, 0.0, 0.0], [1.5, -1.0, 0.5]])
STD = np.asarray([[1.0, 1.0, 1.0], [0.5, 1.0, 1.6]])


def latents(num: int, seed: int, std: np.ndarray = STD) -> LabelledLatents:
    """Texts whose latents are normal, with the moments of their value."""
    random = np.random.default_rng(seed)
    value = (np.arange(num) % 2).astype(np.int32)
    samples = MEAN[value][:, None] + std[value][:, None] * random.normal(size=(num, 4, DIM))
    return LabelledLatents(
        jnp.asarray(samples, jnp.float32), jnp.asarray(samples[:, 0], jnp.float32), jnp.ones(num), value
    )


def flowed(method: LatentField, params: dict, x: np.ndarray, value: str = "good", steps: int = 50) -> np.ndarray:
    """The ends of the field's paths, by Heun's method."""
    field = method.field(params, value, 1.0)

    def step(x: jax.Array, s: jax.Array) -> tuple[jax.Array, None]:
        at = lambda time: jnp.full(len(x), time)
        slope = field(x, at(s))
        return x + (slope + field(x + slope / steps, at(s + 1 / steps))) / (2 * steps), None

    return np.asarray(
        jax.jit(lambda x: jax.lax.scan(step, x, jnp.arange(steps) / steps)[0])(jnp.asarray(x, jnp.float32))
    )


def test_the_normal_velocity_is_the_conditional_mean_of_the_difference() -> None:
    """By regression on draws: its loss is that of the best affine velocity, and the flow ends in the other normal."""
    random = np.random.default_rng(0)
    x_0, x_1 = (MEAN[v] + STD[v] * random.normal(size=(200_000, DIM)) for v in (0, 1))
    x_s = 0.3 * x_0 + 0.7 * x_1
    design = np.column_stack([x_s, np.ones(len(x_s))])
    fit = design @ np.linalg.lstsq(design, x_1 - x_0, rcond=None)[0]
    moments = (MEAN[0], np.diag(STD[0] ** 2), MEAN[1], np.diag(STD[1] ** 2))
    velocity = normal_velocity(*map(jnp.asarray, moments), jnp.asarray(x_s), jnp.full(len(x_s), 0.7))
    np.testing.assert_allclose(velocity, fit, atol=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("coupling", ["independent", "transport"])
def test_a_fitted_network_carries_one_normal_to_the_other(coupling: str) -> None:
    method = dataclasses.replace(METHOD, coupling=coupling)
    params, losses = method.fit_latents(jax.random.key(0), {"law": initial_prior(DIM)}, latents(4_000, 0))
    assert losses["loss"] < losses["shift_loss"]
    ends = flowed(method, params, MEAN[0] + STD[0] * np.random.default_rng(5).normal(size=(4_000, DIM)))
    np.testing.assert_allclose(ends.mean(0), MEAN[1], atol=0.12)
    np.testing.assert_allclose(ends.std(0), STD[1], rtol=0.12)
    correlation = np.corrcoef(ends.T)[np.triu_indices(DIM, 1)]
    np.testing.assert_allclose(correlation, 0.0, atol=0.1)


@pytest.mark.slow
def test_paired_latents_are_carried_to_their_partners() -> None:
    """The ends are the starts, turned and moved on; from any two latents a field can only learn to move them on."""
    random, turn, value = np.random.default_rng(0), np.roll(np.eye(DIM), 1, axis=0), np.arange(4_000) % 2
    starts = random.normal(size=(len(value), DIM))
    ends = np.where(value[:, None] == 1, starts @ turn.T + MEAN[1], (starts - MEAN[1]) @ turn)
    starts, ends = (jnp.asarray(points, jnp.float32) for points in (starts, ends))
    texts = LabelledLatents(ends[:, None], ends, jnp.ones(len(value)), value, starts[:, None])
    method = dataclasses.replace(METHOD, steps=1_000, width=64)
    x = random.normal(size=(2_000, DIM))

    def distance(coupling: str, texts: LabelledLatents) -> float:
        own = dataclasses.replace(method, coupling=coupling)
        params, _ = own.fit_latents(jax.random.key(0), {"law": initial_prior(DIM)}, texts)
        return float(np.linalg.norm(flowed(own, params, x) - (x @ turn.T + MEAN[1]), axis=-1).mean())

    assert distance("paired", texts) < 0.25 and distance("independent", texts._replace(source_samples=None)) > 1.5


@pytest.mark.slow
def test_equal_covariances_are_carried_by_a_translation() -> None:
    """The rectified flow of two normals that differ in their means alone is the shift, for any coupling."""
    same = np.ones((2, DIM))
    params, losses = METHOD.fit_latents(jax.random.key(0), {"law": initial_prior(DIM)}, latents(4_000, 0, same))
    x = MEAN[0] + np.random.default_rng(5).normal(size=(2_000, DIM))
    moved = flowed(METHOD, params, x) - x
    distance = np.linalg.norm(MEAN[1] - MEAN[0])
    assert np.linalg.norm(moved - (MEAN[1] - MEAN[0]), axis=-1).mean() < 0.15 * distance
    assert np.linalg.norm(moved.mean(0) - (MEAN[1] - MEAN[0])) < 0.05 * distance


@pytest.mark.slow
def test_independent_and_transported_pairs_have_the_same_map() -> None:
    """With equal covariances the optimal transport is a translation, which is the flow of independent pairs, too."""
    texts, x = latents(4_000, 0, np.ones((2, DIM))), np.random.default_rng(5).normal(size=(2_000, DIM))
    ends = []
    for coupling in ("independent", "transport"):
        method = dataclasses.replace(METHOD, coupling=coupling)
        params, _ = method.fit_latents(jax.random.key(0), {"law": initial_prior(DIM)}, texts)
        ends.append(flowed(method, params, x))
    distance = np.linalg.norm(MEAN[1] - MEAN[0])
    assert np.linalg.norm((ends[0] - ends[1]).mean(0)) < 0.05 * distance
    assert np.linalg.norm(ends[0] - ends[1], axis=-1).mean() < 0.15 * distance


def test_a_fresh_network_is_the_shift_of_the_means_and_shift_never_leaves_it() -> None:
    texts = latents(400, 0)
    shift = dataclasses.replace(METHOD, velocity="shift")
    params, losses = shift.fit_latents(jax.random.key(0), {"law": initial_prior(DIM)}, texts)
    x, s = jnp.ones((5, DIM)), jnp.linspace(0, 1, 5)
    np.testing.assert_allclose(METHOD.field(params, "good", 2.0)(x, s), 2 * shift.field(params, "good", 1.0)(x, s))
    np.testing.assert_allclose(shift.field(params, "good", 1.0)(x, s)[0], MEAN[1] - MEAN[0], atol=0.25)
    there, back = (shift.field(params, value, 1.0)(x, s) for value in ("good", "bad"))
    np.testing.assert_allclose(there, -back, atol=1e-5)
    assert losses["loss"] == losses["shift_loss"]
    with pytest.raises(ValueError, match="leads to 'fine'"):
        shift.field(params, "fine", 1.0)


def test_losses_are_those_of_texts_that_are_left_out_of_the_fit() -> None:
    """With the latents of these moved far away, the fit is the same and the losses are not."""
    texts, shift = latents(400, 0), dataclasses.replace(METHOD, velocity="shift")
    far = (fold_ids(texts.value, HELD_OUT_FOLDS) == 0) & (texts.value == 1)
    moved = texts._replace(samples=texts.samples + 100.0 * far[:, None, None])
    (params, losses), (same, others) = (
        shift.fit_latents(jax.random.key(0), {"law": initial_prior(DIM)}, each) for each in (texts, moved)
    )
    jax.tree.map(np.testing.assert_array_equal, params["target"], same["target"])
    assert all(others[name] > 100 * losses[name] for name in ("loss", "shift_loss", "normal_loss"))


def test_values_are_equally_frequent_in_the_fit_and_texts_without_a_value_are_left_out() -> None:
    texts, far = latents(400, 0), 100.0
    rare = np.flatnonzero((texts.value == 0) | (np.arange(400) % 20 == 1))
    with_none = LabelledLatents(
        jnp.concatenate([texts.samples[rare], jnp.full((50, 4, DIM), far)]),
        jnp.zeros((len(rare) + 50, DIM)),
        jnp.ones(len(rare) + 50),
        np.concatenate([texts.value[rare], np.full(50, 2, np.int32)]),
    )
    method = dataclasses.replace(METHOD, values=("bad", "good", "none"), steps=20)
    pairs = method._pairs(with_none, np.ones(len(with_none.value), bool), METHOD.pairs, np.random.default_rng(0))
    counts = np.bincount(np.asarray(pairs.target))
    assert counts[0] == counts[1] == METHOD.pairs
    ends = np.asarray(pairs.target)[:, None] < 2
    assert np.all(np.abs(np.where(ends, pairs.x_0, 0)) < far / 2)


def test_transport_pairs_are_the_cheapest_of_a_block() -> None:
    random = np.random.default_rng(0)
    x_0, x_1 = random.normal(size=(2, 12, 2))
    order = transport_order(x_0, x_1, 4)
    assert sorted(order.tolist()) == list(range(12))
    for start in (0, 4, 8):
        rows = np.arange(start, start + 4)
        assert set(order[rows]) == set(rows)
        cost = lambda partners, rows=rows: np.sum((x_0[rows] - x_1[partners]) ** 2)
        best = min(cost(np.asarray(p)) for p in itertools.permutations(rows))
        assert cost(order[rows]) == pytest.approx(best)


def test_energy_distance_of_shifted_points_is_that_of_the_definition() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(60, 2)), random.normal(size=(80, 2)) + 1.0
    norm = lambda a, b: np.linalg.norm(a[:, None] - b[None], axis=-1)
    expected = 2 * norm(x, y).mean() - norm(x, x).sum() / (60 * 59) - norm(y, y).sum() / (80 * 79)
    assert energy_distance(x, y) == pytest.approx(expected, rel=1e-6)


def test_the_loss_of_the_true_velocity_is_zero() -> None:
    x_0, x_1 = jax.random.normal(jax.random.key(0), (2, 6, DIM))
    assert np.all(regression_loss(lambda x, s: x_1 - x_0, x_0, x_1, jnp.linspace(0, 1, 6)) == 0)


def test_a_field_needs_two_values_and_none_leads_to_texts_without_one() -> None:
    texts = latents(40, 0)
    one_value = dataclasses.replace(METHOD, values=("bad", "none"), steps=20)
    with pytest.raises(ValueError, match="one value only"):
        one_value.fit_latents(jax.random.key(0), {"law": initial_prior(DIM)}, texts)
    with_none = dataclasses.replace(METHOD, values=("bad", "good", "none"))
    with pytest.raises(ValueError, match="leads to 'none'"):
        with_none.field(with_none.init(jax.random.key(0)), "none", 1.0)


def test_few_texts_give_finite_moments() -> None:
    """One latent at an end has a covariance of zero, before it is shrunk."""
    texts = latents(4, 0)
    single = texts._replace(samples=texts.samples[:, :1])
    moments = METHOD._moments(single, np.arange(4) < 2, "target")
    assert np.all(np.isfinite(moments["cov"])) and np.all(np.linalg.eigvalsh(moments["cov"]) > 0)


def test_the_kept_step_has_the_loss_that_is_reported() -> None:
    """Of a rate with which later steps are worse than the first ones."""
    random = np.random.default_rng(7)
    target = jnp.asarray(np.arange(64) % 2, jnp.int32)
    pairs = [Pairs(*(jnp.asarray(random.normal(size=(64, DIM)), jnp.float32) for _ in range(2)), target) for _ in "ab"]
    method = dataclasses.replace(METHOD, width=4, steps=20, batch=8, rate=0.3, ema=0.5)
    moments = {"mean": jnp.zeros((2, DIM)), "cov": jnp.zeros((2, DIM, DIM))}
    params = {"net": method.net.init(jax.random.key(0)), "others": moments, "target": moments}
    net, loss = _fit_net(method, params, *pairs, jax.random.key(1))
    np.testing.assert_allclose(_loss(method, {**params, "net": net}, pairs[1]), loss, rtol=1e-5)
    assert loss <= _loss(method, params, pairs[1])
