"""Unmasking steps: ancestral, first-hitting, confidence, entropy-bounded and mask-predict.

Every step samples in two stages: which tokens to reveal, then their values. In Gumbel-max sampling over tokens and MASK
a rare token would have to beat MASK with a float32 Gumbel, whose largest value is 16, and never does (Zheng et al.
2025).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jtextdiff.diffusion.distributions import UNDEFINED, Categorical, check_temperature_and_top_p
from jtextdiff.diffusion.masking import top_k_mask
from jtextdiff.diffusion.randomness import Keys, fold_in, per_row
from jtextdiff.diffusion.schedules import Schedule
from jtextdiff.sampling.loop import Step, time_grid
from jtextdiff.sampling.masked_state import Hidden, MaskedState, Predict
from jtextdiff.sampling.remasking import REMASKING, remasking

NAMES = ("ancestral", "first_hitting", "confidence", "entropy_bounded", "remasking")
GRIDS = ("uniform", "cosine")


@dataclass(frozen=True, kw_only=True)
class Unmasking:
    """Settings of an unmasking sampler."""

    name: str = "entropy_bounded"  # or ancestral, confidence, remasking; first_hitting, one token a call: see below
    steps: int = 64  # upper bound on calls; at most one a token but for remasking; not of first_hitting
    grid: str = "uniform"  # times of ancestral and remasking; "cosine" reveals few tokens while little is known
    temperature: float = 1.0
    top_p: float = 1.0  # tokens outside the most likely ones that make up this share are never sampled
    entropy: float = 0.1  # entropy_bounded: bound in nats on the entropies of the tokens revealed in one call
    remask: str = "renoise"  # remasking: which tokens are masked again, see sampling/remasking.py
    remask_rate: float = 0.04  # remasking: of "cap" and "rescale"

    names = NAMES

    def __post_init__(self) -> None:
        for field, names in (("name", NAMES), ("grid", GRIDS), ("remask", REMASKING)):
            if getattr(self, field) not in names:
                raise ValueError(f"sampler.{field} must be one of {names}, got {getattr(self, field)!r}.")
        if self.steps < 1:
            raise ValueError(f"sampler.steps must be at least 1, got {self.steps}.")
        check_temperature_and_top_p(self.temperature, self.top_p)
        if not 0 <= self.remask_rate <= 1:
            raise ValueError(f"sampler.remask_rate must be from 0 to 1, got {self.remask_rate}.")
        if not self.entropy >= 0:
            raise ValueError(f"sampler.entropy must be at least 0, got {self.entropy}.")

    @property
    def uses_steps(self) -> bool:
        """Whether `steps` limits the calls."""
        return self.name != "first_hitting"

    @property
    def revises(self) -> bool:
        """Whether tokens may change once all are revealed, so that no step can be skipped."""
        return self.name == "remasking"

    def step_and_grid(self, schedule: Schedule, predict: Predict, keys: Keys, start: MaskedState) -> tuple[Step, Any]:
        """Returns the step, and the grid over which it reveals all tokens that are masked at the start."""
        shape = start.tokens.shape
        if self.name == "remasking":
            step = remasking(schedule, predict, start, strategy=self.remask, rate=self.remask_rate)
            return step, unmasking_times(self.steps, self.grid)
        if self.name == "ancestral":
            return ancestral(schedule, predict, unmasking_times(self.steps, self.grid), keys, shape)
        if self.name == "first_hitting":
            return first_hitting(predict, keys, shape)
        if self.name == "confidence":
            return confidence(predict), jnp.arange(self.steps, 0, -1)
        return entropy_bounded(predict, self.entropy), jnp.arange(min(self.steps, shape[1]), 0, -1)


def unmasking_times(num_steps: int, grid: str) -> tuple[Array, Array]:
    """Returns (t, s) of each step: a uniform or a cosine grid (Shi et al. 2024, §4; Chang et al. 2022)."""

    def warp(u: Array) -> Array:
        return jnp.cos(jnp.pi / 2 * (1 - u))

    t, s = time_grid(num_steps)
    return (t, s) if grid == "uniform" else (warp(t), jnp.where(s > 0, warp(s), 0.0))


def ancestral(
    schedule: Schedule, predict: Predict, grid: tuple[Array, Array], keys: Keys, shape: tuple[int, ...]
) -> tuple[Step, Array]:
    """Returns the step x_s ~ q(x_s | x_t, x̂_0) over the `grid` of (t, s), and the indices to scan over.

    A masked token is revealed with probability (ᾱ_s − ᾱ_t)/(1 − ᾱ_t), whatever its value. All reveal steps are sampled
    at the start, and steps that would reveal nothing make no call. A text takes at most as many calls as it has tokens,
    each at the time, [b], from which its tokens are revealed.
    """
    t, s = grid
    reveal_at = reveal_steps(schedule, grid, keys, shape)
    return scheduled_unmasking(predict, reveal_at, lambda index: t[index]), jnp.arange(min(len(s), shape[1]))


def reveal_steps(
    schedule: Schedule, grid: tuple[Array, Array], keys: Keys, shape: tuple[int, ...]
) -> Int[Array, "b l"]:
    """Samples the step of the grid in which each token is revealed: the number of steps that leave it masked."""
    t, s = grid
    masked = jnp.expm1(schedule(s)) / jnp.expm1(schedule(t[0]))
    return len(s) - jnp.searchsorted(masked[::-1], per_row(jax.random.uniform, keys, shape), side="right")


def first_hitting(predict: Predict, keys: Keys, shape: tuple[int, ...]) -> tuple[Step, Array]:
    """Returns the step that reveals one token of each text, in random order: `ancestral` with infinitely many steps.

    Zheng et al. (2025), §4: the times between need not be sampled for a network that does not read them.
    """
    order = jnp.argsort(per_row(jax.random.uniform, keys, shape), axis=-1)
    reveal_at = jnp.argsort(order, axis=-1)
    return scheduled_unmasking(predict, reveal_at, lambda index: jnp.ones(index.shape)), jnp.arange(shape[1])


def scheduled_unmasking(
    predict: Predict, reveal_at: Int[Array, "b l"], time: Callable[[Int[Array, "b"]], Array]
) -> Step:
    """Returns the step that reveals the masked tokens that come next by `reveal_at` in their text.

    `time` maps that index to the time that the network reads.
    """

    def step(keys: Keys, state: MaskedState, index: Array) -> MaskedState:
        next_index = jnp.min(jnp.where(state.masked, reveal_at, jnp.iinfo(reveal_at.dtype).max), axis=-1)
        log_p, hidden = predict(state.tokens, time(next_index), state.hidden)
        return _reveal(keys, state, reveal_at == next_index[:, None], log_p, hidden)

    return step


def confidence(predict: Predict) -> Step:
    """Returns the step that keeps the sampled tokens of highest probability, an even share per step.

    Chang et al. (2022); it has no likelihood. A point of the grid is the number of steps left, this one included.
    """

    def step(keys: Keys, state: MaskedState, steps_left: Array) -> MaskedState:
        log_p, hidden = predict(state.tokens, 1.0, state.hidden)
        tokens = Categorical(logits=log_p).sample(fold_in(keys, 1))
        # Tokens without a distribution have least confidence, but are revealed before the time ends.
        log_p_drawn = Categorical(logits=log_p).log_prob(tokens)
        confidences = jnp.where(tokens == UNDEFINED, jnp.finfo(log_p.dtype).min, log_p_drawn)
        confidences = jnp.where(state.masked, confidences, -jnp.inf)
        count = jnp.ceil(jnp.sum(state.masked, axis=-1) / steps_left).astype(int)
        return _reveal(keys, state, top_k_mask(confidences, count), log_p, hidden)

    return step


def entropy_bounded(predict: Predict, bound: float) -> Step:
    """Returns the step that reveals as many tokens of lowest entropy as keep Σ H − max H within `bound` nats.

    Ben-Hamu et al. (2025), §3: this bounds the divergence of the joint distribution of the tokens from the product of
    their marginals. A point of the grid is the number of steps left, this one included: if few are left, an even share
    of the tokens is revealed in any case.
    """

    def step(keys: Keys, state: MaskedState, steps_left: Array) -> MaskedState:
        log_p, hidden = predict(state.tokens, 1.0, state.hidden)
        p = jnp.exp(log_p)
        entropy = jnp.where(state.masked, -jnp.sum(jnp.where(p > 0, p * log_p, 0.0), axis=-1), jnp.inf)
        ascending = jnp.sort(entropy, axis=-1)
        finite = jnp.where(ascending < jnp.inf, ascending, 0.0)
        count = jnp.sum((jnp.cumsum(finite, axis=-1) - finite <= bound) & (ascending < jnp.inf), axis=-1)
        count = jnp.maximum(count, -(-jnp.sum(state.masked, axis=-1) // steps_left))
        return _reveal(keys, state, top_k_mask(-entropy, count), log_p, hidden)

    return step


def _reveal(
    keys: Keys, state: MaskedState, selected: Bool[Array, "b l"], log_p: Float[Array, "b l v"], hidden: Hidden
) -> MaskedState:
    """Samples the masked tokens among the selected positions."""
    tokens = Categorical(logits=log_p).sample(fold_in(keys, 1))
    selected = selected & state.masked
    calls = state.calls + jnp.any(state.masked, axis=-1)
    return MaskedState(jnp.where(selected, tokens, state.tokens), state.masked & ~selected, calls, hidden)


class MaskPredictState(NamedTuple):
    """State of mask-predict: all tokens, and the log-probability of each when it was last sampled."""

    tokens: Int[Array, "b l"]
    log_p: Float[Array, "b l"]


def mask_predict(predict: Predict, mask: int, free: Bool[Array, "b l"], num_steps: int) -> Step:
    """Returns the step i that masks and resamples the ⌊N (1 − i/T)⌋ least likely of the N free tokens; at i = 0, all.

    Ghazvininejad et al. (2019), §4: tokens that stay keep the log-probability with which they were sampled.
    """

    def step(keys: Keys, state: MaskPredictState, index: Array) -> MaskPredictState:
        count = jnp.sum(free, axis=-1) * (num_steps - index) // num_steps
        remask = top_k_mask(jnp.where(free, -state.log_p, -jnp.inf), jnp.maximum(count, 1)) & free
        prediction = Categorical(logits=predict(jnp.where(remask, mask, state.tokens), 1.0, None)[0])
        tokens = prediction.sample(fold_in(keys, 1))
        return MaskPredictState(
            tokens=jnp.where(remask, tokens, state.tokens),
            log_p=jnp.where(remask, prediction.log_prob(tokens), state.log_p),
        )

    return step
