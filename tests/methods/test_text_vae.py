"""The text VAE: its affine prior, loss, decoder and likelihood bound, and latent editing."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.params import random_params

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion.distributions import Normal
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.inference.batched import jitted
from jtextdiff.methods.components.affine_prior import (
    initial_prior,
    prior_fit_loss,
    prior_nll,
    standard_normal,
    unwhitened,
    whitened,
)
from jtextdiff.methods.components.latent_decoder import LatentTextDecoder
from jtextdiff.methods.components.latents import FlowLimits, LatentSampler, beta_schedule
from jtextdiff.methods.components.types import Given, TextSpec, nothing_given
from jtextdiff.methods.method import LatentVariableModel, Method
from jtextdiff.methods.text_vae import TextVAE
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.latent_flow import FlowResult
from jtextdiff.sampling.phrases import WordGuide

TEXT_SPEC = TextSpec(vocab_size=9, mask=9, pad=0, eos=1, unk=2, length=6, length_counts=(0, 0, 1, 5, 5, 5, 5))
SHAPE = Transformer(num_layers=1, width=16, num_heads=2)
METHOD = TextVAE(
    text_spec=TEXT_SPEC,
    encoder=SHAPE,
    decoder=dataclasses.replace(SHAPE, causal=True),
    latent_dim=4,
    importance_samples=2,
)
TOKENS = np.asarray([[3, 4, 5, 1, 0, 0], [6, 7, 1, 0, 0, 0], [3, 3, 8, 4, 5, 1]], np.int32)
VALID = np.asarray([[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0], [1] * 6], bool)
BATCH = Batch(TOKENS, VALID, np.zeros_like(VALID), {})


@pytest.fixture(scope="module")
def params() -> dict:
    fresh = random_params(METHOD.init)
    scale = 0.3 * jax.random.normal(jax.random.key(1), (4, 4))
    return {**fresh, "law": {"scale": scale, "shift": jnp.asarray([0.5, -1.0, 0.0, 2.0])}}


def normals(params: dict, rows: Batch) -> Normal:
    """q(z | text)."""
    posterior = METHOD.posterior(params, jnp.asarray(rows.tokens), jnp.asarray(rows.valid))
    return posterior.draw(jnp.zeros((len(rows.tokens), METHOD.latent_dim)))[1]


def given() -> Given:
    return Given(jnp.asarray(TOKENS), jnp.zeros(TOKENS.shape, bool), jnp.asarray(VALID.sum(-1)))


def keys(num: int = 3) -> jax.Array:
    return keys_for(jax.random.key(7), jnp.arange(num))


def test_is_a_method_with_latents() -> None:
    assert isinstance(METHOD, Method) and isinstance(METHOD, LatentVariableModel)


def test_a_latent_of_one_level_is_what_it_was_before_there_were_levels() -> None:
    """Numbers of the version before; stored runs of one level must go on to mean the same."""
    fresh = jax.jit(METHOD.init)(jax.random.key(0))
    assert len(jax.tree.leaves(fresh)) == 54
    assert sum(np.abs(leaf).sum() for leaf in jax.tree.leaves(fresh)) == pytest.approx(4709.6637, rel=1e-6)
    loss = jitted(METHOD, "loss")(fresh, jax.random.key(2), BATCH)[0]
    np.testing.assert_allclose(loss, [3.47873998, 3.07376719, 5.1583047], rtol=1e-5)
    nll = jitted(METHOD, "nll")(fresh, jax.random.key(3), BATCH)
    np.testing.assert_allclose(nll, [12.27388763, 14.44824028, 18.43602562], rtol=1e-5)
    encoded = jitted(METHOD, "encode")(fresh, jnp.asarray(TOKENS), jnp.asarray(VALID))
    np.testing.assert_allclose(encoded[0], [1.33026910, -1.52055311, -0.18855214, -0.02324021], atol=1e-5)


@pytest.mark.slow
def test_rewrites_of_one_level_are_what_they_were_before_there_were_levels() -> None:
    """The solver of the flow is another one since, of the same tolerance."""
    towards_3 = lambda z, t, valid=None, x_0=None: 0.5 * jnp.sum((z - 3.0) ** 2, axis=-1)
    rewrite = jitted(METHOD, "rewrite", energy=towards_3)
    edited = rewrite(METHOD.init(jax.random.key(0)), keys(), given(), limits=FlowLimits(2.0, 1e-3))
    np.testing.assert_array_equal(edited.tokens[:, 0], [[6, 6, 4, 4, 4, 1], [4, 4, 4, 4, 1, 0], [4, 4, 4, 4, 1, 0]])
    np.testing.assert_allclose(edited.distance[:, 0], [2.8050063, 4.3118095, 2.9627397], rtol=1e-3)


def test_whitening_round_trip(params: dict) -> None:
    z = jax.random.normal(jax.random.key(3), (5, 4))
    np.testing.assert_allclose(unwhitened(params["law"], whitened(params["law"], z)), z, atol=1e-5)
    standard = Normal(mean=jnp.zeros((5, 4)), std=jnp.ones(()))
    np.testing.assert_allclose(prior_nll(initial_prior(4), z), -jnp.sum(standard.log_prob(z), axis=-1), rtol=1e-5)


def test_the_prior_is_a_density(params: dict) -> None:
    """E over N(0, 9 I) of p(z)/q(z) is 1."""
    z = 3 * jax.random.normal(jax.random.key(4), (400_000, 4)) + unwhitened(params["law"], jnp.zeros((1, 4)))
    normal = Normal(mean=jnp.broadcast_to(unwhitened(params["law"], jnp.zeros((1, 4))), z.shape), std=jnp.full((), 3.0))
    ratio = np.exp(np.asarray(-prior_nll(params["law"], z) - jnp.sum(normal.log_prob(z), axis=-1)))
    assert ratio.mean() == pytest.approx(1.0, abs=5 * ratio.std() / np.sqrt(len(ratio)))


def test_fitting_the_prior_finds_mean_and_covariance() -> None:
    data = jax.random.normal(jax.random.key(5), (4000, 2)) @ jnp.asarray([[1.0, 0.8], [0.0, 0.5]]) + 2.0
    prior = initial_prior(2)
    slope = jax.grad(lambda prior: jnp.mean(prior_nll(prior, data)))
    step = lambda _, prior: jax.tree.map(lambda leaf, down: leaf - 0.05 * down, prior, slope(prior))
    prior = jax.jit(lambda prior: jax.lax.fori_loop(0, 2000, step, prior))(prior)
    white = np.asarray(whitened(prior, data))
    np.testing.assert_allclose(white.mean(0), 0, atol=0.01)
    np.testing.assert_allclose(np.cov(white.T), np.eye(2), atol=0.02)


def test_an_adversarial_prior_finds_the_mean_and_not_the_spread() -> None:
    """A linear critic detects a difference in means only. The two players cycle, so the average iterate is compared."""
    data = jnp.asarray([1.5, -0.5]) + 2.0 * jax.random.normal(jax.random.key(2), (128, 2))

    def step(prior: dict, at: jax.Array) -> tuple[dict, jax.Array]:
        down = jax.grad(lambda prior: jnp.mean(prior_fit_loss(prior, data, jax.random.fold_in(jax.random.key(3), at))))(
            prior
        )
        prior = jax.tree.map(lambda leaf, down: leaf - 0.1 * down, prior, down)
        return prior, unwhitened(prior, jnp.zeros((1, 2)))[0]

    prior, means = jax.jit(lambda prior: jax.lax.scan(step, prior, jnp.arange(3_000)))(initial_prior(2, "adversarial"))
    np.testing.assert_allclose(jnp.mean(means[1_000:], axis=0), data.mean(0), atol=0.1)
    spread = np.std(unwhitened(prior, jax.random.normal(jax.random.key(4), (4_000, 2))), axis=0)
    assert np.all(spread < 1.5) and np.all(data.std(0) > 1.9), spread


def test_the_prior_is_fitted_without_changing_the_networks(params: dict) -> None:
    """Its gradient is that of −log p(z) alone. The networks' gradients do not depend on the prior."""
    down = jax.jit(jax.grad(lambda params: METHOD.loss(params, jax.random.key(2), BATCH)[0].mean()))
    gradient, other_gradient = down(params), down({**params, "law": initial_prior(4)})
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient["law"]))
    for name in ("reader", "writer"):
        jax.tree.map(np.testing.assert_array_equal, gradient[name], other_gradient[name])
    loss = lambda params: jitted(METHOD, "loss")(params, jax.random.key(2), BATCH)[0]
    np.testing.assert_array_equal(loss(params), loss({**params, "law": initial_prior(4)}))


