"""The `:paper` preset against the authors' model, reimplemented in NumPy: size, initialisation, network and loss."""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion.randomness import stratified_on_grid
from jtextdiff.diffusion.schedules import SCHEDULES
from jtextdiff.methods.components.types import TextSpec
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.nets.transformer import Transformer
from jtextdiff.run.config import build
from jtextdiff.run.config_files import load_config
from jtextdiff.training.optimizer import Optimizer

CONFIG = load_config(f"{Path(__file__).parents[2]}/configs/diffusion_lm.py:paper", [])
LENGTH, T = 64, 4
TEXT_SPEC = TextSpec(vocab_size=821, mask=821, pad=0, eos=1, unk=2, length=LENGTH, length_counts=(0, *[1] * LENGTH))
PAPER = dataclasses.replace(build(CONFIG.method), text_spec=TEXT_SPEC)
SMALL = dataclasses.replace(
    PAPER,
    text_spec=dataclasses.replace(TEXT_SPEC, vocab_size=30, length=9, length_counts=(0, *[1] * 9)),
    trunk=dataclasses.replace(
        PAPER.trunk, num_layers=2, width=24, num_heads=3, time_features=16, max_length=12, dropout=0.0
    ),
    embed_dim=5,
    num_steps=T,
)


def texts(method: DiffusionLM, rows: int) -> Batch:
    shape = (rows, method.text_spec.length)
    tokens = np.random.default_rng(0).integers(3, method.text_spec.vocab_size, shape).astype(np.int32)
    tokens[:, -3:] = method.text_spec.pad
    return Batch(tokens, tokens != method.text_spec.pad, np.zeros(shape, bool), {})


def test_parameter_counts_equal_those_of_the_authors() -> None:
    scanned = dataclasses.replace(PAPER, trunk=dataclasses.replace(PAPER.trunk, scan=True))  # traces one of 12 blocks
    shapes = jax.eval_shape(scanned.init, jax.random.key(0))
    count = lambda name: sum(leaf.size for leaf in jax.tree.leaves(shapes[name]))
    assert sum(map(count, shapes)) == 87_129_749
    assert count("read") + count("lift") == 603_648
    assert count("lower") + count("answer") == 602_896
    assert (count("embedding"), count("rounding_bias")) == (13_136, 821)


NARROW = dataclasses.replace(PAPER, trunk=dataclasses.replace(PAPER.trunk, num_layers=2, width=192))
"""The same model with a seventieth of the parameters."""


@functools.cache
def fresh(method: DiffusionLM) -> dict[str, Any]:
    return jax.jit(method.init)(jax.random.key(0))


@pytest.mark.parametrize("method", [NARROW, pytest.param(PAPER, marks=pytest.mark.slow)], ids=["narrow", "whole"])
def test_the_initial_loss_equals_that_of_the_authors_code(method: DiffusionLM) -> None:
    """The mse of x_0 is slightly above 1, and rounding that of an untrained embedding: 1.6 to 1.9 together."""
    total, terms = jax.jit(method.loss)(fresh(method), jax.random.key(1), texts(method, 4))
    assert 1.6 < float(total.mean()) < 1.9
    assert float(terms["prior"].max()) < 1e-5  # ᾱ(1) is 2e-7, so the term is negligible


def layers(tree: dict[str, Any], name: str = "") -> dict[str, dict[str, Any]]:
    """Returns the dense layers of a tree of parameters by path."""
    if "kernel" in tree:
        return {name: tree}
    return {
        path: layer
        for child, part in tree.items()
        if isinstance(part, dict)
        for path, layer in layers(part, f"{name}/{child}").items()
    }


@pytest.mark.parametrize("method", [NARROW, pytest.param(PAPER, marks=pytest.mark.slow)], ids=["narrow", "whole"])
def test_dense_layers_are_initialised_uniform_and_embeddings_normal(method: DiffusionLM) -> None:
    """Standard deviations are within five standard errors, σ √(1/5n) if uniform and σ √(1/2n) if normal. They are also
    within 10 % (35 % of few numbers), embeddings within 5 % and positions within 1 %."""
    params = fresh(method)
    found = layers(params)
    assert len(found) == method.trunk.num_layers * 6 + 2 + 4
    tolerance = lambda leaf, share, largest: min(5 * (share / leaf.size) ** 0.5, largest)
    for path, layer in found.items():
        bound = layer["kernel"].shape[0] ** -0.5
        for leaf in layer.values():
            assert float(jnp.max(jnp.abs(leaf))) <= bound, path
            assert float(jnp.std(leaf)) == pytest.approx(
                bound / 3**0.5, rel=tolerance(leaf, 0.2, 0.35 if leaf.size < 100 else 0.1)
            ), path
    bias, positions = params["rounding_bias"], params["trunk"]["positions"]["embedding"]
    assert float(jnp.std(bias)) == pytest.approx(0.25 / 3**0.5, rel=tolerance(bias, 0.2, 0.1))
    for table, largest in ((positions, 0.01), (params["embedding"], 0.05)):
        assert float(jnp.std(table)) == pytest.approx(1.0, rel=tolerance(table, 0.5, largest))


