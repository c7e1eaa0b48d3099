"""Diffusion-LM: its terms, its bound and its samples keep their promises, at the smallest size that can break them."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.core.gaussian import Gaussian
from jtextdiff.core.randomness import keys_for
from jtextdiff.core.samplers import Sampler
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.methods.method import Given, Language, Method, Monitored, nothing_given
from jtextdiff.nets.transformer import Transformer
from jtextdiff.text.batches import Batch

PAD, EOS, VOCAB, LENGTH, DIM = 0, 1, 12, 8, 8
LANGUAGE = Language(
    vocab_size=VOCAB, mask=VOCAB, pad=PAD, eos=EOS, length=LENGTH, length_counts=(0, 0, 2, 3, 0, 1, 1, 0, 5)
)
MODERN = DiffusionLM(
    language=LANGUAGE,
    trunk=Transformer(num_layers=1, width=16, num_heads=2, expansion=2, time_features=8, max_length=LENGTH),
    embed_dim=DIM,
    num_steps=100,
    bound_steps=4,
    sampler=Sampler(steps=4),
)
PAPER = dataclasses.replace(
    MODERN, answers="vector", cross_entropy=0.0, mse=1.0, rounding=1.0, prior=1.0, embed_norm=None, self_conditioning=0.0
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


def keys(seed: int, num: int) -> jax.Array:
    return keys_for(jax.random.key(seed), jnp.arange(num))


def sample(method: DiffusionLM, seed: int, given: Given, **options: bool) -> np.ndarray:
    return np.asarray(compiled(method, "sample")(params(method), keys(seed, len(given.tokens)), given, **options).tokens)


def test_is_a_method() -> None:
    assert isinstance(MODERN, Method)
    assert isinstance(MODERN, Monitored)
    assert "4-step" in MODERN.bound


# Loss -----------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", METHODS)
def test_loss_is_the_weighted_sum_of_its_terms(name: str) -> None:
    total, terms = loss(METHODS[name], batch())
    assert set(terms) == {"mse", "rounding", "prior"} | ({"cross_entropy"} if name == "modern" else set())
    expected = sum(getattr(METHODS[name], term) * value for term, value in terms.items())
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
    left = np.exp(np.float64(method.process.log_alpha_bar(1.0)))
    mean = lambda values: np.sum(values * rows.valid, -1) / rows.valid.sum(-1)
    return mean(nll), mean(left * np.mean(x_0**2, -1))


def test_paper_terms_by_hand() -> None:
    _, terms = loss(PAPER, batch())
    rounding, prior = hand_terms(0.0, PAPER)
    np.testing.assert_allclose(terms["rounding"], rounding, rtol=1e-4)
    np.testing.assert_allclose(terms["prior"], prior, rtol=1e-3)


def test_the_error_of_a_constant_answer_by_hand() -> None:
    """A network whose last layer says one vector c everywhere: mse is the mean of (e(w) − c)², whatever x_t is."""
    weights = jax.tree.map(lambda leaf: leaf, params(PAPER))
    constant = jnp.linspace(-1.0, 1.0, DIM)
    weights["answer"] = {"kernel": 0.0 * weights["answer"]["kernel"], "bias": constant}
    rows = batch()
    _, terms = loss(PAPER, rows, weights=weights)
    square = np.mean((np.asarray(weights["embedding"])[rows.tokens] - np.asarray(constant)) ** 2, -1)
    np.testing.assert_allclose(terms["mse"], np.sum(square * rows.valid, -1) / rows.valid.sum(-1), rtol=1e-5)


@pytest.mark.parametrize("num_steps", [1, 100])
def test_noisy_x_0_is_the_target_but_at_the_first_time(num_steps: int) -> None:
    """With zero vectors and a zero answer, mse is the variance of x_0: 1 − ᾱ(1/T), and nothing at t = 1/T."""
    method = dataclasses.replace(METHODS["noisy"], num_steps=num_steps)
    weights = jax.tree.map(jnp.zeros_like, params(method))
    full = batch([[2] * (LENGTH - 1) + [1]] * 64)
    mse = np.asarray(loss(method, full, weights=weights)[1]["mse"], np.float64)
    if num_steps == 1:
        np.testing.assert_array_equal(mse, np.zeros(64))
        return
    variance = float(1 - method.process.alpha_bar(1 / num_steps))
    later = mse[mse > 0]
    assert len(later) >= 63  # strata: at most one row of 64 has t = 1/100
    assert abs(later.mean() - variance) <= 5 * later.std() / np.sqrt(len(later))


def test_unit_inputs_see_the_process_the_paper_defines() -> None:
    """The gradient reaches every parameter that the setting uses."""
    gradient = jax.jit(jax.grad(lambda p: MODERN.loss(p, jax.random.key(4), batch())[0].mean()))(params(MODERN))
    silent = {
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)
        if float(jnp.max(jnp.abs(leaf))) == 0.0
    }
    assert silent == {"['rounding_bias']"}  # the rounding term has weight 0 here


# Sampling -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answers", ["modern", "paper"])
@pytest.mark.parametrize("name", ["ancestral", "ddim", "dpm_solver"])
def test_fixed_words_stay_and_pad_follows_the_length(name: str, answers: str) -> None:
    method = dataclasses.replace(METHODS[answers], sampler=Sampler(name=name, steps=3))
    tokens = jnp.full((4, LENGTH), 7).at[:, 2].set(9)
    fixed = jnp.zeros((4, LENGTH), bool).at[:, 1:3].set(True)
    found = sample(method, 5, Given(tokens, fixed, jnp.asarray([3, 5, 8, 4])))
    np.testing.assert_array_equal(found[:, 1:3], [[7, 9]] * 4)
    for row, length in enumerate([3, 5, 8, 4]):
        assert np.all(found[row, length:] == PAD)
    assert found.min() >= 0
    assert found.max() < VOCAB


def test_lengths_are_drawn_from_the_fitted_law() -> None:
    """PAD is the tail: only lengths seen in training are likely. A fixed PAD tells where a free word is not."""
    num = 512
    weights = {**params(MODERN), "rounding_bias": params(MODERN)["rounding_bias"]}
    found = compiled(MODERN, "sample")(weights, keys(6, num), nothing_given(num, LENGTH)).tokens
    ends = LENGTH - np.argmax(np.asarray(found)[:, ::-1] != PAD, axis=1)
    counts = np.asarray(LANGUAGE.length_counts) + 0.01 * (np.arange(LENGTH + 1) > 0)
    # A text may itself end with PAD's vector: ends are at most the lengths, so cumulative shares only rise.
    shares = np.cumsum(counts / counts.sum())
    for length in range(1, LENGTH):
        below = np.mean(ends <= length)
        assert below >= shares[length] - 5 * np.sqrt(shares[length] * (1 - shares[length]) / num)


def test_a_sample_depends_on_its_own_key_and_not_on_the_batch() -> None:
    eight = sample(MODERN, 7, nothing_given(8, LENGTH))
    alone = compiled(MODERN, "sample")(params(MODERN), keys(7, 8)[3:4], nothing_given(1, LENGTH)).tokens
    np.testing.assert_array_equal(alone[0], eight[3])
    other = nothing_given(8, LENGTH)._replace(length=jnp.asarray([0, 0, 0, 0, 2, 3, 5, 8]))
    np.testing.assert_array_equal(sample(MODERN, 7, other)[:4], eight[:4])


def test_the_path_is_kept_only_when_asked_for() -> None:
    run = compiled(MODERN, "sample")
    plain = run(params(MODERN), keys(8, 8), nothing_given(8, LENGTH))
    kept = run(params(MODERN), keys(8, 8), nothing_given(8, LENGTH), keep_path=True)
    assert plain.path is None
    assert kept.path.shape == (4, 8, LENGTH)
    np.testing.assert_array_equal(kept.path[-1], kept.tokens)
    np.testing.assert_array_equal(kept.tokens, plain.tokens)


def test_one_compilation_serves_all_keys_and_lengths() -> None:
    traced = []

    def counted(weights: dict, rows: jax.Array, given: Given) -> jax.Array:
        traced.append(1)
        return MODERN.sample(weights, rows, given).tokens

    run = jax.jit(counted)
    for seed, length in ((9, 3), (10, 6)):
        given = nothing_given(2, LENGTH)._replace(length=jnp.full(2, length, jnp.int32))
        run(params(MODERN), keys(seed, 2), given)
    assert len(traced) == 1


@pytest.mark.parametrize("name", ["modern", "paper"])
def test_every_word_rounds_to_itself(name: str) -> None:
    """For any table: an oracle that is told the words writes them, however unequal the vectors' norms."""
    method = dataclasses.replace(METHODS[name], sampler=Sampler(steps=1))
    weights = dict(params(method))
    scales = jnp.geomspace(0.05, 20.0, VOCAB)[:, None]
    weights["embedding"] = scales * weights["embedding"]
    tokens = jnp.stack([jnp.arange(LENGTH), jnp.arange(VOCAB - LENGTH, VOCAB)])
    given = Given(tokens, jnp.ones(tokens.shape, bool), jnp.full(2, LENGTH))
    np.testing.assert_array_equal(compiled(method, "sample")(weights, keys(11, 2), given).tokens, tokens)


