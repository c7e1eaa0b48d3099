"""Bounds on −log p, in nats.

Of vectors: the prior's divergence, what the denoiser loses on the way, and what the caller adds of the first time,
E[−log p(w | x)]; a position. Of masked words: the mean over all orders in which they can be written; a text.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.diffusion import losses as objectives
from jtextdiff.diffusion.discrete import largest
from jtextdiff.diffusion.distributions import Normal
from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.schedules import Time

Vectors = Float[Array, "b l d"]
Estimate = Callable[[Array, Array], Array]
"""(x_t, t of shape [b 1]) ↦ x̂_0, a function of x_t alone."""


def prior_kl(process: Gaussian, x_0: Vectors) -> Float[Array, "b l"]:
    """KL(q(x_1 | x_0) ‖ N(0, I)), nats a position: the bound's first term (Ho et al. 2020, eq. 5, L_T)."""
    return jnp.sum(process.marginal(x_0, 1.0).kl(process.prior(x_0.shape)), axis=-1)


def denoising_kl(process: Gaussian, x_0: Vectors, x_0_hat: Vectors, s: Time, t: Time) -> Float[Array, "b l"]:
    """KL(q(x_s | x_t, x_0) ‖ q(x_s | x_t, x̂_0)) = ½ (SNR(s) − SNR(t)) ‖x_0 − x̂_0‖², nats a position.

    Kingma et al. (2021), eq. 13: one term of the bound in discrete time, for times s < t of shape [] or [b 1].
    """
    return 0.5 * (process.snr(s) - process.snr(t)) * jnp.sum((x_0 - x_0_hat) ** 2, axis=-1)


def continuous_bound(
    process: Gaussian, x_0: Vectors, denoise: Estimate, key: Key[Array, ""], first: float, points: int
) -> Float[Array, "b l"]:
    """KL(q(x_1 | x_0) ‖ N(0, I)) + ½ ∫ −SNR′(t) E‖x_0 − x̂_0(x_t, t)‖² dt from `first` to 1, nats a position.

    Kingma et al. (2021), eq. 15, the limit of infinitely many steps. Unbiased at any number of `points`: each
    stratum of the interval gives one time a text, with noise of its own.
    """

    def integrand(t: Array, x_0_hat: Array) -> Array:
        slope = jax.jvp(process.snr, (t,), (jnp.ones_like(t),))[1]
        return -0.5 * (1 - first) * slope * jnp.sum((x_0 - x_0_hat) ** 2, axis=-1)

    def time(u: Array) -> Array:
        return first + (1 - first) * u

    return prior_kl(process, x_0) + _mean_over_times(process, x_0, denoise, key, points, time, integrand)


def released_bound(
    process: Gaussian, word: Vectors, denoise: Estimate, key: Key[Array, ""], first: float, points: int
) -> tuple[Float[Array, "b l"], Vectors]:
    """What the release of Diffusion-LM reports as its bound, but for the rounding; and the noisy x_0 to be rounded.

    Li et al. (2022), released code with its clamp off: x_0 ~ N(word, 1 − ᾱ(first)) takes the place of the data.
    KL(q(x_1 | x_0) ‖ N(0, I)) and the divergences of all steps of size `first` but the last are those of x_0; the
    last is that of N(word, 1 − ᾱ(first)) from N(x̂_0, the variance of the step before). It is no bound: x_t at the
    first time is noised twice. `points` of the steps are drawn, one a stratum. Nats a position.
    """
    jitter, noise, strata = (jax.random.fold_in(key, purpose) for purpose in range(3))
    law = Normal(mean=word, std=process.noise(first, word))
    x_0, t = law.sample(jitter), jnp.full((len(word), 1), first)
    std = process.posterior(word, word, first, 2 * first).std
    last = law.kl(Normal(mean=denoise(process.marginal(x_0, t).sample(noise), t), std=std))
    steps = round(1 / first) - 1

    def step(t: Array, x_0_hat: Array) -> Array:
        return steps * denoising_kl(process, x_0, x_0_hat, t - first, t)

    def time(u: Array) -> Array:
        return 1 - first * jnp.minimum(jnp.floor(steps * (1 - u)), steps - 1)  # a tiny u may round to 0

    walk = _mean_over_times(process, x_0, denoise, strata, points, time, step)
    return prior_kl(process, x_0) + jnp.sum(last, axis=-1) + walk, x_0


