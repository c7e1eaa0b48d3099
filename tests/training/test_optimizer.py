"""The optimizer: learning rate schedules, clipping, weight decay, the running mean and gradient accumulation."""

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.data.batches import Batch
from jtextdiff.methods.autoregressive import Autoregressive
from jtextdiff.methods.components.types import TextSpec
from jtextdiff.methods.text_vae import TextVAE
from jtextdiff.nets.transformer import Transformer
from jtextdiff.training.optimizer import Optimizer
from jtextdiff.training.train_step import init_state, train_step, without_dropout

PLAIN = Optimizer(peak=1.0, warmup=10, decay_steps=100, weight_decay=0.0, clip=None)


@pytest.mark.parametrize(
    ("decay", "rates"),
    [
        ("constant", {0: 0.1, 4: 0.5, 9: 1.0, 50: 1.0, 100: 1.0, 999: 1.0}),
        ("linear", {0: 0.1, 9: 0.91, 50: 0.5, 75: 0.25, 100: 0.0, 999: 0.0}),
        ("cosine", {0: 0.1, 50: 0.5, 75: 0.5 * (1 - np.sqrt(0.5)), 100: 0.0, 999: 0.0}),
        ("cooldown", {0: 0.1, 9: 1.0, 75: 1.0, 80: 0.8, 90: 0.4, 100: 0.0, 999: 0.0}),
    ],
)
def test_learning_rate_schedules(decay: str, rates: dict[int, float]) -> None:
    optim = dataclasses.replace(PLAIN, decay=decay)
    found = {step: float(optim.learning_rate(jnp.asarray(step))) for step in rates}
    assert found == pytest.approx(rates, abs=1e-5)


def test_no_warm_up_starts_at_the_peak() -> None:
    assert float(dataclasses.replace(PLAIN, warmup=0).learning_rate(jnp.asarray(0))) == 1.0


def test_rate_and_average_take_a_traced_step() -> None:
    rates = jax.vmap(PLAIN.learning_rate)(jnp.arange(120))
    assert rates.shape == (120,)
    assert float(jnp.min(rates)) == 0.0


def test_the_mean_warms_up() -> None:
    optim = dataclasses.replace(PLAIN, ema=0.9)
    decay = lambda optim, step: float(optim.average({"w": jnp.ones(())}, {"w": jnp.zeros(())}, jnp.asarray(step))["w"])
    assert [decay(optim, step) for step in (0, 8, 10_000)] == pytest.approx([0.1, 0.5, 0.9])
    assert decay(dataclasses.replace(optim, ema_warmup=False), 0) == pytest.approx(0.9)


def test_the_mean_of_constant_parameters_is_constant() -> None:
    params = {"w": jnp.asarray([1.5, -2.0])}
    np.testing.assert_allclose(PLAIN.average(params, params, jnp.asarray(3))["w"], params["w"], rtol=1e-6)


def test_only_matrices_decay() -> None:
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2), "scale": jnp.ones(2)}
    optim = dataclasses.replace(PLAIN, weight_decay=0.5, decay="constant", warmup=1)
    updated, _ = optim.update(jax.tree.map(jnp.zeros_like, params), optim.init(params), params)
    np.testing.assert_allclose(updated["kernel"], 0.5 * np.ones((2, 2)))
    np.testing.assert_array_equal(updated["bias"], params["bias"])
    np.testing.assert_array_equal(updated["scale"], params["scale"])


def test_only_long_gradients_are_clipped() -> None:
    """AdamW's first update does not depend on the gradient's size, so the first moment, (1 − b1) g, is compared."""
    optim = dataclasses.replace(PLAIN, clip=1.0)
    params = {"a": jnp.zeros(2), "b": jnp.zeros((1, 1))}

    def first_moment(gradient: dict) -> np.ndarray:
        _, state = optim.update(gradient, optim.init(params), params)
        leaves = [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)]
        moments = [leaf for name, leaf in leaves if ".mu" in name]
        return np.concatenate([np.ravel(leaf) for leaf in moments]) / (1 - optim.b1)

    long = first_moment({"a": jnp.asarray([6.0, 0.0]), "b": jnp.full((1, 1), 8.0)})
    np.testing.assert_allclose(long, [0.6, 0.0, 0.8], rtol=1e-5)
    short = first_moment({"a": jnp.asarray([0.06, 0.0]), "b": jnp.full((1, 1), 0.08)})
    np.testing.assert_allclose(short, [0.06, 0.0, 0.08], rtol=1e-5)