# Likelihood and health ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["modern", "paper"])
def test_padding_changes_no_bound(name: str) -> None:
    rows, bound = batch(), compiled(METHODS[name], "nll")
    filled = rows._replace(tokens=np.where(rows.valid, rows.tokens, 9).astype(np.int32))
    one, other = (np.asarray(bound(params(METHODS[name]), jax.random.key(12), b)) for b in (rows, filled))
    assert np.all(np.isfinite(one))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["modern", "paper"])
def test_the_bound_leaves_the_probabilities_of_a_length_no_more_than_its_law(name: str) -> None:
    """E[bound] ≥ −log p, and the p of all sequences of one length sum to p(length)."""
    small = dataclasses.replace(LANGUAGE, vocab_size=3, length=2, length_counts=(0, 3, 5))
    method = dataclasses.replace(METHODS[name], language=small, embed_dim=2, bound_steps=8)
    # Vectors so short that noise drowns them: the bound is then nearly tight, and a missing term would show.
    weights = dict(method.init(jax.random.key(13)))
    weights["embedding"] = 0.05 * weights["embedding"]
    rows = batch([list(words) for words in itertools.product(range(3), repeat=2)], length=2)
    bound = compiled(method, "nll")
    draws = np.stack([bound(weights, jax.random.key(seed), rows) for seed in range(100, 164)]).astype(np.float64)
    mean, error = draws.mean(axis=0), draws.std(axis=0) / np.sqrt(len(draws))
    probability = 5.01 / 8.02
    assert np.exp(-mean).sum() <= probability * (1 + 5 * error.max())
    if name == "paper":
        assert np.exp(-mean).sum() >= 0.02 * probability  # so near that the law's inequality has teeth


