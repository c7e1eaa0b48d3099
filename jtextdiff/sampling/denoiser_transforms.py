"""Transforms of denoisers: temperature, clamping, infilling and self-conditioning."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jtextdiff.diffusion.distributions import temper_and_top_p
from jtextdiff.diffusion.schedules import Time
from jtextdiff.sampling.loop import Denoise, later


def clamp(denoise: Denoise, project: Callable[[Array], Array], *, below: float) -> Denoise:
    """Replaces x̂_0 by the nearest token embedding once t ≤ `below` (Li et al. 2022, §4.3): 1 is always, 0 never.

    `project` is the final rounding followed by embedding, so the clamp agrees with the sampled tokens.
    """

    def clamped(x_t: Array, t: Time, previous: Array) -> Array:
        x_0_hat = denoise(x_t, t, previous)
        return jnp.where(later(t, below), x_0_hat, project(x_0_hat))

    return clamped if below > 0 else denoise


def temper(denoise: Denoise, temperature: float) -> Denoise:
    """Applies a temperature to a denoiser that returns logits; the result is normalised log-probabilities."""

    def tempered(x_t: Array, t: Time, previous: Array) -> Float[Array, "b l k"]:
        return temper_and_top_p(denoise(x_t, t, previous), temperature)

    return tempered


def infill(denoise: Denoise, x_0: Array, fixed: Bool[Array, "b l"]) -> Denoise:
    """Replaces x̂_0 by the given `x_0` where `fixed`, so that these positions follow q(x_s | x_t, x_0) exactly.

    Every sampler then ends at x_0 there. A self-conditioned network reads the given tokens from its second step on.
    """

    def filled(x_t: Array, t: Time, previous: Array) -> Array:
        return jnp.where(fixed[..., None], x_0, denoise(x_t, t, previous))

    return filled


def self_condition(estimate: Callable[[], Any], use_estimate: Bool[Array, ""]) -> Array:
    """Returns what a network reads of the step before in training: its stopped-gradient estimate, or zeros.

    Chen et al. (2023), algorithm 1.
    """
    zeros = jax.eval_shape(estimate)
    return jax.lax.cond(
        use_estimate,
        lambda: jax.lax.stop_gradient(estimate()),
        lambda: jnp.zeros(zeros.shape, zeros.dtype),
    )