def test_divergence_below_free_bits_costs_nothing(params: dict) -> None:
    posterior = jax.jit(normals)(params, BATCH)
    plain = dataclasses.replace(METHOD, encoder_word_dropout=0.0, decoder_word_dropout=0.0)
    kl = np.asarray(posterior.kl(Normal(mean=jnp.zeros((3, 4)), std=jnp.ones(()))))
    loss = lambda bits: jitted(dataclasses.replace(plain, free_bits=bits), "loss")(params, jax.random.key(2), BATCH)
    expected = METHOD.beta * (np.maximum(kl, 0.4) - kl).sum(-1) / TEXT_SPEC.mean_length
    np.testing.assert_allclose(np.asarray(loss(0.4)[0] - loss(0.0)[0]), expected, atol=1e-5)
    np.testing.assert_allclose(loss(0.0)[1]["kl"].shape, (3,))


@pytest.mark.slow
def test_the_weight_of_the_divergence_is_annealed(params: dict) -> None:
    plain = dataclasses.replace(METHOD, beta=0.8, beta_first=0.2)
    loss = lambda progress: np.asarray(
        jitted(plain, "loss")(params, jax.random.key(2), BATCH._replace(progress=np.full(3, progress, np.float32)))[0]
    )
    kl = np.asarray(jitted(plain, "loss")(params, jax.random.key(2), BATCH)[1]["kl"]) / TEXT_SPEC.mean_length
    for progress, beta in ((0.125, 0.1), (0.25, 0.2), (0.75, 0.2), (0.8125, 0.5), (0.875, 0.8), (1.0, 0.8)):
        np.testing.assert_allclose(loss(progress) - loss(0.0), beta * kl, atol=1e-4)