def test_settings_that_no_count_shows() -> None:
    assert (PAPER.trunk.dropout, PAPER.sampler.clamp, PAPER.sampler.name) == (0.1, 1.0, "ancestral")
    assert (PAPER.num_steps, PAPER.per_token_times, PAPER.noisy_x_0, PAPER.known_length) == (2000, False, True, False)
    assert (CONFIG.text.tokenizer, CONFIG.text.buckets) == ("words:11", 1)  # words with more than ten occurrences


def test_optimizer_settings_equal_the_papers() -> None:
    optim = dataclasses.replace(build(CONFIG.optim), decay_steps=CONFIG.num_steps)
    assert isinstance(optim, Optimizer)
    assert (CONFIG.num_steps, CONFIG.batch_size, CONFIG.text.length) == (200_000, 64, 64)
    for step in (0, 50_000, 199_999):
        assert float(optim.learning_rate(step)) == pytest.approx(1e-4 * (1 - step / 200_000), rel=1e-5)
    assert (optim.b1, optim.b2, optim.eps, optim.weight_decay, optim.clip) == (0.9, 0.999, 1e-8, 0.0, None)
    ema = optim.average({"w": jnp.ones(2)}, {"w": jnp.zeros(2)}, jnp.asarray(0))
    np.testing.assert_allclose(ema["w"], 0.9999, rtol=1e-6)


def test_network_times_in_training_and_in_the_authors_decoding() -> None:
    """The network's input for t = (i + 1)/T is 1000 i / T: i / 2 in training, and 5 i if the schedule is rebuilt at
    T = 200, where training has 5 i + 4.5 for the same noise."""
    rebuilt = dataclasses.replace(PAPER, num_steps=200)
    network_time = lambda method, t: 1000 * (t - method._first_time)
    for i in (0, 1, 50, 199):
        assert network_time(PAPER, (i + 1) / 2000) == pytest.approx(i / 2, abs=1e-9)
        assert network_time(rebuilt, (i + 1) / 200) == pytest.approx(5 * i, abs=1e-9)
        assert network_time(PAPER, (i + 1) / 200) == pytest.approx(5 * i + 4.5, abs=1e-9)
        if i < 199:  # the last step is clipped differently
            alpha_bars = [float(method.process.alpha_bar((i + 1) / 200)) for method in (PAPER, rebuilt)]
            assert alpha_bars[0] == pytest.approx(alpha_bars[1], rel=1e-5)


# The authors' model in NumPy and float64.


def authors_alpha_bar(num_steps: int) -> np.ndarray:
    """Returns ᾱ by the authors' recursion: β from the ratio of g at both ends of a step, at most .999."""
    g = lambda u: 1 - np.sqrt(u + 1e-4)
    u = np.arange(num_steps)
    return np.cumprod(1 - np.minimum(1 - g((u + 1) / num_steps) / g(u / num_steps), 0.999))


def linear(x: np.ndarray, layer: dict) -> np.ndarray:
    return x @ layer["kernel"] + layer["bias"]


def norm(x: np.ndarray, layer: dict) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12) * layer["scale"] + layer["bias"]


def softmax(x: np.ndarray) -> np.ndarray:
    exps = np.exp(x - x.max(-1, keepdims=True))
    return exps / exps.sum(-1, keepdims=True)


def attend(x: np.ndarray, layer: dict, num_heads: int) -> np.ndarray:
    mixed = []
    width = x.shape[-1] // num_heads
    query, key, value = (linear(x, layer[name]) for name in ("query", "key", "value"))
    for head in range(num_heads):
        part = slice(head * width, (head + 1) * width)
        weights = softmax(query[..., part] @ key[..., part].swapaxes(-1, -2) / math.sqrt(width))
        mixed.append(weights @ value[..., part])
    return linear(np.concatenate(mixed, -1), layer["out"])