def test_monitor_sees_collapse() -> None:
    weights = dict(params(PAPER))
    health = PAPER.monitor(weights)
    table = np.asarray(weights["embedding"], np.float64)
    norms = np.linalg.norm(table, axis=-1)
    gaps = np.linalg.norm(table[:, None] - table[None], axis=-1) + np.diag(np.full(VOCAB, np.inf))
    assert float(health["embedding_norm"]) == pytest.approx(norms.mean(), rel=1e-5)
    assert float(health["nearest_word"]) == pytest.approx(gaps.min(axis=-1).mean() / norms.mean(), rel=1e-4)
    pairs = jnp.repeat(weights["embedding"][: VOCAB // 2], 2, axis=0)
    assert float(PAPER.monitor(weights | {"embedding": pairs})["nearest_word"]) < 1e-3


@pytest.mark.parametrize(
    "bad",
    [
        {"answers": "words"},
        {"reading": "noise"},
        {"answers": "vector"},
        {"answers": "vector", "cross_entropy": 0.0, "sampler": Sampler(temperature=0.5)},
    ],
)
def test_settings_that_contradict_each_other_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match="answers"):
        DiffusionLM(**bad)


def test_the_process_is_the_one_that_is_named() -> None:
    assert isinstance(MODERN.process, Gaussian)
    cosine = dataclasses.replace(MODERN, schedule="cosine")
    assert float(cosine.process.alpha_bar(0.5)) != pytest.approx(float(MODERN.process.alpha_bar(0.5)), abs=0.05)