def test_padding_changes_nothing(params: dict) -> None:
    padded_batch = Batch(*(np.pad(leaf, ((0, 0), (0, 3))) for leaf in (TOKENS, VALID, np.zeros_like(VALID))), {})
    for name in ("mean", "std"):
        narrow, padded = (getattr(jax.jit(normals)(params, rows), name) for rows in (BATCH, padded_batch))
        np.testing.assert_allclose(narrow, padded, atol=1e-6)
    np.testing.assert_allclose(
        *(jitted(METHOD, "nll")(params, jax.random.key(0), rows) for rows in (BATCH, padded_batch)), rtol=1e-5
    )


def test_the_decoder_depends_on_the_latent_and_earlier_tokens_only(params: dict) -> None:
    decoder = METHOD.decoder_net.bind(params["writer"])
    logits = jax.jit(lambda previous, z: decoder.per_token(lambda logits: logits, (), previous, z))
    previous, z = jnp.asarray(TOKENS), jax.random.normal(jax.random.key(3), (3, 4))
    plain = logits(previous, z)
    later = logits(previous.at[:, 3].set(8), z)
    np.testing.assert_array_equal(plain[:, :3], later[:, :3])
    assert np.all(np.any(plain[:, 3:] != later[:, 3:], axis=-1))
    assert np.all(np.any(plain != logits(previous, z + 1.0), axis=-1))


