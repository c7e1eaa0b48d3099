"""Variational bounds (ELBOs) on −log p(text), in nats.

Gaussian diffusion, per position: KL of the prior and the denoising terms. The caller adds the reconstruction term
E[−log p(token | x)] at the first time. Masked diffusion, per text: the mean over all orders of revealing its tokens.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from jtextdiff.diffusion.distributions import Normal
from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.losses import mean_over, sum_over
from jtextdiff.diffusion.masking import random_mask
from jtextdiff.diffusion.schedules import Time

Vectors = Float[Array, "b l d"]
Denoiser = Callable[[Array, Array], Array]
"""(x_t, t of shape [b 1]) ↦ x̂_0, a function of x_t alone."""

MaskedLosses = Callable[[Bool[Array, "b l"]], Array]
"""masked [b, l] ↦ −log p(token | the tokens that are not masked), [b, l], nats."""


def prior_kl(process: Gaussian, x_0: Vectors) -> Float[Array, "b l"]:
    """Returns L_T = KL(q(x_1 | x_0) ‖ N(0, I)), nats per position (Ho et al. 2020, eq. 5)."""
    return jnp.sum(process.marginal(x_0, 1.0).kl(process.prior(x_0.shape)), axis=-1)


def denoising_kl(process: Gaussian, x_0: Vectors, x_0_hat: Vectors, s: Time, t: Time) -> Float[Array, "b l"]:
    """Returns KL(q(x_s | x_t, x_0) ‖ q(x_s | x_t, x̂_0)) = ½ (SNR(s) − SNR(t)) ‖x_0 − x̂_0‖², nats per position.

    One term of the discrete-time bound (Kingma et al. 2021, eq. 13), for times s < t of shape [] or [b 1].
    """
    return 0.5 * (process.snr(s) - process.snr(t)) * jnp.sum((x_0 - x_0_hat) ** 2, axis=-1)


def continuous_bound(
    process: Gaussian, x_0: Vectors, denoise: Denoiser, key: Key[Array, ""], t_min: float, num_strata: int
) -> Float[Array, "b l"]:
    """Estimates KL(q(x_1 | x_0) ‖ N(0, I)) + ½ ∫ −SNR′(t) E‖x_0 − x̂_0(x_t, t)‖² dt over [t_min, 1], nats per position.

    The limit of infinitely many steps (Kingma et al. 2021, eq. 15). The estimate is unbiased for any `num_strata`: each
    stratum of the interval contributes one time per text, with independent noise.
    """

    def integrand(t: Array, x_0_hat: Array) -> Array:
        snr_slope = jax.jvp(process.snr, (t,), (jnp.ones_like(t),))[1]
        return -0.5 * (1 - t_min) * snr_slope * jnp.sum((x_0 - x_0_hat) ** 2, axis=-1)

    def time(u: Array) -> Array:
        return t_min + (1 - t_min) * u

    return prior_kl(process, x_0) + _mean_over_times(process, x_0, denoise, key, num_strata, time, integrand)


def released_bound(
    process: Gaussian, embedding: Vectors, denoise: Denoiser, key: Key[Array, ""], t_min: float, num_strata: int
) -> tuple[Float[Array, "b l"], Vectors]:
    """Returns the quantity that the release of Diffusion-LM reports as its bound, without rounding, and its noisy x_0.

    Li et al. (2022), released code with its clamp off: x_0 ~ N(embedding, 1 − ᾱ(t_min)) takes the place of the data.
    KL(q(x_1 | x_0) ‖ N(0, I)) and the divergences of all steps of size `t_min` but the last are those of x_0. The last
    is the divergence of N(embedding, 1 − ᾱ(t_min)) from N(x̂_0, the variance of the step before). This is no bound,
    because x_t at the first time is noised twice. `num_strata` of the steps are sampled, one per stratum. Nats per
    position.
    """
    jitter, noise, strata = (jax.random.fold_in(key, purpose) for purpose in range(3))
    q_x_0 = Normal(mean=embedding, std=process.noise(t_min, embedding))
    x_0, t = q_x_0.sample(jitter), jnp.full((len(embedding), 1), t_min)
    std = process.posterior(embedding, embedding, t_min, 2 * t_min).std
    last = q_x_0.kl(Normal(mean=denoise(process.marginal(x_0, t).sample(noise), t), std=std))
    num_steps = round(1 / t_min) - 1

    def step(t: Array, x_0_hat: Array) -> Array:
        return num_steps * denoising_kl(process, x_0, x_0_hat, t - t_min, t)

    def time(u: Array) -> Array:
        return 1 - t_min * jnp.minimum(jnp.floor(num_steps * (1 - u)), num_steps - 1)  # a tiny u may round to 0

    steps = _mean_over_times(process, x_0, denoise, strata, num_strata, time, step)
    return prior_kl(process, x_0) + jnp.sum(last, axis=-1) + steps, x_0


def any_order_bound(
    losses: MaskedLosses, key: Key[Array, ""], valid: Bool[Array, "b l"], num_strata: int
) -> Float[Array, "b"]:
    """Estimates the mean of L/k Σ −log p(token | the rest) over k masked tokens, k uniform in 1 … L, nats per text.

    This is −log p of generating a text in a uniformly random order, and so the loss of masked diffusion in continuous
    time under any schedule from 1 to 0 (Ou et al. 2025, §3.2; Hoogeboom et al. 2022). `num_strata` counts k are sampled
    per text, one per stratum.
    """
    return mean_over_strata(lambda u, key: any_order_loss(losses, key, valid, u), key, num_strata, valid.shape[:1])


def any_order_loss(
    losses: MaskedLosses, key: Key[Array, ""], valid: Bool[Array, "b l"], u: Float[Array, "b"]
) -> Float[Array, "b"]:
    """Returns L times the mean −log p of k masked tokens of L, k = ⌈u L⌉, nats per text.

    Its mean over u in (0, 1] is `any_order_bound`.
    """
    length = jnp.sum(valid, axis=-1)
    masked = valid & random_mask(key, valid, jnp.maximum(jnp.ceil(u * length).astype(int), 1))
    return length * mean_over(losses(masked), masked)


def planner_weighted(losses: MaskedLosses) -> MaskedLosses:
    """Returns the losses, half of whose weight goes to tokens that confident sampling reveals first.

    Of n masked tokens, each weighs ½ + ½ n softmax(log p of the true token) (after PAPL, Peng et al. 2025, with a mean
    weight of 1 at any n). A loss for training; it bounds nothing.
    """

    def weighted(masked: Bool[Array, "b l"]) -> Array:
        nats = losses(masked)
        share = jnp.where(masked, jax.nn.softmax(-jax.lax.stop_gradient(nats), axis=-1, where=masked), 0.0)
        return nats * (0.5 + 0.5 * jnp.sum(masked, axis=-1, keepdims=True) * share)

    return weighted


def one_order_bound(losses: MaskedLosses, key: Key[Array, ""], valid: Bool[Array, "b l"]) -> Float[Array, "b"]:
    """Returns Σ −log p(token | the tokens before it) in one random order per text, nats per text.

    Calls `losses` once per position. Its mean equals that of `any_order_bound`, by the chain rule and without weights.
    """
    priority = jnp.where(valid, jax.random.uniform(key, valid.shape), jnp.inf)
    rank = jnp.argsort(jnp.argsort(priority, axis=-1), axis=-1)

    def add(total: Array, index: Array) -> tuple[Array, None]:
        return total + sum_over(losses(valid & (rank >= index)), valid & (rank == index)), None

    return jax.lax.scan(add, jnp.zeros(len(valid)), jnp.arange(valid.shape[1]))[0]


def mean_over_strata(
    value: Callable[[Float[Array, "b"], Array], Array], key: Key[Array, ""], num_strata: int, shape: tuple[int, ...]
) -> Array:
    """Estimates the mean of value(u, key), of `shape` [b, …], over u [b] in (0, 1], one per text and stratum."""

    def add(total: Array, index: Array) -> tuple[Array, None]:
        jitter, noise = jax.random.split(jax.random.fold_in(key, index))
        u = (index + 1 - jax.random.uniform(jitter, shape[:1])) / num_strata
        return total + value(u, noise) / num_strata, None

    return jax.lax.scan(add, jnp.zeros(shape), jnp.arange(num_strata))[0]


def _mean_over_times(
    process: Gaussian,
    x_0: Vectors,
    denoise: Denoiser,
    key: Key[Array, ""],
    num_strata: int,
    time: Callable[[Array], Array],
    value: Callable[[Array, Array], Array],
) -> Float[Array, "b l"]:
    """Estimates the mean of value(t, x̂_0(x_t, t)) over t = time(u), u in (0, 1], with independent noise per time."""

    def value_at(u: Array, noise: Array) -> Array:
        t = time(u[:, None])
        return value(t, denoise(process.marginal(x_0, t).sample(noise), t))

    return mean_over_strata(value_at, key, num_strata, x_0.shape[:2])
