"""Diffusion-LM: the terms of the loss, the likelihood bound, training times, and diagnostics of collapse."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion import elbo
from jtextdiff.diffusion import losses as objectives
from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.lengths import length_nll
from jtextdiff.diffusion.randomness import stratified_on_grid
from jtextdiff.methods.components.types import TextSpec
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.methods.method import HasDiagnostics, Method
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.gaussian_samplers import Sampler

PAD, EOS, VOCAB, LENGTH, DIM = 0, 1, 12, 8, 8
TEXT_SPEC = TextSpec(
    vocab_size=VOCAB, mask=VOCAB, pad=PAD, eos=EOS, length=LENGTH, length_counts=(0, 0, 2, 3, 0, 1, 1, 0, 5)
)
MODERN = DiffusionLM(
    text_spec=TEXT_SPEC,
    trunk=Transformer(num_layers=1, width=16, num_heads=2, expansion=2, time_features=8, max_length=LENGTH),
    embed_dim=DIM,
    num_steps=100,
    bound_points=4,
    sampler=Sampler(steps=4),
)
PAPER = dataclasses.replace(
    MODERN,
    output="vector",
    cross_entropy=0.0,
    mse=1.0,
    rounding=1.0,
    prior=1.0,
    embed_norm=None,
    embeddings="learned",
    schedule="sqrt",
    self_conditioning=0.0,
    per_token_times=False,
    projections="deep",
)
METHODS = {"modern": MODERN, "paper": PAPER, "noisy": dataclasses.replace(PAPER, noisy_x_0=True)}
ROWS = [[2, 3, 4, 1], [5, 1], [6, 7, 8, 9, 10, 11, 2, 1], [3, 4, 5, 6, 1]]


@functools.cache
def compiled(method: DiffusionLM, name: str) -> jax.stages.Wrapped:
    return jax.jit(getattr(method, name), static_argnames="keep_path" if name == "sample" else None)


@functools.cache
def params(method: DiffusionLM) -> dict:
    return method.init(jax.random.key(0))


def batch(rows: list[list[int]] = ROWS, length: int = LENGTH) -> Batch:
    tokens, valid = np.full((len(rows), length), PAD, np.int32), np.zeros((len(rows), length), bool)
    for row, words in enumerate(rows):
        tokens[row, : len(words)], valid[row, : len(words)] = words, True
    return Batch(tokens, valid, np.zeros_like(valid), {})


def loss(method: DiffusionLM, rows: Batch, seed: int = 1, weights: dict | None = None) -> tuple[jax.Array, dict]:
    return compiled(method, "loss")(weights or params(method), jax.random.key(seed), rows)


def test_is_a_method() -> None:
    assert isinstance(MODERN, Method)
    assert isinstance(MODERN, HasDiagnostics)
    assert MODERN.bound.startswith("continuous-time bound, 4 times a text; of ancestral sampling")


@pytest.mark.parametrize("name", METHODS)
def test_loss_twice_with_one_key_is_identical(name: str) -> None:
    one, again, other = (loss(METHODS[name], batch(), seed)[0] for seed in (2, 2, 3))
    np.testing.assert_array_equal(one, again)
    assert float(jnp.max(jnp.abs(one - other))) > 0


@pytest.mark.parametrize("name", METHODS)
def test_padding_changes_no_loss(name: str) -> None:
    rows = batch()
    filled = rows._replace(tokens=np.where(rows.valid, rows.tokens, 9).astype(np.int32))
    np.testing.assert_array_equal(loss(METHODS[name], rows)[0], loss(METHODS[name], filled)[0])


ALL_TERMS = dataclasses.replace(MODERN, mse=0.5, rounding=0.25, prior=2.0)


@pytest.mark.parametrize("method", [*METHODS.values(), ALL_TERMS])
def test_loss_is_the_weighted_sum_of_its_terms(method: DiffusionLM) -> None:
    total, terms = loss(method, batch())
    names = ("mse", "rounding", "prior", "cross_entropy")
    assert set(terms) == {name for name in names if getattr(method, name)}
    expected = sum(getattr(method, term) * value for term, value in terms.items())
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    assert all(value.shape == (len(ROWS),) for value in terms.values())


def hand_terms(noise: np.ndarray | float, method: DiffusionLM) -> tuple[np.ndarray, np.ndarray]:
    """Rounding and prior of the paper, in NumPy, for x_0 = e(w) + noise."""
    rows, weights = batch(), params(method)
    table, bias = (np.asarray(weights[name], np.float64) for name in ("embedding", "rounding_bias"))
    x_0 = table[rows.tokens] + noise
    logits = x_0 @ table.T + bias
    normaliser = np.log(np.sum(np.exp(logits - logits.max(-1, keepdims=True)), -1)) + logits.max(-1)
    nll = normaliser - np.take_along_axis(logits, rows.tokens[..., None], -1)[..., 0]
    final_alpha_bar = np.exp(np.float64(method.process.log_alpha_bar(1.0)))
    by_mean_length = lambda values: np.sum(values * rows.valid, -1) / TEXT_SPEC.mean_length
    return by_mean_length(nll), by_mean_length(final_alpha_bar * np.mean(x_0**2, -1))


def test_paper_terms_by_hand() -> None:
    _, terms = loss(PAPER, batch())
    rounding, prior = hand_terms(0.0, PAPER)
    np.testing.assert_allclose(terms["rounding"], rounding, rtol=1e-4)
    np.testing.assert_allclose(terms["prior"], prior, rtol=1e-3)


def test_the_error_of_a_constant_prediction_by_hand() -> None:
    """A network whose last layer returns one vector c everywhere: mse is the mean of (e(w) − c)² at any x_t."""
    weights = jax.tree.map(lambda leaf: leaf, params(PAPER))
    constant = jnp.linspace(-1.0, 1.0, DIM)
    weights["answer"] = {"kernel": 0.0 * weights["answer"]["kernel"], "bias": constant}
    rows = batch()
    _, terms = loss(PAPER, rows, weights=weights)
    square = np.mean((np.asarray(weights["embedding"])[rows.tokens] - np.asarray(constant)) ** 2, -1)
    np.testing.assert_allclose(terms["mse"], np.sum(square * rows.valid, -1) / TEXT_SPEC.mean_length, rtol=1e-5)


@pytest.mark.parametrize("num_steps", [1, 100])
def test_noisy_x_0_is_the_target_except_at_the_first_time(num_steps: int) -> None:
    """With zero embeddings and a zero prediction, mse is the variance of x_0, 1 − ᾱ(1/T), and 0 at t = 1/T."""
    method = dataclasses.replace(METHODS["noisy"], num_steps=num_steps)
    weights = jax.tree.map(jnp.zeros_like, params(method))
    full = batch([[2] * (LENGTH - 1) + [1]] * 64)
    mse = np.asarray(loss(method, full, weights=weights)[1]["mse"], np.float64)
    if num_steps == 1:
        np.testing.assert_array_equal(mse, np.zeros(64))
        return
    variance = float(1 - method.process.alpha_bar(1 / num_steps)) * LENGTH / TEXT_SPEC.mean_length
    later = mse[mse > 0]
    assert len(later) >= 63  # strata: at most one row of 64 has t = 1/100
    assert abs(later.mean() - variance) <= 5 * later.std() / np.sqrt(len(later))


@pytest.mark.parametrize("embeddings", ["learned", "tuned", "neighbours"])
def test_the_gradient_reaches_every_parameter_in_use(embeddings: str) -> None:
    method = dataclasses.replace(MODERN, embeddings=embeddings)
    gradient = jax.jit(jax.grad(lambda p: method.loss(p, jax.random.key(4), batch())[0].mean()))(params(method))
    unused = {
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)
        if float(jnp.max(jnp.abs(leaf))) == 0.0
    }
    frozen = {"['embedding']"} if embeddings == "neighbours" else set()
    assert unused == {"['rounding_bias']"} | frozen  # the rounding term has weight 0 here


def test_init_from_data_sets_the_embedding_only() -> None:
    tokens, offsets = np.concatenate([np.asarray(row) for row in ROWS]), np.cumsum([0, *map(len, ROWS)])
    initialised = MODERN.init_from_data(params(MODERN), tokens, offsets)
    assert {name for name in initialised if initialised[name] is not params(MODERN)[name]} == {"embedding"}
    assert initialised["embedding"].shape == params(MODERN)["embedding"].shape
    tuned = dataclasses.replace(MODERN, embeddings="tuned")
    np.testing.assert_array_equal(
        tuned.init_from_data(params(tuned), tokens, offsets)["embedding"], initialised["embedding"]
    )
    learned = dataclasses.replace(MODERN, embeddings="learned")
    assert learned.init_from_data(params(learned), tokens, offsets) is params(learned)


@pytest.mark.parametrize("name", ["modern", "paper"])
def test_padding_changes_no_bound(name: str) -> None:
    rows, bound = batch(), compiled(METHODS[name], "nll")
    filled = rows._replace(tokens=np.where(rows.valid, rows.tokens, 9).astype(np.int32))
    one, other = (np.asarray(bound(params(METHODS[name]), jax.random.key(12), b)) for b in (rows, filled))
    assert np.all(np.isfinite(one))
    np.testing.assert_array_equal(one, other)


@functools.cache
def total_probability(method: DiffusionLM, tight: bool) -> tuple[float, float]:
    """Returns Σ exp(−E bound) over all sequences of two of three tokens, and its relative error; p(2) = 5.01/8.02.

    `tight`: embeddings negligible beside the noise, and a prediction of 0, so that every divergence is near 0.
    """
    small = dataclasses.replace(TEXT_SPEC, vocab_size=3, length=2, length_counts=(0, 3, 5))
    method = dataclasses.replace(method, text_spec=small, embed_dim=2, bound_points=8)
    weights = dict(method.init(jax.random.key(13)))
    if tight:
        weights["embedding"] = 0.01 * weights["embedding"]
        weights["answer"] = jax.tree.map(jnp.zeros_like, weights["answer"])
    rows = batch([list(words) for words in itertools.product(range(3), repeat=2)], length=2)
    bound = jax.jit(method.nll)
    draws = np.stack([bound(weights, jax.random.key(seed), rows) for seed in range(100, 148)]).astype(np.float64)
    error = draws.std(axis=0).max() / np.sqrt(len(draws))
    return np.exp(-draws.mean(axis=0)).sum(), error


@pytest.mark.parametrize("name", ["modern", "paper"])
def test_probabilities_from_the_bound_sum_to_at_most_that_of_the_length(name: str) -> None:
    """E[bound] ≥ −log p, and the p of all sequences of one length sum to p(length)."""
    total, error = total_probability(METHODS[name], tight=False)
    assert total <= 5.01 / 8.02 * (1 + 5 * error)


@pytest.mark.parametrize("likelihood", ["bound", "released"])
def test_the_likelihood_of_a_constant_prediction_by_hand(likelihood: str) -> None:
    """A network that returns c everywhere: the divergences add up to ½ (SNR(first) − SNR(1)) ‖x_0 − c‖² per token."""
    method = dataclasses.replace(PAPER, likelihood=likelihood, num_steps=5, bound_points=4, bound_start=0.3)
    weights = dict(params(PAPER))
    constant = jnp.linspace(-1.0, 1.0, DIM)
    weights["answer"] = {"kernel": 0.0 * weights["answer"]["kernel"], "bias": constant}
    rows, process, c = batch(), method.process, np.asarray(constant, np.float64)
    draws = np.stack([compiled(method, "nll")(weights, jax.random.key(seed), rows) for seed in range(400)])
    bar = {t: np.exp(np.float64(process.log_alpha_bar(t))) for t in (0.2, 0.3, 0.4, 1.0)}
    snr = {t: bar[t] / (1 - bar[t]) for t in bar}
    table, bias = (np.asarray(weights[name], np.float64) for name in ("embedding", "rounding_bias"))
    embedding, var_x_0 = table[rows.tokens], (1 - bar[0.2]) * (likelihood == "released")  # var(x_0 | token)
    error = np.sum((embedding - c) ** 2 + var_x_0, -1)
    prior = 0.5 * np.sum(bar[1.0] * (embedding**2 + var_x_0) - bar[1.0] - np.log1p(-bar[1.0]), -1)
    token_nats = 0.5 * (snr[0.2 if likelihood == "released" else 0.3] - snr[1.0]) * error + prior
    if likelihood == "released":
        var = (1 - bar[0.4] / bar[0.2]) * (1 - bar[0.2]) / (1 - bar[0.4])
        token_nats += 0.5 * np.sum((var_x_0 + (embedding - c) ** 2) / var - 1 - np.log(var_x_0 / var), -1)
        noise = np.random.default_rng(0).standard_normal((2000, 1, 1, DIM)) * var_x_0**0.5
        logits = (embedding + noise) @ table.T + bias
    else:
        logits = np.broadcast_to(table @ c + bias, (*embedding.shape[:2], VOCAB))[None]
    chosen = np.take_along_axis(logits, np.broadcast_to(rows.tokens, logits.shape[:-1])[..., None], -1)[..., 0]
    token_nats += np.mean(np.log(np.exp(logits).sum(-1)) - chosen, 0)
    counts = np.asarray(TEXT_SPEC.length_counts) + 0.01 * (np.arange(LENGTH + 1) > 0)
    expected = np.sum(token_nats * rows.valid, -1) - np.log(counts[rows.valid.sum(-1)] / counts.sum())
    spread = draws.std(0) / np.sqrt(len(draws)) + 0.02 * (likelihood == "released")
    assert np.all(np.abs(draws.mean(0) - expected) <= 5 * spread + 1e-3)


def test_the_bound_takes_two_passes_per_estimate() -> None:
    """The default bound, recomputed from predictions. Each is conditioned on x_t and on a first estimate from x_t."""
    weights, rows, key = params(MODERN), batch(), jax.random.key(15)
    denoiser, valid = MODERN._denoiser(weights), jnp.asarray(rows.valid)
    net = denoiser.net
    terms_key, rounding_key = jax.random.split(jax.random.clone(key))

    def predict(x_t: jax.Array, t: jax.Array) -> jax.Array:
        first = jax.nn.softmax(denoiser.predict(x_t, t, None, valid, None)) @ net.embedding_matrix()
        return denoiser.predict(x_t, t, first, valid, None)

    @jax.jit
    def bound() -> jax.Array:
        x_0, t = net.embed(jnp.asarray(rows.tokens)), jnp.full((len(ROWS), 1), MODERN.bound_start)
        estimate = lambda x_t, t: jax.nn.softmax(predict(x_t, t)) @ net.embedding_matrix()
        gap = elbo.continuous_bound(MODERN.process, x_0, estimate, terms_key, MODERN.bound_start, MODERN.bound_points)
        rounding = objectives.cross_entropy(
            predict(MODERN.process.marginal(x_0, t).sample(rounding_key), t), jnp.asarray(rows.tokens)
        )
        length = length_nll(jnp.asarray(TEXT_SPEC.length_counts), valid.sum(-1))
        return objectives.sum_over(gap + rounding, valid) + length

    np.testing.assert_allclose(compiled(MODERN, "nll")(weights, key, rows), bound(), rtol=1e-4)


def test_the_bound_is_tight_for_pure_noise() -> None:
    """Embeddings without information give the exact bound: log 3 per token and the NLL of the length."""
    total, _ = total_probability(PAPER, tight=True)
    assert total == pytest.approx(5.01 / 8.02, rel=0.01)


@pytest.mark.parametrize("per_token_times", [True, False])
def test_training_times_are_uniform_and_per_token_or_per_text(per_token_times: bool) -> None:
    """They lie on 1/T … 1. Two tokens of a text have independent times or share one."""
    method = dataclasses.replace(MODERN, per_token_times=per_token_times, num_steps=10)
    times = np.stack(
        [stratified_on_grid(jax.random.key(seed), method._times_shape((64, LENGTH)), 10) for seed in range(50)]
    )
    assert times.shape == (50, 64, LENGTH if per_token_times else 1)
    counts = np.bincount(np.rint(times * 10).astype(int).ravel(), minlength=11)
    expected = times.size / 10
    assert counts[0] == 0
    assert np.all(np.abs(counts[1:] - expected) <= 5 * np.sqrt(expected))
    if per_token_times:
        pairs = times.reshape(-1, LENGTH)[:, :2]
        assert abs(np.corrcoef(pairs.T)[0, 1]) <= 5 / np.sqrt(len(pairs))


def test_the_network_reads_its_estimate_in_a_share_of_the_training_steps() -> None:
    keys = jax.random.split(jax.random.key(8), 10_000)
    for share in (0.2, 0.9):
        reads = jax.vmap(dataclasses.replace(MODERN, self_conditioning=share).two_passes)(keys)
        assert abs(float(jnp.mean(reads)) - share) <= 5 * np.sqrt(share * (1 - share) / len(keys))


def test_a_loss_that_models_pad_does_not_depend_on_the_bucket() -> None:
    """If PAD is modelled, loss and bound of a short batch equal those of the same texts padded further."""
    method = dataclasses.replace(PAPER, known_length=False)
    rows = [[2, 3, 4, 1], [5, 1]]
    for name in ("loss", "nll"):
        run = compiled(method, name)
        short, long = (run(params(method), jax.random.key(3), batch(rows, length)) for length in (4, LENGTH))
        jax.tree.map(np.testing.assert_array_equal, short, long)


def test_clean_embeddings_enter_the_network_with_unit_coordinates() -> None:
    """Their mean square is 1 at any norm and dimension; embeddings of free norm enter as they are."""
    x_0 = jax.random.normal(jax.random.key(9), (3, 4, DIM))
    x_0 = 3.0 * x_0 / jnp.linalg.norm(x_0, axis=-1, keepdims=True)
    inputs = MODERN.states.network_input(x_0, 0.0)
    np.testing.assert_allclose(jnp.mean(inputs**2, axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(PAPER.states.network_input(x_0, 0.0), x_0)


def test_diagnostics_show_collapse() -> None:
    weights = dict(params(PAPER))
    diagnostics = PAPER.diagnostics(weights)
    table = np.asarray(weights["embedding"], np.float64)
    norms = np.linalg.norm(table, axis=-1)
    gaps = np.linalg.norm(table[:, None] - table[None], axis=-1) + np.diag(np.full(VOCAB, np.inf))
    assert float(diagnostics["embedding_norm"]) == pytest.approx(norms.mean(), rel=1e-5)
    assert float(diagnostics["nearest_word"]) == pytest.approx(gaps.min(axis=-1).mean() / norms.mean(), rel=1e-4)
    pairs = jnp.repeat(weights["embedding"][: VOCAB // 2], 2, axis=0)
    assert float(PAPER.diagnostics(weights | {"embedding": pairs})["nearest_word"]) < 1e-3


@pytest.mark.parametrize(
    "bad",
    [
        {"output": "words"},
        {"parameterization": "noise"},
        {"output": "vector"},
        {"output": "vector", "cross_entropy": 0.0, "sampler": Sampler(temperature=0.5)},
    ],
)
def test_settings_that_contradict_each_other_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match="output"):
        DiffusionLM(**bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"projections": "wide"},
        {"schedule": "root"},
        {"embeddings": "random"},
        {"embed_norm": None},  # embeddings computed from the text have no norm
        {"embed_norm": 0.0},
        {"embed_dim": 0},
        {"bound_start": 0.0},
    ],
)
def test_invalid_settings_are_refused(bad: dict) -> None:
    (name,) = bad
    with pytest.raises(ValueError, match=name):
        DiffusionLM(**bad)


def test_the_process_is_the_one_that_is_named() -> None:
    assert isinstance(MODERN.process, Gaussian)
    other = dataclasses.replace(MODERN, schedule="sqrt")
    assert float(other.process.alpha_bar(0.5)) != pytest.approx(float(MODERN.process.alpha_bar(0.5)), abs=0.05)