def test_cached_steps_equal_the_whole_pass(params: dict) -> None:
    decoder = METHOD.decoder_net.bind(params["writer"])
    previous, z = jnp.asarray(TOKENS), jax.random.normal(jax.random.key(3), (3, 4))
    all_logits = jax.jit(lambda previous, z: decoder.per_token(lambda logits: logits, (), previous, z))(previous, z)
    cache, step = jax.jit(decoder.init_cache, static_argnums=1)(z, 6), jax.jit(decoder.step)
    for position in range(6):
        logits, cache = step(previous[:, position], z, jnp.asarray(position), cache)
        np.testing.assert_allclose(logits, all_logits[:, position], atol=1e-5)


@pytest.mark.slow
def test_more_importance_samples_never_loosen_the_bound(params: dict) -> None:
    """In the mean over many samples, K = 1, 4 and 16 approach −log p from above (Burda et al. 2016)."""
    rows = jax.tree.map(lambda leaf: np.repeat(leaf, 300, axis=0), BATCH)
    nats = [
        np.asarray(jitted(dataclasses.replace(METHOD, importance_samples=k), "nll")(params, jax.random.key(1), rows))
        for k in (1, 4, 16)
    ]
    for looser, tighter in zip(nats, nats[1:], strict=False):
        difference = looser - tighter
        assert difference.mean() > -3 * difference.std() / np.sqrt(len(difference))
    assert (nats[0] - nats[2]).mean() > 0


def test_the_bound_is_exact_if_the_decoder_ignores_the_latent() -> None:
    """With a decoder that ignores z and an encoder that returns the prior, every K gives −log p(text)."""
    fresh = METHOD.init(jax.random.key(0))
    decoder = {**fresh["writer"], **{d: jax.tree.map(jnp.zeros_like, fresh["writer"][d]) for d in ("add", "remember")}}
    output = {"kernel": jnp.zeros_like(fresh["reader"]["answer"]["kernel"]), "bias": jnp.repeat(jnp.arange(2.0), 4) * 2}
    params = {**fresh, "reader": {**fresh["reader"], "answer": output}, "writer": decoder}
    nll_of = lambda logits, words: -jnp.take_along_axis(jax.nn.log_softmax(logits), words[..., None], axis=-1)[..., 0]
    of_texts = jax.jit(functools.partial(METHOD.decoder_net.bind(decoder).per_token, nll_of))
    previous = np.pad(TOKENS[:, :-1], ((0, 0), (1, 0)), constant_values=1)
    token_nll = of_texts((TOKENS,), previous, np.zeros((3, 4), np.float32))
    exact = np.sum(np.where(VALID, token_nll, 0.0), axis=-1)
    np.testing.assert_allclose(jitted(METHOD, "nll")(params, jax.random.key(1), BATCH), exact, rtol=1e-5)


def test_samples_do_not_depend_on_their_batch_and_have_the_given_length(params: dict) -> None:
    method = dataclasses.replace(METHOD, sampler=LatentSampler(name="sample"))
    request = nothing_given(3, 6)._replace(length=jnp.asarray([3, 5, 0]))
    samples = jitted(method, "sample")(params, keys(), request).tokens
    alone = jitted(method, "sample")(params, keys()[1:2], jax.tree.map(lambda leaf: leaf[1:2], request)).tokens
    np.testing.assert_array_equal(samples[1:2], alone)
    assert samples[0, 2] == 1 and samples[1, 4] == 1 and not np.any(np.asarray(samples)[:2, :2] == 1)


class Straight(LatentSampler):
    def flow(self, energy: Any, epsilon: Any, limits: FlowLimits, *, num_frames: int = 0) -> FlowResult:
        """Moves all latents to the same energy."""
        nats = -jnp.log(jnp.asarray(limits.target_probability))
        return FlowResult(jnp.full_like(epsilon, nats / 2), jnp.ones(2, int), jnp.ones(2, bool))


