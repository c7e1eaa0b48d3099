"""Transforms: what is done to a denoiser between the network and the sampler; and the rounding they rest on."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jtextdiff.diffusion.distributions import narrowed
from jtextdiff.diffusion.schedules import Time
from jtextdiff.sampling.loop import Denoise


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
        return narrowed(denoise(x_t, t, previous), temperature)

    return tempered


def self_condition(estimate: Callable[[], Any], shown: Bool[Array, ""], like: Array) -> Array:
    """The previous x̂_0 of a training step: an estimate, as a constant, if it is `shown`; else zeros.

    Chen et al. (2023), algorithm 1.
    """
    return jax.lax.cond(shown, lambda: jax.lax.stop_gradient(estimate()), lambda: jnp.zeros_like(like))


def infill(denoise: Denoise, x_0: Array, fixed: Bool[Array, "b l"]) -> Denoise:
    """Holds x̂_0 at the given `x_0` where `fixed`, so that these positions follow q(x_s | x_t, x_0) exactly.

    Every sampler then ends at x_0 there, and a self-conditioned network sees the given words from its second
    step on.
    """

    def filled(x_t: Array, t: Time, previous: Array) -> Array:
        return jnp.where(fixed[..., None], x_0, denoise(x_t, t, previous))

    return filled


def nearest(
    table: Float[Array, "v d"], x: Float[Array, "b l d"], possible: Bool[Array, "#b #l v"] | None = None
) -> Int[Array, "b l"]:
    """The row of `table` nearest to each vector, by Euclidean distance: a row is always nearest to itself.

    Only rows that are `possible` are looked at, if that is given.
    """
    closeness = 2 * x @ table.T - jnp.sum(table**2, axis=-1)
    return jnp.argmax(closeness if possible is None else jnp.where(possible, closeness, -jnp.inf), axis=-1)


def spread(table: Float[Array, "v d"]) -> dict[str, Float[Array, ""]]:
    """How well the rows of a table are kept apart: their mean norm, and the mean distance to the nearest other
    row as a share of that norm."""
    square = jnp.sum(table**2, axis=-1)
    distance = square[:, None] - 2 * table @ table.T + square + jnp.diag(jnp.full(len(table), jnp.inf))
    norm = jnp.mean(jnp.sqrt(square))
    closest = jnp.mean(jnp.sqrt(jnp.maximum(jnp.min(distance, axis=-1), 0.0)))
    return {"embedding_norm": norm, "nearest_word": closest / norm}
