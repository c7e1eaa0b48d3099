"""Samples of Diffusion-LM: given tokens, lengths, paths, edits, and dependence on the sample's own key only."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.methods.components.embedding_denoiser import GaussianDenoiser, constraints_of
from jtextdiff.methods.components.types import Given, TextSpec, nothing_given
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.gaussian_samplers import Sampler
from jtextdiff.sampling.loop import State

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
    self_conditioning=0.0,
    per_token_times=False,
    projections="deep",
)
METHODS = {"modern": MODERN, "paper": PAPER}


@functools.cache
def compiled(method: DiffusionLM, name: str) -> jax.stages.Wrapped:
    return jax.jit(getattr(method, name), static_argnames="keep_path" if name in ("sample", "edit") else None)


@functools.cache
def params(method: DiffusionLM) -> dict:
    return method.init(jax.random.key(0))


def keys(seed: int, num: int) -> jax.Array:
    return keys_for(jax.random.key(seed), jnp.arange(num))


def sample(method: DiffusionLM, seed: int, given: Given, **options: bool) -> np.ndarray:
    return np.asarray(
        compiled(method, "sample")(params(method), keys(seed, len(given.tokens)), given, **options).tokens
    )


@pytest.mark.parametrize(
    ("name", "variant"),
    [("ancestral", "modern"), ("ancestral", "paper"), ("ddim", "paper"), ("dpm_solver", "modern")],
)
def test_fixed_tokens_stay_and_pad_follows_the_length(name: str, variant: str) -> None:
    method = dataclasses.replace(METHODS[variant], sampler=Sampler(name=name, steps=3))
    tokens = jnp.full((4, LENGTH), 7).at[:, 2].set(9)
    fixed = jnp.zeros((4, LENGTH), bool).at[:, 1:3].set(True)
    result = sample(method, 5, Given(tokens, fixed, jnp.asarray([3, 5, 8, 4])))
    np.testing.assert_array_equal(result[:, 1:3], [[7, 9]] * 4)
    for row, length in enumerate([3, 5, 8, 4]):
        assert np.all(result[row, length:] == PAD)
    assert result.min() >= 0
    assert result.max() < VOCAB


@pytest.mark.parametrize(
    ("variant", "known_length", "clamp"),
    [("modern", True, 0.0), ("modern", False, 1.0), ("paper", True, 1.0), ("paper", False, 0.0)],
)
def test_the_unknown_token_is_sampled_only_where_it_is_given(variant: str, known_length: bool, clamp: float) -> None:
    """Its embedding is the mean of all, so the nearest to an uncertain prediction. Every pair of settings occurs."""
    text_spec = dataclasses.replace(TEXT_SPEC, unk=2)
    given = nothing_given(16, LENGTH)._replace(tokens=jnp.full((16, LENGTH), 2))
    method = dataclasses.replace(
        METHODS[variant], text_spec=text_spec, known_length=known_length, sampler=Sampler(steps=3, clamp=clamp)
    )
    weights = dict(method.init(jax.random.key(0)))
    weights["embedding"] = weights["embedding"].at[2].set(weights["embedding"].mean(0))
    weights["answer"] = jax.tree.map(lambda leaf: 0.01 * leaf, weights["answer"])
    run = jax.jit(method.sample)
    free = np.asarray(run(weights, keys(3, 16), given).tokens)
    assert not np.any(free == 2)
    if known_length:
        ends = (free != PAD).sum(-1) - 1
        assert np.all((free == EOS) == (np.arange(LENGTH) == ends[:, None]))
    fixed = given._replace(fixed=given.fixed.at[:, 0].set(True))
    assert np.all(np.asarray(run(weights, keys(3, 16), fixed).tokens)[:, 0] == 2)


@pytest.mark.parametrize("per_token_times", [True, False])
def test_fixed_tokens_enter_the_network_without_noise_if_times_are_per_token(per_token_times: bool) -> None:
    """The prediction depends on the noise at fixed positions only if a text has one time for all its tokens."""
    method = dataclasses.replace(MODERN, per_token_times=per_token_times, embed_norm=None, embeddings="learned")
    denoiser = method._denoiser(params(method))
    fixed = jnp.zeros((2, LENGTH), bool).at[:, 3].set(True)
    given = Given(jnp.full((2, LENGTH), 7), fixed, jnp.full(2, LENGTH))
    constraints = method._constraints(given, given.length)._replace(allowed=jnp.ones((2, LENGTH, VOCAB), bool))
    denoise = jax.jit(denoiser.denoise(constraints, 1.0))
    x_t, other = (jax.random.normal(jax.random.key(seed), (2, LENGTH, DIM)) for seed in (1, 2))
    previous = jnp.zeros_like(x_t)
    one = denoise(x_t, 0.8, previous)
    same = denoise(jnp.where(fixed[..., None], other, x_t), 0.8, previous)
    difference = float(jnp.max(jnp.abs(one - same)))
    assert difference == 0 if per_token_times else difference > 1e-4
    assert float(jnp.max(jnp.abs(one - denoise(other, 0.8, previous)))) > 1e-4


class Clock:
    """A network whose prediction is the time that it reads, and whose vocabulary is one zero vector."""

    def embed(self, tokens: jax.Array) -> jax.Array:
        return jnp.zeros((*tokens.shape, 1))

    def embedding_matrix(self) -> jax.Array:
        return jnp.zeros((VOCAB, 1))

    def __call__(self, x: jax.Array, time: jax.Array, previous: jax.Array, **settings: Any) -> jax.Array:
        return jnp.broadcast_to(time, x.shape[:2])[..., None]


def test_fixed_tokens_have_the_first_time_of_training_if_times_are_per_token() -> None:
    denoiser = GaussianDenoiser(Clock(), MODERN.process, 0.01, lambda x_t, t: x_t, "x_0", self_conditioned=False)
    fixed = jnp.arange(2 * LENGTH).reshape(2, LENGTH) % 3 == 0
    given, x_t = nothing_given(2, LENGTH)._replace(fixed=fixed), jnp.ones((2, LENGTH, 1))
    for clean, expected in ((fixed, np.where(fixed, 0.0, 790.0)), (None, np.full(fixed.shape, 790.0))):
        constraints = constraints_of(TEXT_SPEC, given, jnp.full(2, LENGTH), clean, known_length=True)
        found = denoiser.denoise(constraints, 1.0)(x_t, 0.8, x_t)
        np.testing.assert_allclose(found[..., 0], expected, atol=1e-3)


def test_guidance_follows_the_unclamped_estimate() -> None:
    """A nearest embedding, here zero, has no gradient."""
    estimates = []

    class Watched(Sampler):
        def guide(self, step: Any, process: Any, denoise: Any, *others: Any) -> Any:
            estimates.append(denoise(jnp.ones((2, LENGTH, 1)), 0.8, jnp.ones((2, LENGTH, 1))))
            return step

    denoiser = GaussianDenoiser(Clock(), MODERN.process, 0.01, lambda x_t, t: x_t, "x_0", self_conditioned=False)
    constraints = constraints_of(TEXT_SPEC, nothing_given(2, LENGTH), jnp.full(2, LENGTH), None, known_length=True)
    start, energy = State.start(jnp.ones((2, LENGTH, 1))), lambda x, t, valid, x_0: jnp.zeros(len(x))
    denoiser.sample(start, keys(0, 2), constraints, Watched(clamp=1.0, steps=2), energy, keep_path=False)
    np.testing.assert_allclose(estimates[0], 790.0, rtol=1e-5)


def test_lengths_follow_their_training_distribution() -> None:
    """A network that predicts token 5 everywhere reveals the sampled lengths. EOS comes at the end only."""
    num = 2048
    weights = dict(params(MODERN))
    weights["answer"] = {"kernel": 0.0 * weights["answer"]["kernel"], "bias": 100.0 * jax.nn.one_hot(5, VOCAB)}
    result = np.asarray(compiled(MODERN, "sample")(weights, keys(6, num), nothing_given(num, LENGTH)).tokens)
    lengths = 1 + np.sum(result == 5, axis=1)
    offset = np.arange(LENGTH) - lengths[:, None] + 1  # 0 at the last position of each
    np.testing.assert_array_equal(result, np.where(offset < 0, 5, np.where(offset == 0, EOS, PAD)))
    counts = np.asarray(TEXT_SPEC.length_counts) + 0.01 * (np.arange(LENGTH + 1) > 0)
    for length, share in enumerate(counts / counts.sum()):
        assert abs(np.mean(lengths == length) - share) <= 5 * np.sqrt(share * (1 - share) / num)


def test_texts_end_if_pad_is_eos() -> None:
    method = dataclasses.replace(MODERN, text_spec=dataclasses.replace(TEXT_SPEC, pad=EOS))
    result = sample(method, 12, nothing_given(8, LENGTH)._replace(length=jnp.full(8, 5)))
    assert np.all(result[:, 4:] == EOS)
    assert np.all(result[:, :4] != EOS)
    assert len(np.unique(result)) > 2


def test_a_sample_depends_on_its_own_key_and_not_on_the_batch() -> None:
    eight = sample(MODERN, 7, nothing_given(8, LENGTH))
    alone = compiled(MODERN, "sample")(params(MODERN), keys(7, 8)[3:4], nothing_given(1, LENGTH)).tokens
    np.testing.assert_array_equal(alone[0], eight[3])
    other = nothing_given(8, LENGTH)._replace(length=jnp.asarray([0, 0, 0, 0, 2, 3, 5, 8]))
    np.testing.assert_array_equal(sample(MODERN, 7, other)[:4], eight[:4])


def test_the_path_is_returned_only_on_request() -> None:
    run = compiled(MODERN, "sample")
    plain = run(params(MODERN), keys(8, 8), nothing_given(8, LENGTH))
    with_path = run(params(MODERN), keys(8, 8), nothing_given(8, LENGTH), keep_path=True)
    assert plain.path is None
    assert with_path.path.shape == (5, 8, LENGTH)
    np.testing.assert_array_equal(with_path.path[-1], with_path.tokens)
    np.testing.assert_array_equal(with_path.tokens, plain.tokens)


def test_one_compilation_serves_all_keys_and_lengths() -> None:
    traced = []

    def sample_tokens(weights: dict, rows: jax.Array, given: Given) -> jax.Array:
        traced.append(1)
        return MODERN.sample(weights, rows, given).tokens

    run = jax.jit(sample_tokens)
    for seed, length in ((9, 3), (10, 6)):
        given = nothing_given(2, LENGTH)._replace(length=jnp.full(2, length, jnp.int32))
        run(params(MODERN), keys(seed, 2), given)
    assert len(traced) == 1


@pytest.mark.parametrize("name", ["modern", "paper"])
def test_every_token_rounds_to_itself(name: str) -> None:
    """If all tokens are fixed they are returned, however unequal the norms of their embeddings."""
    method = dataclasses.replace(METHODS[name], sampler=Sampler(steps=1))
    weights = dict(params(method))
    scales = jnp.geomspace(0.05, 20.0, VOCAB)[:, None]
    weights["embedding"] = scales * weights["embedding"]
    tokens = jnp.stack([jnp.arange(LENGTH), jnp.arange(VOCAB - LENGTH, VOCAB)])
    given = Given(tokens, jnp.ones(tokens.shape, bool), jnp.full(2, LENGTH))
    np.testing.assert_array_equal(compiled(method, "sample")(weights, keys(11, 2), given).tokens, tokens)


def test_memory_does_not_grow_with_the_steps() -> None:
    """Only the time grid does, by a few floats per step."""

    def temporary_bytes(steps: int) -> int:
        method = dataclasses.replace(MODERN, sampler=Sampler(steps=steps))
        program = jax.jit(method.sample).lower(params(method), keys(12, 8), nothing_given(8, LENGTH)).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(400) - temporary_bytes(4) <= 32 * 400


@pytest.mark.parametrize("strength", [0.01, 0.6, 1.0])
def test_an_edit_starts_from_its_text_and_keeps_fixed_tokens(strength: float) -> None:
    """The tokens of the first state are those of the text if the strength is small, and not if it is large."""
    tokens = jax.random.randint(jax.random.key(1), (16, LENGTH), 2, VOCAB).at[:, -1].set(EOS)
    fixed = jnp.zeros(tokens.shape, bool).at[:, 2].set(True)
    given = Given(tokens, fixed, jnp.full(16, LENGTH))
    edit = compiled(MODERN, "edit")
    result = edit(params(MODERN), keys(5, 16), given, strength=strength, keep_path=True)
    same = float(jnp.mean((result.path[0] == tokens)[:, :-1]))
    assert same == 1.0 if strength == 0.01 else same < 1.0 if strength == 0.6 else same < 0.5
    np.testing.assert_array_equal(result.tokens[:, 2], tokens[:, 2])
    assert np.all(np.asarray(result.tokens)[:, -1] == EOS) and np.all(np.asarray(result.tokens)[:, :-1] != EOS)
    one = jax.tree.map(lambda leaf: leaf[3:4], given)
    alone = edit(params(MODERN), keys(5, 16)[3:4], one, strength=strength, keep_path=True)
    np.testing.assert_array_equal(alone.tokens[0], result.tokens[3])


def test_the_energies_of_a_path_are_those_of_its_states_at_their_times() -> None:
    """An energy that returns its time: from the strength of an edit down to 0."""
    energy = lambda x, t, valid=None, x_0=None: jnp.full(len(x), t)
    edit = jax.jit(functools.partial(MODERN.edit, energy=energy, keep_path=True))
    given = nothing_given(2, LENGTH)._replace(length=jnp.asarray([5, 8]))
    times = 0.6 * np.asarray([1.0, 0.75, 0.5, 0.25, 0.0])
    energies = edit(params(MODERN), keys(6, 2), given, strength=0.6).energies
    np.testing.assert_allclose(energies, np.repeat(times, 2).reshape(5, 2, 1), atol=1e-6)