def mean_over_strata(
    value: Callable[[Float[Array, "b"], Array], Array], key: Key[Array, ""], points: int, shape: tuple[int, ...]
) -> Array:
    """The mean of value(u, key) of `shape` [b, …] over u [b] in (0, 1]: one a text in each of `points` strata."""

    def add(total: Array, index: Array) -> tuple[Array, None]:
        jitter, noise = jax.random.split(jax.random.fold_in(key, index))
        u = (index + 1 - jax.random.uniform(jitter, shape[:1])) / points
        return total + value(u, noise) / points, None

    return jax.lax.scan(add, jnp.zeros(shape), jnp.arange(points))[0]


def _mean_over_times(
    process: Gaussian,
    x_0: Vectors,
    denoise: Estimate,
    key: Key[Array, ""],
    points: int,
    time: Callable[[Array], Array],
    value: Callable[[Array, Array], Array],
) -> Float[Array, "b l"]:
    """The mean of value(t, x̂_0) over t = time(u in (0, 1]), with noise of its own each."""

    def at(u: Array, noise: Array) -> Array:
        t = time(u[:, None])
        return value(t, denoise(process.marginal(x_0, t).sample(noise), t))

    return mean_over_strata(at, key, points, x_0.shape[:2])


def any_order_bound(
    losses: Callable[[Bool[Array, "b l"]], Array], key: Key[Array, ""], valid: Bool[Array, "b l"], points: int
) -> Float[Array, "b"]:
    """The mean of L/k Σ −log p(word | the rest) over k hidden words, k uniform in 1 … L, nats a text.

    −log p of writing a text in an order drawn at random, and so the loss of masked diffusion in continuous time under
    any schedule from 1 to 0 (Ou et al. 2025, §3.2; Hoogeboom et al. 2022). `losses` of hidden words are [b, l];
    `points` numbers k are drawn a text, one a stratum.
    """
    length = jnp.sum(valid, axis=-1)
    value = lambda u, lot: length * any_order_loss(losses, lot, valid, u)
    return mean_over_strata(value, key, points, length.shape)


def any_order_loss(
    losses: Callable[[Bool[Array, "b l"]], Array], key: Key[Array, ""], valid: Bool[Array, "b l"], u: Float[Array, "b"]
) -> Float[Array, "b"]:
    """Mean −log p of k hidden words of L, k = ⌈u L⌉: its mean over u in (0, 1] is the bound by L, nats a token."""
    count = jnp.ceil(u * jnp.sum(valid, axis=-1)).astype(int)
    hidden = hide(key, valid, jnp.maximum(count, 1))
    return objectives.mean_over(losses(hidden), hidden)


def one_order_bound(
    losses: Callable[[Bool[Array, "b l"]], Array], key: Key[Array, ""], valid: Bool[Array, "b l"]
) -> Float[Array, "b"]:
    """Σ −log p(word | those before it) in one order a text, drawn at random, nats a text: a call a position.

    Its mean is that of `any_order_bound`, by the chain itself and without weights.
    """
    lot = jnp.where(valid, jax.random.uniform(key, valid.shape), jnp.inf)
    rank = jnp.argsort(jnp.argsort(lot, axis=-1), axis=-1)

    def add(total: Array, index: Array) -> tuple[Array, None]:
        return total + objectives.sum_over(losses(valid & (rank >= index)), valid & (rank == index)), None

    return jax.lax.scan(add, jnp.zeros(len(valid)), jnp.arange(valid.shape[1]))[0]


def hide(key: Key[Array, ""], valid: Bool[Array, "b l"], count: Int[Array, "b"]) -> Bool[Array, "b l"]:
    """`count` words of each text, any of the valid ones."""
    return largest(jnp.where(valid, jax.random.uniform(key, valid.shape), -1.0), count)
