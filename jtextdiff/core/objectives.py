"""Objectives: what a loss is made of, one number an example, in nats where it is a likelihood."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.core.gaussian import Gaussian
from jtextdiff.core.sampling import ticks


def mean_over(values: Float[Array, "b l"], valid: Bool[Array, "b l"]) -> Float[Array, "b"]:
    """Mean over the valid positions of each example."""
    return sum_over(values, valid) / jnp.maximum(jnp.sum(valid, axis=-1), 1)


def sum_over(values: Float[Array, "b l"], valid: Bool[Array, "b l"]) -> Float[Array, "b"]:
    """Sum over the valid positions of each example."""
    return jnp.sum(jnp.where(valid, values, 0.0), axis=-1)


def cross_entropy(logits: Float[Array, "b l v"], tokens: Int[Array, "b l"]) -> Float[Array, "b l"]:
    """−log softmax(logits)[token], nats a position."""
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def squared_error(x: Float[Array, "b l d"], y: Float[Array, "b l d"]) -> Float[Array, "b l"]:
    """Mean over channels of (x − y)²."""
    return jnp.mean((x - y) ** 2, axis=-1)


def prior_kl(process: Gaussian, x_0: Float[Array, "b l d"]) -> Float[Array, "b l"]:
    """KL(q(x_1 | x_0) ‖ N(0, I)), nats a position: the bound's first term (Ho et al. 2020, eq. 5, L_T)."""
    return jnp.sum(process.marginal(x_0, 1.0).kl(process.prior(x_0.shape)), axis=-1)


def denoising_kl(
    process: Gaussian, x_0: Float[Array, "b l d"], x_0_hat: Float[Array, "b l d"], s: Array, t: Array
) -> Float[Array, "b l"]:
    """KL(q(x_s | x_t, x_0) ‖ q(x_s | x_t, x̂_0)) = ½ (SNR(s) − SNR(t)) ‖x_0 − x̂_0‖², nats a position.

    Kingma et al. (2021), eq. 13: one term of the bound in discrete time, for times s < t of shape [].
    """
    gain = jnp.exp(2 * process.half_log_snr(s)) - jnp.exp(2 * process.half_log_snr(t))
    return 0.5 * gain * jnp.sum((x_0 - x_0_hat) ** 2, axis=-1)


def gaussian_bound(
    process: Gaussian,
    x_0: Float[Array, "b l d"],
    denoise: Callable[[Array, Array], Array],
    num_steps: int,
    key: Key[Array, ""],
) -> Float[Array, "b l"]:
    """KL(q(x_1 | x_0) ‖ p(x_1)) + Σ KL(q(x_s | x_t, x_0) ‖ q(x_s | x_t, x̂_0)), nats a position.

    The sum runs over the even grid of `num_steps` from 1 down to its first time, 1/num_steps, with one noise draw
    a term (Kingma et al. 2021, eq. 11–13), from fold 1 of the key on; fold 0 is left to the caller for what follows.
    `denoise` maps (x_t, t of shape [b 1]) to x̂_0.
    """
    times, earlier = ticks(num_steps)

    def term(total: Array, tick: tuple[Array, Array, Array]) -> tuple[Array, None]:
        index, t, s = tick
        x_t = process.marginal(x_0, t).sample(jax.random.fold_in(key, index))
        return total + denoising_kl(process, x_0, denoise(x_t, jnp.full((len(x_0), 1), t)), s, t), None

    indices = jnp.arange(1, num_steps)
    return jax.lax.scan(term, prior_kl(process, x_0), (indices, times[:-1], earlier[:-1]))[0]


def length_nll(counts: Int[Array, "m"], lengths: Int[Array, "b"]) -> Float[Array, "b"]:
    """−log p(length), nats, under the law fitted to the `counts` of each length."""
    return -length_law(counts)[lengths]


def length_law(counts: Int[Array, "m"]) -> Float[Array, "m"]:
    """Log-law of sequence lengths: relative frequencies, with .01 of a sentence added to each possible length."""
    possible = jnp.arange(len(counts)) > 0
    smoothed = jnp.where(possible, counts + 0.01, 0.0)
    return jnp.log(smoothed) - jnp.log(jnp.sum(smoothed))
