"""Latents of several levels: their prior, posterior, bound and decoder, chained and not."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.cases import slow_but
from support.params import random_params

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion.distributions import Normal
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.inference.batched import jitted
from jtextdiff.methods.components import latents
from jtextdiff.methods.components.affine_prior import initial_prior
from jtextdiff.methods.components.latent_levels import Levels
from jtextdiff.methods.components.types import TextSpec, nothing_given
from jtextdiff.methods.text_vae import TextVAE
from jtextdiff.nets.autoencoders import spread_over_blocks
from jtextdiff.nets.functional import Net
from jtextdiff.nets.latent_chain import LatentChain
from jtextdiff.nets.layers import ValueFusion
from jtextdiff.nets.transformer import Transformer

TEXT_SPEC = TextSpec(vocab_size=9, mask=9, pad=0, eos=1, unk=2, length=6, length_counts=(0, 0, 1, 5, 5, 5, 5))
SHAPE = Transformer(num_layers=3, width=16, num_heads=2)
PLAIN = TextVAE(
    text_spec=TEXT_SPEC,
    encoder=SHAPE,
    decoder=dataclasses.replace(SHAPE, causal=True),
    latent_dim=6,
    importance_samples=2,
    encoder_word_dropout=0.0,
    decoder_word_dropout=0.0,
)
METHODS = {
    "levels": dataclasses.replace(PLAIN, levels=Levels(num=3)),
    "fused": dataclasses.replace(PLAIN, levels=Levels(num=3, fusion_rank=2)),
    "published": dataclasses.replace(
        PLAIN, levels=Levels(num=3, chained=True, spread=True, fusion_rank=1, decoder_input=False)
    ),
    "labelled": dataclasses.replace(
        PLAIN,
        levels=Levels(num=2, chained=True, fusion_rank=1),
        condition="mood",
        values=("none", "bad", "good"),
        label_dropout=0.0,
    ),
    "transformer_xl": dataclasses.replace(
        PLAIN,
        encoder=dataclasses.replace(SHAPE, positions="xl"),
        decoder=dataclasses.replace(SHAPE, positions="xl", causal=True),
        levels=Levels(num=3, chained=True, fusion_rank=1),
    ),
    "scanned": dataclasses.replace(
        PLAIN,
        encoder=dataclasses.replace(SHAPE, remat=True),
        decoder=dataclasses.replace(SHAPE, causal=True, scan=True),
        levels=Levels(num=3, chained=True, spread=True, fusion_rank=1),
    ),
}
TOKENS = np.asarray([[3, 4, 5, 1, 0, 0], [6, 7, 1, 0, 0, 0], [3, 3, 8, 4, 5, 1]], np.int32)
VALID = np.asarray([[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0], [1] * 6], bool)
BATCH = Batch(TOKENS, VALID, np.zeros_like(VALID), {"mood": np.asarray([1, 2, 1], np.int32)})
NOISE = jax.random.normal(jax.random.key(9), (3, 6))


@functools.cache
def params_of(name: str) -> dict:
    return {**random_params(METHODS[name].init), "law": initial_prior(6)}


@functools.cache
def drawn(name: str) -> Callable[..., tuple]:
    return jax.jit(lambda params, tokens, valid, noise: METHODS[name].posterior(params, tokens, valid).draw(noise))


def draw(name: str, noise: jax.Array, tokens: np.ndarray = TOKENS, valid: np.ndarray = VALID) -> tuple:
    return drawn(name)(params_of(name), tokens, valid, noise)


def test_levels_are_read_from_evenly_spaced_blocks_up_to_the_last() -> None:
    assert spread_over_blocks(3, 3) == [0, 1, 2] and spread_over_blocks(2, 5) == [2, 4]
    for levels in range(1, 9):
        for blocks in range(levels, 13):
            spread = spread_over_blocks(levels, blocks)
            assert spread == sorted(set(spread)) and len(spread) == levels and spread[-1] == blocks - 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num": 4}, "latent_dim must divide"),
        ({"num": 6, "spread": True}, "encoder.num_layers = 3"),
        ({"num": 6, "fusion_rank": 1}, "decoder.num_layers = 3"),
    ],
)
def test_levels_that_the_networks_do_not_have_are_refused(settings: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(PLAIN, levels=Levels(**settings))


@pytest.mark.parametrize(
    "settings", [{"num": 0}, {"fusion_rank": -1}, {"decoder_input": False}, {"chained": True}, {"free_nats": -1.0}]
)
def test_settings_that_do_not_fit_together_are_refused(settings: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Levels(**settings)


# The chain


def chain(levels: int = 3, dim: int = 2, scale: float = 0.7) -> LatentChain:
    net = Net(lambda rngs: LatentChain(levels, dim, rngs=rngs))
    fresh = net.init(jax.random.key(3))
    moved = jax.tree.map(lambda leaf: leaf + scale * jax.random.normal(jax.random.key(leaf.size), leaf.shape), fresh)
    return net.bind(moved if scale else fresh)


def test_fresh_chains_are_the_identity() -> None:
    noise = jax.random.normal(jax.random.key(0), (5, 3, 2))
    np.testing.assert_array_equal(chain(scale=0.0)(noise), noise)


def test_a_level_depends_on_its_noise_and_on_lower_levels_alone() -> None:
    """The Jacobian of z by the noise is block triangular with positive diagonal: the chain is invertible."""
    noise = jax.random.normal(jax.random.key(0), (1, 3, 2))
    jacobian = jax.jit(jax.jacobian(lambda noise: chain()(noise[None])[0]))(noise[0]).reshape(6, 6)
    above = np.kron(np.triu(np.ones((3, 3)), 1), np.ones((2, 2))) > 0
    assert np.all(jacobian[above] == 0)
    assert np.all(np.diag(jacobian) > 0)
    below = np.kron(np.tril(np.ones((3, 3)), -1), np.ones((2, 2))) > 0
    assert np.all(jacobian[below] != 0)


def test_the_second_level_has_the_moments_of_its_prior_given_the_first() -> None:
    net, z_1 = chain(), jnp.asarray([0.4, -1.3])
    noise = jax.random.normal(jax.random.key(1), (40_000, 3, 2)).at[:, 0].set(z_1)
    z_2 = np.asarray(net(noise)[:, 1])
    summary = np.tanh(net.from_latent[0](z_1[None]))
    mean, log_std = np.split(np.asarray(net.moments[0](jnp.asarray(summary)))[0], 2)
    std = np.exp(2 * np.tanh(log_std / 2))
    np.testing.assert_allclose(z_2.mean(0), mean, atol=5 * std.max() / 200)
    np.testing.assert_allclose(z_2.std(0), std, rtol=0.03)


@pytest.mark.slow
def test_the_divergence_of_relative_latents_is_that_of_the_latents() -> None:
    """Σ_l KL(q(z_l | z_<l, x) ‖ p(z_l | z_<l)) along a draw, from the moments of both in z (Hu et al. 2022, eq. 6)."""
    params, method = params_of("published"), METHODS["published"]
    epsilon, normal = draw("published", NOISE)
    relative = jnp.sum(normal.kl(Normal(mean=jnp.zeros((3, 6)), std=jnp.ones(()))))
    net, summary, total = method.chain_net.bind(params["chain"]), jnp.zeros((3, 2)), 0.0
    m, s, e = (method.levels.split(part) for part in (normal.mean, normal.std, epsilon))
    for level in range(3):
        mean, one = (net.place(level, summary, jnp.full((3, 2), unit)) for unit in (0.0, 1.0))
        prior = Normal(mean=mean, std=one - mean)
        q = Normal(mean=prior.mean + prior.std * m[:, level], std=prior.std * s[:, level])
        total = total + jnp.sum(q.kl(prior))
        summary = net.extend(level, summary, net.place(level, summary, e[:, level]))
    np.testing.assert_allclose(relative, total, rtol=1e-5)
    np.testing.assert_allclose(method.levels.absolute(net, epsilon), net(e).reshape(3, 6))


@pytest.mark.slow
def test_the_divergence_is_the_mean_log_ratio_of_draws() -> None:
    """log q(ε) along a draw is its log-density: E_q[log q − log p] = E[KL]."""
    noise = jax.random.normal(jax.random.key(2), (4_000, 3, 6))
    params, method = params_of("published"), METHODS["published"]
    posterior = method.posterior(params, jnp.asarray(TOKENS), jnp.asarray(VALID))

    def one(noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        epsilon, normal = posterior.draw(noise)
        standard = Normal(mean=jnp.zeros_like(epsilon), std=jnp.ones(()))
        ratio = jnp.sum(normal.log_prob(epsilon) - standard.log_prob(epsilon), axis=-1)
        return ratio, jnp.sum(normal.kl(standard), axis=-1)

    ratio, kl = (np.asarray(part, np.float64) for part in jax.jit(jax.vmap(one))(noise))
    difference = ratio - kl
    assert np.all(kl >= 0)
    assert np.all(np.abs(difference.mean(0)) < 4 * difference.std(0) / np.sqrt(len(noise)))


def test_chained_levels_condition_on_the_draw_of_lower_ones_and_others_do_not() -> None:
    other = NOISE.at[:, :2].add(1.0)
    for name, depends in (("published", True), ("levels", False)):
        one, changed = draw(name, NOISE)[1].mean, draw(name, other)[1].mean
        np.testing.assert_array_equal(one[:, :2], changed[:, :2])
        assert bool(np.any(one[:, 2:] != changed[:, 2:])) == depends


# The bound


class Toy:
    """x | z_2 ~ N(z_2, .5²), z_2 | z_1 ~ N(.8 z_1, .6²), z_1 ~ N(0, 1): log p(x) is known."""

    x = jnp.linspace(-2, 2, 200)

    def log_p(self) -> np.ndarray:
        variance = 0.8**2 + 0.6**2 + 0.5**2
        return -0.5 * np.asarray(self.x**2 / variance + np.log(2 * np.pi * variance))

    def draw(self, noise: jax.Array) -> tuple[jax.Array, Normal]:
        """A posterior that is wrong on purpose: q(z_1) = N(x/2, .9²), q(z_2 | z_1) = N((x + z_1)/2, .7²)."""
        e_1 = 0.5 * self.x + 0.9 * noise[:, 0]
        m_2, s_2 = ((self.x + e_1) / 2 - 0.8 * e_1) / 0.6, 0.7 / 0.6
        mean = jnp.stack([0.5 * self.x, m_2], axis=-1)
        std = jnp.broadcast_to(jnp.asarray([0.9, s_2]), mean.shape)
        return mean + std * noise, Normal(mean=mean, std=std)

    def log_joint(self, epsilon: jax.Array) -> jax.Array:
        z_2 = 0.8 * epsilon[:, 0] + 0.6 * epsilon[:, 1]
        standard = Normal(mean=jnp.zeros_like(epsilon), std=jnp.ones(()))
        observed = Normal(mean=z_2, std=jnp.full((), 0.5))
        return observed.log_prob(self.x) + jnp.sum(standard.log_prob(epsilon), axis=-1)

    def nll(self, num: int, draw: object = None) -> float:
        bound = functools.partial(latents.importance_bound, draw or self.draw, self.log_joint)
        estimates = jax.jit(lambda key: bound(key, num, (len(self.x), 2)))
        return float(np.mean([estimates(jax.random.key(seed)) for seed in range(40)]))


def test_the_bound_of_two_levels_falls_to_the_exact_value_and_not_below() -> None:
    toy = Toy()
    exact, few, more, many = -toy.log_p().mean(), toy.nll(1), toy.nll(4), toy.nll(256)
    assert exact - 0.005 < many < more < few
    assert many == pytest.approx(exact, abs=0.01)


def test_a_mean_over_levels_is_no_bound() -> None:
    """Averaging log q and log p over levels instead of adding them falls below the exact value."""
    toy = Toy()

    class HalfLogProb(Normal):
        def log_prob(self, x: jax.Array) -> jax.Array:
            standard = Normal(mean=jnp.zeros_like(x), std=jnp.ones(()))
            return 0.5 * (super().log_prob(x) + standard.log_prob(x))  # half of log q − log p

    def halved(noise: jax.Array) -> tuple[jax.Array, Normal]:
        epsilon, normal = toy.draw(noise)
        return epsilon, HalfLogProb(mean=normal.mean, std=normal.std)

    assert toy.nll(256, halved) < -toy.log_p().mean() - 0.1


# The networks


@pytest.mark.parametrize("name", slow_but(["published"], ["labelled", "published", "transformer_xl"]))
def test_padding_and_other_texts_change_no_latent(name: str) -> None:
    wide = draw(name, NOISE, *(np.pad(array, ((0, 0), (0, 3))) for array in (TOKENS, VALID)))[0]
    alone = np.concatenate([draw(name, NOISE[i : i + 1], TOKENS[i : i + 1], VALID[i : i + 1])[0] for i in range(3)])
    for same in (wide, alone):
        np.testing.assert_allclose(draw(name, NOISE)[0], same, atol=2e-5)


@pytest.mark.parametrize("name", slow_but(["published"], METHODS))
def test_all_positions_at_once_equal_one_by_one(name: str) -> None:
    once, stepwise = (
        jitted(METHODS[name], which)(params_of(name), jax.random.key(0), BATCH) for which in ("nll", "nll_check")
    )
    np.testing.assert_allclose(once, stepwise, rtol=1e-4)


@pytest.mark.parametrize("name", slow_but(["published"], METHODS))
def test_the_loss_has_a_gradient_in_every_parameter(name: str) -> None:
    loss = lambda params: jnp.mean(METHODS[name].loss(params, jax.random.key(2), BATCH)[0])
    gradient = jax.jit(jax.grad(loss))(params_of(name))
    leaves = jax.tree_util.tree_leaves_with_path(gradient)
    silent = [jax.tree_util.keystr(path) for path, leaf in leaves if not leaf.any()]
    assert not [path for path in silent if "['key']['bias']" not in path]  # which changes no softmax


@pytest.mark.slow
@pytest.mark.parametrize("name", slow_but(["published"], ["levels", "published"]))
def test_its_terms_are_sums_over_levels(name: str) -> None:
    terms = jitted(METHODS[name], "loss")(params_of(name), jax.random.key(2), BATCH)[1]
    np.testing.assert_allclose(sum(terms[f"kl_{level}"] for level in (1, 2, 3)), terms["kl"], rtol=1e-5)
    terms = jitted(METHODS[name], "elbo_terms")(params_of(name), jax.random.key(2), BATCH)
    np.testing.assert_allclose(sum(terms[f"kl_{level}"] for level in (1, 2, 3)), terms["kl"], rtol=1e-5)
    assert {f"shuffled_{level}" for level in (1, 2, 3)} < set(terms)


def test_free_nats_of_a_level_cost_nothing() -> None:
    kl = jnp.asarray([[1.0, 2.0, 0.1, 0.2, 5.0, 0.0]])
    levels = Levels(num=3, free_nats=1.5)
    assert float(levels.paid_kl(kl, 0.0, jnp.asarray([2]))[0]) == pytest.approx(3.0 + 1.0 + 5.0)
    assert float(levels.paid_kl(kl, 0.5, jnp.asarray([0]))[0]) == pytest.approx(3.0 + 1.0 + 5.5)
    assert float(Levels().paid_kl(kl, 0.5, jnp.asarray([4]))[0]) == pytest.approx(1 + 2 + 0.5 + 0.5 + 5 + 0.5)


def fusion(rank: int, fresh: bool = False) -> ValueFusion:
    net = Net(lambda rngs: ValueFusion(4, context_dim=3, rank=rank, init="lecun", bfloat16=False, rngs=rngs))
    params = net.init(jax.random.key(0))
    if not fresh:
        random = np.random.default_rng(0)
        params = jax.tree.map(lambda leaf: leaf + jnp.asarray(random.normal(size=leaf.shape), leaf.dtype), params)
    return net.bind(params)


def test_fresh_values_of_any_rank_are_those_of_rank_one_and_near_the_plain_ones() -> None:
    x, value, context = (
        jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(2, 5, 4), (2, 5, 4), (2, 3)])
    )
    one, three = (fusion(rank, fresh=True)(x, value, context) for rank in (1, 3))
    np.testing.assert_array_equal(one, three)
    np.testing.assert_array_equal(fusion(1, fresh=True)(x, value, jnp.zeros((2, 3))), value)
    assert 0 < np.abs(one - value).mean() < np.abs(value).mean()


def test_the_rank_of_the_product_is_that_of_the_setting() -> None:
    """∂²(fused value)/∂x∂c, with the value projection V_1 = I, has as many singular values for each channel."""
    for rank in (1, 2, 3):
        net = fusion(rank)
        fused = lambda x, c, net=net: net(x[None, None], x[None, None], c[None])[0, 0]
        mixed = jax.jit(jax.jacobian(jax.jacobian(fused, 0), 1))(jnp.ones(4), jnp.ones(3))  # [channel, x, c]
        singular = np.linalg.svd(np.asarray(mixed), compute_uv=False)
        assert np.all((singular > 1e-4).sum(-1) == min(rank, 3))


def test_without_decoder_input_a_level_reaches_no_state_before_its_block() -> None:
    method, params = METHODS["published"], params_of("published")
    decoder = method.decoder_net.bind(params["writer"])
    z = jax.random.normal(jax.random.key(4), (1, 6))
    x = jax.random.normal(jax.random.key(5), (1, 4, 16))

    @jax.jit
    def states(z: jax.Array) -> list[jax.Array]:
        return decoder.trunk.states(x, contexts=decoder._contexts(z), blocks=(0, 1, 2))[1]

    logits = jax.jit(lambda z: decoder.per_token(lambda logits: logits, (), jnp.asarray(TOKENS[:1]), z))
    for level in range(3):
        changed = z.at[:, 2 * level : 2 * level + 2].add(1.0)
        same = [bool(np.all(one == other)) for one, other in zip(states(z), states(changed), strict=True)]
        assert same == [True] * level + [False] * (3 - level)
        assert np.all(np.any(logits(z) != logits(changed), axis=-1)), "every level reaches every prediction"


@pytest.mark.parametrize("name", slow_but(["published"], ["published", "transformer_xl"]))
def test_samples_do_not_depend_on_the_batch(name: str) -> None:
    method, params = METHODS[name], params_of(name)
    texts = jitted(method, "sample")(params, keys_for(jax.random.key(7), jnp.arange(3)), nothing_given(3, 6)).tokens
    one = jitted(method, "sample")(params, keys_for(jax.random.key(7), jnp.arange(1, 2)), nothing_given(1, 6)).tokens
    np.testing.assert_array_equal(texts[1:2], one)


def test_samples_of_the_posterior_are_whitened_draws_and_their_mean_is_encode() -> None:
    method, params = METHODS["published"], params_of("published")
    noise = jax.random.normal(jax.random.key(8), (3, 2, 6))
    samples, mean, kl = jitted(method, "latent_samples")(params, jnp.asarray(TOKENS), jnp.asarray(VALID), noise)
    np.testing.assert_allclose(samples[:, 1], draw("published", noise[:, 1])[0], atol=1e-5)
    np.testing.assert_allclose(
        mean, jitted(method, "encode")(params, jnp.asarray(TOKENS), jnp.asarray(VALID)), atol=1e-5
    )
    assert kl.shape == (3,) and np.all(np.asarray(kl) > 0)