def test_the_first_update_has_the_size_of_the_learning_rate() -> None:
    params = {"w": jnp.zeros(3)}
    updated, _ = PLAIN.update({"w": jnp.asarray([5.0, -0.01, 1.0])}, PLAIN.init(params), params)
    np.testing.assert_allclose(updated["w"], [-0.1, 0.1, -0.1], rtol=1e-4)


# A training step ---------------------------------------------------------------------------------------------


def squares(params: dict, key: jax.Array, batch: Batch) -> tuple[jax.Array, dict]:
    """A noiseless loss: the squared distance of w to each row's first token."""
    loss = jnp.sum((params["w"] - batch.tokens[:, :1]) ** 2, axis=-1)
    return loss, {"distance": jnp.sqrt(loss)}


def method(loss: Callable) -> SimpleNamespace:
    """Returns a method with two parameters and a loss, without sampling or a likelihood."""
    unused = dict.fromkeys(("text_spec", "sampler", "bound", "prefix_only", "sample", "nll"), lambda *inputs: None)
    return SimpleNamespace(init=lambda key: {"w": jnp.asarray([0.5, -1.0])}, loss=loss, **unused)


METHOD = method(squares)


def rows(*values: int) -> Batch:
    tokens = np.asarray(values, np.int32)[:, None]
    return Batch(tokens, np.ones_like(tokens, bool), np.zeros_like(tokens, bool), {})


def test_microbatches_give_the_gradient_of_the_batch() -> None:
    whole, halves = PLAIN, dataclasses.replace(PLAIN, accumulate=2)
    start = init_state(METHOD, whole, jax.random.key(0))
    (one, metrics), (other, metrics_halves) = (
        train_step(METHOD, optim, start, jax.random.key(1), rows(3, 1, -4, 2)) for optim in (whole, halves)
    )
    assert {name: float(value) for name, value in metrics_halves.items()} == pytest.approx(
        {name: float(value) for name, value in metrics.items()}, rel=1e-5
    )
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_a_step_reports_its_loss_its_terms_and_its_gradient() -> None:
    state = init_state(METHOD, PLAIN, jax.random.key(2))
    after, metrics = train_step(METHOD, PLAIN, state, jax.random.key(3), rows(3, 1))
    w = np.asarray([0.5, -1.0])
    losses = [np.sum((w - x) ** 2) for x in (3, 1)]
    assert float(metrics["loss"]) == pytest.approx(np.mean(losses))
    assert float(metrics["distance"]) == pytest.approx(np.mean(np.sqrt(losses)))
    assert float(metrics["gradient_norm"]) == pytest.approx(np.linalg.norm(2 * (w - 2.0)), rel=1e-5)
    assert int(after["step"]) == 1


def test_the_noise_follows_the_step_number() -> None:
    """Equal steps have equal noise, and other steps have other noise."""
    noisy = method(lambda params, key, batch: (params["w"].sum() * jax.random.normal(key, (len(batch.tokens),)), {}))
    state = init_state(noisy, PLAIN, jax.random.key(4))
    later = state | {"step": jnp.asarray(7, jnp.int32)}
    metrics = [train_step(noisy, PLAIN, s, jax.random.key(5), rows(1, 2))[1]["loss"] for s in (state, state, later)]
    assert float(metrics[0]) == float(metrics[1])
    assert float(metrics[0]) != float(metrics[2])


def test_a_decay_without_its_end_is_refused() -> None:
    """A rate that has decayed after one step would train nothing."""
    assert float(Optimizer(decay="constant").learning_rate(1000)) == pytest.approx(Optimizer().peak)
    with pytest.raises(ValueError, match="decay_steps"):
        Optimizer(decay="cooldown").learning_rate(0)


