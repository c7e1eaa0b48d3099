"""Bounds: each term equals its divergence; the sum is −log p for the exact denoiser, and larger for others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion import elbo
from jtextdiff.diffusion.distributions import Normal
from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.losses import cross_entropy
from jtextdiff.diffusion.schedules import SCHEDULES

SHAPE = (2, 3, 4)


@pytest.fixture(params=SCHEDULES)
def process(request: pytest.FixtureRequest) -> Gaussian:
    return Gaussian(log_alpha_bar=SCHEDULES[request.param](1000))


@pytest.mark.parametrize(("s", "t"), [(0.01, 0.02), (0.1, 0.6), (0.5, 1.0)])
def test_denoising_kl_is_the_kl_of_the_posteriors(process: Gaussian, s: float, t: float) -> None:
    x_0, estimate, x_t = jax.random.normal(jax.random.key(0), (3, *SHAPE))
    true, modelled = process.posterior(x_0, x_t, s, t), process.posterior(estimate, x_t, s, t)
    full = lambda normal: Normal(mean=normal.mean, std=jnp.broadcast_to(normal.std, SHAPE))
    expected = jnp.sum(full(true).kl(full(modelled)), axis=-1)
    result = elbo.denoising_kl(process, x_0, estimate, jnp.asarray(s), jnp.asarray(t))
    np.testing.assert_allclose(result, expected, rtol=2e-3)


def test_denoising_kl_telescopes_over_strides(process: Gaussian) -> None:
    """For one x̂_0, two strides have the divergence of one: SNR(s) − SNR(t) telescopes."""
    x_0, estimate = jax.random.normal(jax.random.key(1), (2, *SHAPE))
    kl = lambda s, t: elbo.denoising_kl(process, x_0, estimate, jnp.asarray(s), jnp.asarray(t))
    np.testing.assert_allclose(kl(0.2, 0.5) + kl(0.5, 0.9), kl(0.2, 0.9), rtol=1e-5)
    assert float(jnp.min(kl(0.2, 0.5))) > 0


def test_prior_kl_in_closed_form(process: Gaussian) -> None:
    x_0 = 3.0 * jax.random.normal(jax.random.key(2), SHAPE)
    bar = np.exp(np.float64(process.log_alpha_bar(1.0)))
    square = np.sum(np.asarray(x_0, np.float64) ** 2, axis=-1)
    expected = 0.5 * (bar * square + SHAPE[-1] * (-bar - np.log1p(-bar)))
    np.testing.assert_allclose(elbo.prior_kl(process, x_0), expected, rtol=1e-2, atol=2e-7)


# One dimension: three tokens on a line, with their probabilities.
TOKENS, P = np.asarray([-1.5, -0.2, 0.9]), np.asarray([0.5, 0.2, 0.3])
T_MIN, ROWS = 1 / 100, 2000
LINE = Gaussian(log_alpha_bar=SCHEDULES["sqrt"](1000))
SHORT = Gaussian(log_alpha_bar=lambda t: jnp.log1p(-0.9 * jnp.asarray(t)))
"""ᾱ(1) = .1, so that the divergence of the prior is not small."""


def logits_of(x_t: jax.Array, t: jax.Array) -> jax.Array:
    """log p(w | x_t) up to normalisation, exact; [b l 1] -> [b l 3]."""
    distance = x_t - LINE.signal(t, x_t) * jnp.asarray(TOKENS)[None, None]
    return jnp.log(jnp.asarray(P))[None, None] - 0.5 * (distance / LINE.noise(t, x_t)) ** 2


def exact(x_t: jax.Array, t: jax.Array) -> jax.Array:
    return jax.nn.softmax(logits_of(x_t, t)) @ jnp.asarray(TOKENS)[:, None]


def biased(x_t: jax.Array, t: jax.Array) -> jax.Array:
    return 0.6 * exact(x_t, t) + 0.3


def bound_of(denoise: elbo.Denoiser) -> tuple[np.ndarray, np.ndarray]:
    """The bound of each token, nats, and its standard error."""
    tokens = jnp.asarray(np.repeat(np.arange(3), ROWS)[:, None])

    @jax.jit
    def bound(tokens: jax.Array) -> jax.Array:
        x_0, t = jnp.asarray(TOKENS)[tokens][..., None], jnp.full((3 * ROWS, 1), T_MIN)
        gap = elbo.continuous_bound(LINE, x_0, denoise, jax.random.key(3), T_MIN, 64)
        x_t = LINE.marginal(x_0, t).sample(jax.random.key(4))
        return gap + cross_entropy(logits_of(x_t, t), tokens)

    total = np.asarray(bound(tokens), np.float64).reshape(3, ROWS)
    return total.mean(axis=1), total.std(axis=1) / np.sqrt(ROWS)


def nll_by_quadrature(denoise: elbo.Denoiser, num_steps: int) -> np.ndarray:
    """−log p(w) of the chain x_1 ~ N(0, 1), x_s ~ q(x_s | x_t, x̂_0), w ~ p(w | x_t_min), on a grid."""
    grid = np.linspace(-6, 6, 801)
    width, mass = grid[1] - grid[0], np.exp(-0.5 * grid**2)
    times = T_MIN + (1 - T_MIN) * np.arange(num_steps, -1, -1) / num_steps
    x = jnp.asarray(grid)[:, None, None]
    posterior_of = jax.jit(lambda s, t: LINE.posterior(denoise(x, jnp.full((len(grid), 1), t)), x, s, t))
    for t, s in zip(times[:-1], times[1:], strict=True):
        posterior = posterior_of(float(s), float(t))
        distance = (grid[None, :] - np.asarray(posterior.mean, np.float64)[:, 0]) / np.asarray(
            posterior.std, np.float64
        ).ravel()
        kernel = np.exp(-0.5 * distance**2)
        mass = (mass / mass.sum()) @ (kernel / kernel.sum(axis=1, keepdims=True))
    p_token = np.asarray(
        jax.jit(lambda x: jax.nn.softmax(logits_of(x, jnp.full((len(grid), 1), T_MIN))))(x), np.float64
    )[:, 0]
    assert width < 0.25 * float(posterior.std.ravel()[0])  # the grid resolves the narrowest step
    return -np.log(mass @ p_token)


def test_the_bound_of_the_exact_denoiser_is_the_exact_nll() -> None:
    """Per token, not only on average, so that no wrong sign or factor survives."""
    bound, error = bound_of(exact)
    prior = 1e-3  # q(x_1 | w) is not quite N(0, 1)
    assert np.all(np.abs(bound + np.log(P)) <= 5 * error + prior)
    assert np.all(error < 0.05)
    np.testing.assert_allclose(nll_by_quadrature(exact, 100), -np.log(P), atol=0.02)


def test_the_bound_of_a_biased_denoiser_is_above_its_exact_nll() -> None:
    bound, error = bound_of(biased)
    coarse, fine = nll_by_quadrature(biased, 50), nll_by_quadrature(biased, 100)
    assert np.all(np.abs(fine - coarse) < 0.1)  # the chain has nearly reached its limit of small steps
    mean_gap = float(np.mean(bound - fine))
    assert np.all(bound + 5 * error >= fine - np.abs(fine - coarse))
    assert mean_gap > 0.05  # the error of the denoiser counts


@pytest.mark.parametrize("num_strata", [1, 7, 64])
def test_the_bound_is_unbiased_for_any_number_of_strata(num_strata: int) -> None:
    """For a constant x̂_0 = c it is ½ (SNR(t_min) − SNR(1)) ‖x_0 − c‖² plus the divergence of the prior."""
    x_0 = jnp.full((20_000, 1, 1), 0.7)
    zero = lambda x_t, t: jnp.zeros_like(x_t)
    bound = jax.jit(lambda x_0: elbo.continuous_bound(SHORT, x_0, zero, jax.random.key(5), 0.1, num_strata))
    result = np.asarray(bound(x_0), np.float64)
    prior = 0.5 * (0.1 * 0.49 - 0.1 - np.log1p(-0.1))
    integral = 0.5 * (0.91 / 0.09 - 0.1 / 0.9) * 0.49
    assert prior > 5 * result.std() / np.sqrt(len(result)) or num_strata < 64  # at 64 strata its absence would show
    assert abs(result.mean() - integral - prior) <= 5 * result.std() / np.sqrt(len(result))


@pytest.mark.parametrize("identity", [False, True])
def test_the_released_quantity_by_hand(identity: bool) -> None:
    """T = 20, every step sampled, in expectation; x̂_0 is 0, or x_t itself."""
    rows, embedding, first = 40_000, 0.8, 1 / 20
    denoise = (lambda x_t, t: x_t) if identity else (lambda x_t, t: jnp.zeros_like(x_t))
    embeddings = jnp.full((rows, 1, 1), embedding)
    bound = lambda embeddings: elbo.released_bound(SHORT, embeddings, denoise, jax.random.key(6), first, num_strata=19)
    result, x_0 = jax.jit(bound)(embeddings)
    result = np.asarray(result, np.float64).ravel()
    bar = 1 - 0.9 * np.arange(21) / 20
    var_x_0 = 1 - bar[1]  # variance of x_0 around the embedding
    assert float(jnp.var(x_0)) == pytest.approx(var_x_0, rel=0.05)
    snr = np.append(np.inf, bar[1:] / (1 - bar[1:]))
    second = embedding**2 + var_x_0  # E x_0²
    # E (x_0 − x̂_0)² at each time, and E (embedding − x̂_0)² at the first.
    error = (1 - np.sqrt(bar)) ** 2 * second + 1 - bar if identity else np.full(21, second)
    last = (1 - np.sqrt(bar[1])) ** 2 * embedding**2 + bar[1] * var_x_0 + 1 - bar[1] if identity else embedding**2
    steps = np.sum(0.5 * (snr[1:-1] - snr[2:]) * error[2:])
    narrow = (1 - bar[2] / bar[1]) * (1 - bar[1]) / (1 - bar[2])
    first_kl = 0.5 * ((var_x_0 + last) / narrow - 1 - np.log(var_x_0 / narrow))
    prior = 0.5 * (bar[-1] * second - bar[-1] - np.log1p(-bar[-1]))
    assert abs(result.mean() - steps - first_kl - prior) <= 5 * result.std() / np.sqrt(rows)


def test_one_order_scores_each_token_while_it_is_masked() -> None:
    """Losses that count the masked tokens, and are infinite at a visible one: L + … + 2 + 1 for a text of L tokens."""
    valid = jnp.arange(5)[None] < jnp.asarray([[5], [3], [1]])
    losses = lambda masked: jnp.where(masked, jnp.sum(masked, axis=-1, keepdims=True).astype(float), jnp.inf)
    nats = jax.jit(lambda valid: elbo.one_order_bound(losses, jax.random.key(9), valid))(valid)
    np.testing.assert_array_equal(nats, [15, 6, 1])
