"""Unmasking steps: ancestral, first-hitting, confidence, entropy-bounded, ordered, self-planning and mask-predict.

Every step samples in two stages: which tokens to reveal, then their values. In Gumbel-max sampling over tokens and MASK
a rare token would have to beat MASK with a float32 Gumbel, whose largest value is 16, and never does (Zheng et al.
2025).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jtextdiff.diffusion.distributions import UNDEFINED, Categorical
from jtextdiff.diffusion.masking import first_of_ties, top_k_mask
from jtextdiff.diffusion.randomness import Keys, fold_in, per_row
from jtextdiff.diffusion.schedules import Schedule
from jtextdiff.sampling.denoiser_transforms import LogitShaping
from jtextdiff.sampling.loop import Step, unmasking_times, unroll
from jtextdiff.sampling.masked_state import Draw, MaskedState, Predict, in_blocks, reveal, sample_tokens
from jtextdiff.sampling.remasking import CORRECTIONS, REMASKING, corrected, loop_times, remasking

NAMES = ("ancestral", "first_hitting", "confidence", "entropy_bounded", "ordered", "self_planning", "remasking")
REVISING = ("self_planning", "remasking")
GRIDS = ("uniform", "cosine")
LOWEST = -1e30
"""The priority of tokens without a distribution, which are revealed last."""


@dataclass(frozen=True, kw_only=True)
class Unmasking:
    """Settings of an unmasking sampler."""

    name: str = "entropy_bounded"  # or one of NAMES, see below; first_hitting: one token a call
    steps: int = 64  # upper bound on calls, but of first_hitting; without revisions there is at most one a token
    grid: str = "uniform"  # times of ancestral and remasking; "cosine" reveals few tokens while little is known
    temperature: float = 1.0
    top_p: float = 1.0  # tokens outside the most likely ones that make up this share are never sampled
    anneal: float = 1.0  # temperature of the last tokens, as a multiple of that of the first
    frequency_penalty: float = 0.0  # taken from the logit of a token in the text, times log(1 + its number)
    entropy: float = 0.1  # entropy_bounded: bound in nats on the entropies of the tokens revealed in one call
    order: str = "margin"  # ordered: the positions that are revealed first, see ORDERS
    eta: float = 1.0  # self_planning: weight of the log p of revealed tokens; 0: they stay, 2: they are revised eagerly
    remask: str = "renoise"  # remasking: which tokens are masked again, see sampling/remasking.py
    remask_rate: float = 0.04  # remasking: of "cap", "rescale" and "loop"
    correct: str = "off"  # "doubtful" or "random": what to draw anew in a finished text, unless the sampler revises
    correct_tokens: int = 1  # masked again at once by a correction
    block_length: int | None = None  # tokens are revealed block by block, from left to right; None: in one block

    names = NAMES

    def __post_init__(self) -> None:
        choices = {"name": NAMES, "grid": GRIDS, "order": ORDERS, "remask": REMASKING, "correct": CORRECTIONS}
        for field, names in choices.items():
            if getattr(self, field) not in names:
                raise ValueError(f"sampler.{field} must be one of {tuple(names)}, got {getattr(self, field)!r}.")
        for field in ("steps", "correct_tokens", "block_length"):
            if (value := getattr(self, field)) is not None and value < 1:
                raise ValueError(f"sampler.{field} must be at least 1, got {value}.")
        if self.block_length is not None and self.revises:
            got, instead = f"correct={self.correct!r}", "--override method.sampler.correct=off"
            if self.name in REVISING:
                got, instead = f"name={self.name!r}", "another sampler, such as --sampler confidence"
            raise ValueError(f"sampler.block_length needs a sampler without revisions, got {got}; use {instead}.")
        self.shaping.check()
        if not 0 <= self.remask_rate <= 1:
            raise ValueError(f"sampler.remask_rate must be from 0 to 1, got {self.remask_rate}.")
        for field in ("entropy", "eta"):
            if not getattr(self, field) >= 0:
                raise ValueError(f"sampler.{field} must be at least 0, got {getattr(self, field)}.")

    @property
    def shaping(self) -> LogitShaping:
        return LogitShaping(self.temperature, self.top_p, self.anneal, self.frequency_penalty)

    @property
    def uses_steps(self) -> bool:
        """Returns whether `steps` limits the calls."""
        return self.name != "first_hitting" or self.correct != "off"

    @property
    def revises(self) -> bool:
        """Returns whether tokens may change once all are revealed, so that no step can be skipped."""
        return self.name in REVISING or self.correct != "off"

    @property
    def description(self) -> str:
        """The name of the sampler, and whether finished texts are corrected or texts have blocks."""
        if self.block_length is not None:
            return f"{self.name} in blocks"
        corrects = self.correct != "off" and self.name not in REVISING
        return f"{self.name} with corrections" if corrects else self.name

    @property
    def has_order(self) -> bool:
        """Returns whether the unmasked tokens determine the next ones to reveal: the likelihood is then exact."""
        return self.name in ("entropy_bounded", "ordered")

    def step_and_grid(
        self, schedule: Schedule, predict: Predict, keys: Keys, start: MaskedState, draw: Draw = sample_tokens
    ) -> tuple[Step, Any]:
        """Returns the step, and the grid over which it reveals all tokens that are masked at the start."""
        shape = start.tokens.shape
        if self.name == "remasking":
            step = remasking(schedule, predict, start, strategy=self.remask, rate=self.remask_rate)
            return step, loop_times(self.steps) if self.remask == "loop" else unmasking_times(self.steps, self.grid)
        if self.name == "self_planning":
            return self_planning(predict, start, self.eta, self.steps), jnp.arange(self.steps, 0, -1)
        block = shape[1] if self.block_length is None else min(self.block_length, shape[1])
        steps = self.steps if self.uses_steps else block * shape[1]  # a call for each token of any block
        if self.name == "ancestral":
            step = ancestral(schedule, predict, unmasking_times(self.steps, self.grid), keys, shape)
        elif self.name == "first_hitting":
            step = first_hitting(predict, keys, shape)
        elif self.name == "confidence":
            step = confidence(predict)
        elif self.name == "ordered":
            step = ordered(predict, self.order, draw)
        else:
            step = entropy_bounded(predict, self.entropy, draw)
        if self.correct != "off":
            return corrected(step, start, choice=self.correct, count=self.correct_tokens), jnp.arange(steps, 0, -1)
        in_one = step, jnp.arange(min(steps, block), 0, -1)
        return in_one if self.block_length is None else in_blocks(step, start, block, steps)


def ancestral(
    schedule: Schedule, predict: Predict, grid: tuple[Array, Array], keys: Keys, shape: tuple[int, ...]
) -> Step:
    """Returns the step x_s ~ q(x_s | x_t, x̂_0) over the `grid` of (t, s).

    A masked token is revealed with probability (ᾱ_s − ᾱ_t)/(1 − ᾱ_t), whatever its value. All reveal steps are sampled
    at the start, and steps that would reveal nothing make no call. A text takes at most as many calls as it has tokens,
    each at the time, [b], from which its tokens are revealed. A point of the sampling grid is the number of steps left.
    """
    reveal_at = reveal_steps(schedule, grid, keys, shape)
    return scheduled_unmasking(predict, reveal_at, lambda index: grid[0][index])


def reveal_steps(
    schedule: Schedule, grid: tuple[Array, Array], keys: Keys, shape: tuple[int, ...]
) -> Int[Array, "b l"]:
    """Samples the step of the grid in which each token is revealed: the number of steps that leave it masked."""
    t, s = grid
    masked = jnp.expm1(schedule(s)) / jnp.expm1(schedule(t[0]))
    return len(s) - jnp.searchsorted(masked[::-1], per_row(jax.random.uniform, keys, shape), side="right")


def first_hitting(predict: Predict, keys: Keys, shape: tuple[int, ...]) -> Step:
    """Returns the step that reveals one token of each text, in random order: `ancestral` with infinitely many steps.

    Zheng et al. (2025), §4: the times between need not be sampled for a network that does not read them.
    """
    order = jnp.argsort(per_row(jax.random.uniform, keys, shape), axis=-1)
    reveal_at = jnp.argsort(order, axis=-1)
    return scheduled_unmasking(predict, reveal_at, lambda index: jnp.ones(index.shape))


def scheduled_unmasking(
    predict: Predict, reveal_at: Int[Array, "b l"], time: Callable[[Int[Array, "b"]], Array]
) -> Step:
    """Returns the step that reveals the masked tokens that come next by `reveal_at` in their text.

    `time` maps that index to the time that the network reads.
    """

    def step(keys: Keys, state: MaskedState, steps_left: Array) -> MaskedState:
        next_index = jnp.min(jnp.where(state.masked, reveal_at, jnp.iinfo(reveal_at.dtype).max), axis=-1)
        log_p, hidden = predict(state.tokens, time(next_index), state.hidden)
        selected = (reveal_at == next_index[:, None]) | (jnp.reshape(steps_left, (-1, 1)) == 1)
        return reveal(keys, state, selected, log_p, hidden)

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
        return reveal(keys, state, top_k_mask(first_of_ties(confidences), count), log_p, hidden)

    return step


def entropy_bounded(predict: Predict, bound: float, draw: Draw) -> Step:
    """Returns the step that reveals as many tokens of lowest entropy as keep Σ H − max H within `bound` nats.

    Ben-Hamu et al. (2025), §3: this bounds the divergence of the joint distribution of the tokens from the product of
    their marginals. A point of the grid is the number of steps left, this one included: if few are left, an even share
    of the tokens is revealed in any case.
    """

    def step(keys: Keys, state: MaskedState, steps_left: Array) -> MaskedState:
        log_p, hidden = predict(state.tokens, 1.0, state.hidden)
        entropy = jnp.where(state.masked, -ORDERS["entropy"](log_p), jnp.inf)
        ascending = jnp.sort(entropy, axis=-1)
        finite = jnp.where(ascending < jnp.inf, ascending, 0.0)
        count = jnp.sum((jnp.cumsum(finite, axis=-1) - finite <= bound) & (ascending < jnp.inf), axis=-1)
        count = jnp.maximum(count, -(-jnp.sum(state.masked, axis=-1) // steps_left))
        return reveal(keys, state, top_k_mask(first_of_ties(-entropy), count), log_p, hidden, draw)

    return step


def ordered(predict: Predict, order: str, draw: Draw) -> Step:
    """Returns the step that reveals the first positions by one of the ORDERS, an even share per step.

    The order depends on the unmasked tokens, not on the drawn ones. "margin": Kim et al. (2025).
    """

    def step(keys: Keys, state: MaskedState, steps_left: Array) -> MaskedState:
        log_p, hidden = predict(state.tokens, 1.0, state.hidden)
        priority = jnp.where(state.masked, jnp.nan_to_num(ORDERS[order](log_p), nan=LOWEST), -jnp.inf)
        count = -(-jnp.sum(state.masked, axis=-1) // steps_left)
        return reveal(keys, state, top_k_mask(first_of_ties(priority), count), log_p, hidden, draw)

    return step


def _margin(log_p: Float[Array, "b l v"]) -> Float[Array, "b l"]:
    first, second = jnp.moveaxis(jnp.exp(jax.lax.top_k(log_p, 2)[0]), -1, 0)
    return first - second


def _negative_entropy(log_p: Float[Array, "b l v"]) -> Float[Array, "b l"]:
    p = jnp.exp(log_p)
    return jnp.sum(jnp.where(p > 0, p * log_p, 0.0), axis=-1)


ORDERS: dict[str, Callable[[Float[Array, "b l v"]], Float[Array, "b l"]]] = {
    "margin": _margin,  # of the two most likely tokens
    "entropy": _negative_entropy,
    "probability": lambda log_p: jnp.max(log_p, axis=-1),
    "left_to_right": lambda log_p: -jnp.broadcast_to(jnp.arange(log_p.shape[1], dtype=float), log_p.shape[:2]),
}
"""log p of all tokens ↦ the priority of each position in `ordered`."""


def self_planning(predict: Predict, start: MaskedState, eta: float, num_steps: int) -> Step:
    """Returns the step that keeps the likeliest of all tokens, drawn and revealed ones, and masks the others (P2).

    Peng et al. (2025): the log p of a revealed token, as the network predicts it in its place, counts `eta` times. The
    loss does not train these predictions, yet they are informative. An even share more is kept in each step; with more
    steps than tokens the likeliest of several draws stay. A point of the grid is the number of steps left.
    """
    free = start.masked

    def step(keys: Keys, state: MaskedState, steps_left: Array) -> MaskedState:
        log_p, hidden = predict(state.tokens, 1.0, state.hidden)
        drawn = reveal(keys, state, state.masked, log_p, hidden)
        of_tokens = jnp.nan_to_num(Categorical(logits=log_p).log_prob(drawn.tokens), nan=LOWEST)
        priority = jnp.where(state.masked, of_tokens, eta * of_tokens if eta else jnp.inf)
        count = -(-jnp.sum(free, axis=-1) * (num_steps - steps_left + 1) // num_steps)
        masked = free & ~top_k_mask(jnp.where(free, first_of_ties(priority), -jnp.inf), count)
        calls = state.calls + jnp.any(free, axis=-1)
        return drawn._replace(tokens=jnp.where(masked, start.tokens, drawn.tokens), masked=masked, calls=calls)

    return step


def nll_in_order(
    sampler: Unmasking, schedule: Schedule, predict: Predict, start: MaskedState, tokens: Int[Array, "b l"]
) -> Float[Array, "b"]:
    """Returns −log p, nats, of drawing the `tokens` that are masked at the `start` in the order of a sampler.

    The sampler `has_order`. Unmasks as it does, with these tokens in place of drawn ones. Tokens that are revealed
    together are independent given the unmasked ones, so that this is exact at any number of steps (DUEL, 2603.01367).
    """
    sampler, key = replace(sampler, correct="off"), jax.random.key(0)  # nothing is drawn
    step, grid = sampler.step_and_grid(schedule, predict, key, start, draw=lambda keys, log_p: tokens)
    state, _ = unroll(step, start, key, grid, done=lambda state: ~jnp.any(state.masked))
    return -jnp.sum(jnp.where(start.masked, state.log_p, 0.0), axis=-1)


def mask_predict(predict: Predict, mask: int, free: Bool[Array, "b l"], num_steps: int) -> Step:
    """Returns the step i that masks and resamples the ⌊N (1 − i/T)⌋ least likely of the N free tokens; at i = 0, all.

    Ghazvininejad et al. (2019), §4: tokens that stay keep the log-probability with which they were sampled.
    """

    def step(keys: Keys, state: MaskedState, index: Array) -> MaskedState:
        count = jnp.sum(free, axis=-1) * (num_steps - index) // num_steps
        remask = top_k_mask(jnp.where(free, -state.log_p, -jnp.inf), jnp.maximum(count, 1)) & free
        log_p, _ = predict(jnp.where(remask, mask, state.tokens), 1.0, None)
        return reveal(keys, state._replace(masked=remask), remask, log_p, None)

    return step