@pytest.mark.parametrize(
    "bad",
    [
        {"decay": "square"},
        {"ema": 1.0},
        {"accumulate": 0},
        {"peak": 0.0},
        {"clip": 0.0},
        {"warmup": -1},
        {"b2": 1.0},
        {"decay_steps": 0},
    ]
    + [{field: float("nan")} for field in ("ema", "b1", "b2", "peak", "eps", "clip", "weight_decay")],
)
def test_invalid_settings_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Optimizer(**bad)


def test_validation_has_no_dropout() -> None:
    trunk = Transformer(num_layers=1, width=8, num_heads=2, causal=True, dropout=0.5, max_length=4)
    noisy = Autoregressive(text_spec=TextSpec(vocab_size=6, eos=1, length=1, length_counts=(0, 1)), trunk=trunk)
    params = noisy.init(jax.random.key(6))
    losses = {}
    for name, method in {"training": noisy, "validation": without_dropout(noisy)}.items():
        loss = jax.jit(method.loss)
        losses[name] = [float(loss(params, jax.random.key(seed), rows(2, 3))[0].mean()) for seed in (7, 8)]
    assert losses["training"][0] != losses["training"][1]
    assert losses["validation"][0] == losses["validation"][1]
    assert without_dropout(METHOD) is METHOD


def test_validation_hides_no_words_and_no_labels() -> None:
    """Of a text VAE whose decoder does not read the latent, both terms of the loss are then the same for all keys."""
    small = Transformer(num_layers=1, width=8, num_heads=2, max_length=8)
    noisy = TextVAE(
        text_spec=TextSpec(vocab_size=6, mask=6, eos=1, length=4, length_counts=(0, 0, 0, 0, 1)),
        encoder=small,
        decoder=dataclasses.replace(small, causal=True),
        latent_dim=2,
        encoder_word_dropout=0.5,
        decoder_word_dropout=0.5,
        label_dropout=0.5,
        condition="mood",
        values=("bad", "good"),
    )
    valid = without_dropout(noisy)
    assert (valid.encoder_word_dropout, valid.decoder_word_dropout, valid.label_dropout) == (0, 0, 0)
    params = noisy.init(jax.random.key(0))
    for part in ("add", "remember"):
        params["writer"][part] = jax.tree.map(jnp.zeros_like, params["writer"][part])
    tokens = jnp.asarray([[3, 4, 5, 1]] * 8)
    batch: Any = Batch(tokens, jnp.ones((8, 4), bool), jnp.zeros((8, 4), bool), {"mood": jnp.arange(8) % 2})
    spread = {}
    for name, method in {"training": noisy, "validation": valid}.items():
        loss = jax.jit(method.loss)
        terms = [loss(params, jax.random.key(seed), batch)[1] for seed in (7, 8, 9)]
        spread[name] = [np.ptp([of_seed[term] for of_seed in terms], axis=0).max() for term in ("reconstruction", "kl")]
    assert min(spread["training"]) > 1e-4 and max(spread["validation"]) < 1e-6


def test_muon_updates_block_matrices_and_adam_the_rest() -> None:
    """An orthogonal n x n matrix has root mean square 1/√n: scaled to .2 (Liu et al. 2025), its values are .2 √n.

    Five Newton-Schulz steps bring singular values to within .7 and 1.2 (Jordan 2024).
    """
    optim = dataclasses.replace(PLAIN, matrix_optimizer="muon", decay="constant", warmup=1)
    gradient = jax.random.normal(jax.random.key(0), (8, 8))
    params = {"blocks": {"0": {"kernel": gradient, "bias": gradient[0]}}, "answer": {"kernel": gradient}}
    zeros = jax.tree.map(jnp.zeros_like, params)
    updated, _ = optim.update(params, optim.init(zeros), zeros)
    values = np.linalg.svd(np.asarray(updated["blocks"]["0"]["kernel"]), compute_uv=False)
    np.testing.assert_allclose(values, 0.2 * np.sqrt(8), rtol=0.35)
    adam, _ = PLAIN.update(params, PLAIN.init(zeros), zeros)
    by_adam = jax.tree.map(lambda leaf: leaf / PLAIN.learning_rate(0), adam)
    np.testing.assert_allclose(updated["blocks"]["0"]["bias"], by_adam["blocks"]["0"]["bias"], rtol=1e-5)
    np.testing.assert_allclose(updated["answer"]["kernel"], by_adam["answer"]["kernel"], rtol=1e-5)