def test_latents_are_decoded_at_their_stops_with_their_guidance() -> None:
    """A decoded "text" is its latent, and what guides it: the strength, the hold, and the source's first word."""
    energy = lambda z, t, valid=None, x_0=None: jnp.sum(z, axis=-1)
    source, decoded, strength, hold = (
        jnp.asarray([[0.0, 1.0], [-1.0, 0.0]]),
        [1, 0, 1],
        [2.0, 0.0, 0.0],
        [1.0, 5.0, 0.0],
    )
    guide = WordGuide(
        energy=None,
        neutral=jnp.ones(2),
        source=jnp.asarray([[7.0, 0.0], [8.0, 0.0]]),
        strength=jnp.asarray(strength),
        hold=jnp.asarray(hold),
    )
    limits = FlowLimits(None, jnp.asarray([1e-2, 1e-1]), decoded=jnp.asarray(decoded), guide=guide)
    texts = lambda z, of: jnp.stack([jnp.round(100 * z[:, 0]), of.strength, of.hold, of.source[:, 0]], -1)
    rewrites = Straight().rewrite(texts, source, energy, limits)
    assert rewrites.tokens.shape == (2, 3, 4) and rewrites.distance.shape == (2, 3)
    nats = -np.log([1e-2, 1e-1])[decoded]
    for row, word in enumerate((7.0, 8.0)):
        np.testing.assert_allclose(rewrites.after[row, :, 0], nats, rtol=1e-5)
        expected = np.stack([np.round(100 * nats / 2), strength, hold, [word] * 3], -1)
        np.testing.assert_allclose(rewrites.tokens[row], expected)


def test_several_latents_of_each_text_are_decoded_as_each_alone(params: dict) -> None:
    """With the key of the text, and what is given of it."""
    method = dataclasses.replace(METHOD, sampler=LatentSampler(name="sample"))
    decode, z = jitted(method, "decode"), jax.random.normal(jax.random.key(5), (2, 3, METHOD.latent_dim))
    request = nothing_given(3, 6)._replace(length=jnp.asarray([3, 5, 0]))
    together = decode(params, keys(), request, jnp.concatenate(z)).tokens
    for texts, of_texts in zip(np.split(np.asarray(together), 2), z, strict=True):
        np.testing.assert_array_equal(texts, decode(params, keys(), request, of_texts).tokens)


@pytest.mark.slow
def test_editing_lowers_the_energy(params: dict) -> None:
    energy = lambda z, t, valid=None, x_0=None: 0.5 * jnp.sum((z - 3.0) ** 2, axis=-1)
    rewrite = jitted(METHOD, "rewrite", energy=energy)
    edited = rewrite(params, keys(), given(), limits=FlowLimits(50.0, 1e-3))
    assert np.all(np.asarray(edited.after) < np.asarray(edited.before)) and np.all(edited.solved)
    np.testing.assert_allclose(edited.after[:, 0], -np.log(1e-3), rtol=1e-2)
    stops = np.float32([1e-3, 1e-4, 1e-5])[::-1]  # far from the goal, so that the least probability comes first
    untimed = rewrite(params, keys(), given(), limits=FlowLimits(None, jnp.asarray(stops)))
    np.testing.assert_allclose(untimed.after[..., 0], np.broadcast_to(-np.log(stops), (3, 3)), rtol=1e-2)
    assert np.all(np.diff(untimed.distance, axis=1) > 0)
    unmoved = rewrite(params, keys(), given(), limits=FlowLimits(0.0, 1e-3))
    np.testing.assert_allclose(unmoved.distance, 0.0, atol=1e-6)
    plain = jitted(METHOD, "decode")(
        params, keys(), nothing_given(3, 6), jitted(METHOD, "encode")(params, given().tokens, jnp.asarray(VALID))
    )
    np.testing.assert_array_equal(unmoved.tokens[:, 0], plain.tokens)
    rows = jax.tree.map(lambda leaf: leaf[1:2], given())
    alone = rewrite(params, keys()[1:2], rows, limits=FlowLimits(50.0, 1e-3))
    np.testing.assert_array_equal(edited.tokens[1:2], alone.tokens)


