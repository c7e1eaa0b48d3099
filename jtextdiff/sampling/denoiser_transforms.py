"""Transforms of denoisers: temperature, logit shaping, clamping, infilling and self-conditioning."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jtextdiff.diffusion.distributions import check_temperature_and_top_p, temper_and_top_p
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


class LogitShaping(NamedTuple):
    """How the logits of a discrete sampler become the distribution from which it draws."""

    temperature: float = 1.0
    top_p: float = 1.0
    anneal: float = 1.0
    frequency_penalty: float = 0.0

    def check(self) -> None:
        """Raises ValueError for a setting that cannot be applied."""
        check_temperature_and_top_p(self.temperature, self.top_p)
        if not 0 < self.anneal < math.inf:
            raise ValueError(f"sampler.anneal must be a number above 0, got {self.anneal}.")
        if not 0 <= self.frequency_penalty < math.inf:
            raise ValueError(f"sampler.frequency_penalty must be at least 0, got {self.frequency_penalty}.")

    def __call__(
        self, logits: Float[Array, "b l v"], tokens: Int[Array, "b n"], noise_share: Array | float
    ) -> Float[Array, "b l v"]:
        """Returns log p of each token: less of those in the text so far, then a temperature, then top-p.

        A token with n occurrences among the `tokens` loses `frequency_penalty` log(1 + n); ids outside the vocabulary
        are not counted. The temperature falls, or rises, from `temperature` to `anneal` times it, with the
        `noise_share` (of masked tokens, [b] or []) to the power 3/2.
        """
        if self.frequency_penalty:
            rows = jnp.arange(len(tokens))[:, None]
            counts = jnp.zeros((len(tokens), logits.shape[-1])).at[rows, tokens].add(1.0, mode="drop")
            logits = logits - self.frequency_penalty * jnp.log1p(counts)[:, None]
        temperature: Any = self.temperature
        if self.anneal != 1:
            share = jnp.reshape(noise_share, (-1, 1, 1))
            temperature = temperature * (self.anneal + (1 - self.anneal) * share**1.5)
        return temper_and_top_p(logits, temperature, self.top_p)


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