def network(x_t: np.ndarray, time: np.ndarray, p: dict, shape: Transformer) -> np.ndarray:
    """BERT between an input and an output MLP: post-norm blocks, no mask, position and time added to the input."""
    gelu = np.vectorize(lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2))))
    trunk = p["trunk"]
    half = shape.time_features // 2
    angles = time[:, None] * np.exp(-math.log(1e4) * np.arange(half) / half)
    features = linear(np.concatenate([np.cos(angles), np.sin(angles)], -1), trunk["time"]["up"])
    time_embedding = linear(features / (1 + np.exp(-features)), trunk["time"]["down"])
    x = linear(np.tanh(linear(x_t, p["read"])), p["lift"])
    x = norm(x + trunk["positions"]["embedding"][: x.shape[1]] + time_embedding[:, None], trunk["norm"])
    for index in range(shape.num_layers):
        block = trunk["blocks"][str(index)]
        x = norm(x + attend(x, block["attention"], shape.num_heads), block["norm_attention"])
        x = norm(x + linear(gelu(linear(x, block["mlp"]["up"])), block["mlp"]["down"]), block["norm_mlp"])
    return linear(np.tanh(linear(x, p["lower"])), p["answer"])


def authors_terms(p: dict, tokens: np.ndarray, i: np.ndarray, eta: np.ndarray, eps: np.ndarray) -> dict[str, Any]:
    """Returns the three terms for step i (from 0) of each text, with noise `eta` on the embeddings and `eps` on x_0."""
    alpha_bars, embedding = authors_alpha_bar(T), p["embedding"][tokens]
    x_0 = embedding + math.sqrt(1 - alpha_bars[0]) * eta
    alpha_bar = alpha_bars[i][:, None, None]
    prediction = network(np.sqrt(alpha_bar) * x_0 + np.sqrt(1 - alpha_bar) * eps, i * 1000.0 / T, p, SMALL.trunk)
    target = np.where((i == 0)[:, None, None], embedding, x_0)
    probabilities = softmax(x_0 @ p["embedding"].T + p["rounding_bias"])
    return {
        "mse": ((target - prediction) ** 2).mean((1, 2)),
        "rounding": -np.log(np.take_along_axis(probabilities, tokens[..., None], -1)[..., 0]).mean(1),
        "prior": (alpha_bars[-1] * x_0**2).mean((1, 2)),
    }


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """A batch, the method's loss on it, and the random draws of the loss."""
    rows, key = texts(SMALL, 8), jax.random.key(5)
    params = SMALL.init(jax.random.key(4))
    rng = np.random.default_rng(1)  # so that all norms differ
    params = jax.tree.map(lambda leaf: leaf + 0.3 * rng.standard_normal(leaf.shape).astype(np.float32), params)
    t_key, eta_key, eps_key = (jax.random.fold_in(jax.random.clone(key), purpose) for purpose in range(3))
    i = (
        np.rint(np.asarray(stratified_on_grid(t_key, SMALL._times_shape(rows.tokens.shape), T))[:, 0] * T).astype(int)
        - 1
    )
    shape = (*rows.tokens.shape, SMALL.embed_dim)
    total, terms = jax.jit(SMALL.loss)(params, jax.random.clone(key), rows)
    draws = (np.asarray(jax.random.normal(k, shape), np.float64) for k in (eta_key, eps_key))
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    return {"rows": rows, "params": params, "i": i, "total": total, "terms": terms, "draws": tuple(draws)}


@pytest.mark.parametrize("term", ["mse", "rounding", "prior"])
def test_each_term_equals_that_of_the_authors_code(results: dict[str, Any], term: str) -> None:
    assert set(results["i"]) == set(range(T))  # the first step, with its own target, is among them
    expected = authors_terms(results["params"], results["rows"].tokens, results["i"], *results["draws"])
    np.testing.assert_allclose(results["terms"][term], expected[term], rtol=2e-4)


def test_the_total_is_the_sum_of_the_terms(results: dict[str, Any]) -> None:
    expected = authors_terms(results["params"], results["rows"].tokens, results["i"], *results["draws"])
    np.testing.assert_allclose(results["total"], sum(expected.values()), rtol=2e-4)


@pytest.mark.parametrize("num_steps", [200, 2000])
def test_the_schedule_equals_the_authors_recursion(num_steps: int) -> None:
    t = (np.arange(num_steps) + 1) / num_steps
    found = np.asarray(SCHEDULES["sqrt"](num_steps)(jnp.asarray(t)), np.float64)
    np.testing.assert_allclose(np.exp(found), authors_alpha_bar(num_steps), rtol=2e-3)