def test_finished_texts_are_read_again_at_their_latents(params: dict) -> None:
    """A text is read up to EOS, or whole if it has none, whatever follows; −ELBO is that of the posterior's mean."""
    energy = lambda z, t, valid=None, x_0=None: jnp.sum((z - 1.0) ** 2, axis=-1)
    tokens, valid = np.vstack([TOKENS, [3, 4, 5, 6, 7, 8]]).astype(np.int32), np.vstack([VALID, [True] * 6])
    batch = Batch(tokens, valid, np.zeros_like(valid), {})
    state, _ = jitted(METHOD, "clean_state")(params, batch)
    filled = jnp.where(valid, tokens, 8)
    energies, nll = jitted(METHOD, "reread", energy=energy)(params, filled)
    np.testing.assert_allclose(energies, energy(state, 0.0)[:, None], rtol=1e-4)

    def at_the_mean() -> jax.Array:
        posterior, text_nll = METHOD._posterior_and_text_nll(params, batch, cached=True)
        z, normal = posterior.draw(jnp.zeros_like(state))
        return text_nll(z) + normal.kl(standard_normal(z)).sum(-1)

    np.testing.assert_allclose(nll, jax.jit(at_the_mean)(), rtol=1e-4)


@pytest.mark.parametrize("prior", ["affine", "standard"])
def test_initial_latents_follow_their_prior(params: dict, prior: str) -> None:
    """ε ~ N(0, I), or z ~ N(0, I)."""
    epsilon = LatentSampler(prior=prior).prior_sample(params["law"], keys(20_000), 4)
    sample = np.asarray(epsilon if prior == "affine" else unwhitened(params["law"], epsilon))
    np.testing.assert_allclose(sample.mean(0), 0.0, atol=5 / np.sqrt(20_000))
    np.testing.assert_allclose(np.cov(sample.T), np.eye(4), atol=5 * np.sqrt(2 / 20_000))


@pytest.mark.parametrize(
    "bad",
    [{"latent_dim": 0}, {"beta": -1.0}, {"encoder_word_dropout": 1.0}, {"decoder": SHAPE}, {"importance_samples": 0}],
)
def test_invalid_settings_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad)).split("_")[0]):
        dataclasses.replace(METHOD, **bad)


class Echo:
    """A decoder network that repeats the token whose number is its latent input."""

    def init_cache(self, y: jax.Array, length: int) -> tuple[()]:
        return ()

    def step(self, previous: jax.Array, y: jax.Array, position: jax.Array, cache: tuple[()]) -> tuple[jax.Array, tuple]:
        return -5.0 * jnp.abs(jnp.arange(TEXT_SPEC.vocab_size) - y), cache


@pytest.mark.parametrize("beams", [1, 3])
def test_the_beams_of_a_text_read_its_own_latent(beams: int) -> None:
    sampler = LatentSampler(name="beam" if beams > 1 else "greedy", beams=beams)
    decoder = LatentTextDecoder(Echo(), TEXT_SPEC, num_values=0, absolute=lambda z: z)
    free = nothing_given(3, 6)._replace(length=jnp.full(3, 6))
    tokens = decoder.decode(sampler, free, keys(), jnp.asarray([[3.0], [8.0], [5.0]])).tokens
    np.testing.assert_array_equal(tokens[:, :5], np.repeat([[3], [8], [5]], 5, axis=1))


def test_the_time_of_a_flow_is_half_the_noise_of_its_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """τ = −½ log ᾱ(1), in which an energy of curvature one moves a latent by the factor e^−τ."""
    schedules = []

    def descend(energy: object, z: jax.Array, schedule: object, **settings: object) -> FlowResult:
        schedules.append(schedule)
        return FlowResult(z, jnp.zeros(len(z), int), jnp.ones(len(z), bool))

    monkeypatch.setattr("jtextdiff.methods.components.latents.descend", descend)
    for time in (0.7, 5.025, None):
        LatentSampler().flow(lambda x, t: jnp.zeros(len(x)), jnp.zeros((2, 4)), FlowLimits(time))
    assert [schedule and -0.5 * float(schedule(1.0)) for schedule in schedules] == pytest.approx([0.7, 5.025, None])


