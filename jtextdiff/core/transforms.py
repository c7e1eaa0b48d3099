"""Transforms: what is done to a denoiser between the network and the sampler, Denoise → Denoise."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jtextdiff.core.sampling import Denoise
from jtextdiff.core.schedules import Time


def clamp(denoise: Denoise, project: Callable[[Array], Array], *, below: float) -> Denoise:
    """Replaces x̂_0 by the nearest word's vector once t ≤ `below` (Li et al. 2022, §4.3): 1 is always, 0 never.

    `project` is the final rounding followed by embedding, so that the clamp and the words agree.
    """

    def clamped(x_t: Array, t: Time, previous: Array) -> Array:
        x_0_hat = denoise(x_t, t, previous)
        return jnp.where(t <= below, project(x_0_hat), x_0_hat)

    return clamped if below > 0 else denoise


def temper(denoise: Denoise, temperature: float) -> Denoise:
    """Sharpens (temperature < 1) or flattens a denoiser that answers in logits; the answer is normalised."""

    def tempered(x_t: Array, t: Time, previous: Array) -> Float[Array, "b l k"]:
        return jax.nn.log_softmax(denoise(x_t, t, previous) / temperature)

    return tempered


def infill(denoise: Denoise, x_0: Array, fixed: Bool[Array, "b l"]) -> Denoise:
    """Holds x̂_0 at the given `x_0` where `fixed`, so that these positions follow q(x_s | x_t, x_0) exactly.

    Every sampler then ends at x_0 there, and a self-conditioned network sees the given words from its second
    step on.
    """

    def filled(x_t: Array, t: Time, previous: Array) -> Array:
        return jnp.where(fixed[..., None], x_0, denoise(x_t, t, previous))

    return filled