@pytest.mark.parametrize(("time", "distances"), [(1.0, [2.0, 2.0, 2.0]), (None, [2.0, 4.0, 6.0])])
def test_with_a_time_each_stop_begins_at_the_source(
    time: float | None, distances: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the way to a stop goes on from the one before; here each has a length of two."""

    def descend(energy: object, z: jax.Array, schedule: object, **settings: object) -> FlowResult:
        return FlowResult(z + 1, jnp.zeros(len(z), int), jnp.ones(len(z), bool))

    monkeypatch.setattr("jtextdiff.methods.components.latents.descend", descend)
    decode, energy = lambda z, guide: jnp.zeros((len(z), 6), int), lambda x, t, valid: jnp.sum(x, axis=-1)
    limits = FlowLimits(time, jnp.asarray([0.5, 0.7, 0.9]))
    stops = LatentSampler().rewrite(decode, jnp.zeros((2, 4)), energy, limits)
    np.testing.assert_allclose(stops.distance, [distances] * 2, rtol=1e-6)


def test_the_weight_of_the_divergence_rises_in_a_quarter_and_changes_in_an_eighth_of_training() -> None:
    progress = jnp.asarray([0.0, 0.125, 0.25, 0.5, 0.75, 0.8125, 0.875, 1.0])
    np.testing.assert_allclose(beta_schedule(progress, 0.2, 1.0), [0, 0.1, 0.2, 0.2, 0.2, 0.6, 1, 1], rtol=1e-5)


def test_the_generator_of_a_prior_learns_an_eighth_as_fast_as_its_critic() -> None:
    """A step of its shift along the critic, as far as the critic tells each latent from those of texts."""
    weights, z = jnp.asarray([0.5, -1.0, 0.0, 2.0]), jax.random.normal(jax.random.key(6), (5, 4))
    prior = {**initial_prior(4, "adversarial"), "critic": {"weights": weights, "bias": jnp.asarray(0.5)}}
    slope = jax.grad(lambda prior: jnp.sum(prior_fit_loss(prior, z, jax.random.key(7))))(prior)
    generated, real = (
        unwhitened(prior, jax.random.normal(jax.random.key(7), z.shape)) @ weights + 0.5,
        z @ weights + 0.5,
    )
    expected = -np.sum(jax.nn.sigmoid(-generated)) / 8 * weights / np.sqrt(3)
    np.testing.assert_allclose(slope["shift"], expected, rtol=1e-5, atol=1e-6)
    of_critic = np.sum(jax.nn.sigmoid(generated)) - np.sum(jax.nn.sigmoid(-real))
    np.testing.assert_allclose(slope["critic"]["bias"], of_critic, rtol=1e-4)


def test_vectors_of_words_have_length_one_and_leave_out_what_all_words_share(params: dict) -> None:
    vectors = np.asarray(METHOD.word_vectors(params))
    assert vectors.shape == (TEXT_SPEC.vocab_size, 2 * SHAPE.width)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, rtol=1e-5)
    writer = dict(params["writer"])
    writer["embed"] = {"embedding": writer["embed"]["embedding"].at[: TEXT_SPEC.vocab_size].add(3.0)}
    writer["answer"] = {**writer["answer"], "kernel": writer["answer"]["kernel"] + jnp.arange(SHAPE.width)[:, None]}
    np.testing.assert_allclose(METHOD.word_vectors({**params, "writer": writer}), vectors, atol=1e-4)


def test_words_that_follow_and_precede_the_same_ones_have_the_same_vector(params: dict) -> None:
    writer = dict(params["writer"])
    embedding, kernel = writer["embed"]["embedding"], writer["answer"]["kernel"]
    writer["embed"] = {"embedding": embedding.at[5].set(embedding[3])}
    assert not np.allclose(*np.asarray(METHOD.word_vectors({**params, "writer": writer}))[[3, 5]])
    writer["answer"] = {**writer["answer"], "kernel": kernel.at[:, 5].set(kernel[:, 3])}
    np.testing.assert_allclose(*np.asarray(METHOD.word_vectors({**params, "writer": writer}))[[3, 5]])
