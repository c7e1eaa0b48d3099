"""Unmasking: Steps from masked words to words, and the settings that choose one.

Every step draws in two stages, which words and then what they are: in one race a rare word would have to beat MASK
with a float32 Gumbel, whose largest is 16, and never does (Zheng et al. 2025).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jtextdiff.diffusion.discrete import largest
from jtextdiff.diffusion.distributions import Categorical, check_narrowing
from jtextdiff.diffusion.randomness import Keys, draw, fold
from jtextdiff.diffusion.schedules import Schedule, Time
from jtextdiff.sampling.loop import Step, ticks

Predict = Callable[[Int[Array, "b l"], Time], Float[Array, "b l v"]]
"""(x_t, t) ↦ log p(x_0 | x_t) of each word on its own."""

NAMES = ("ancestral", "first_hitting", "confidence", "entropy_bounded")


class Masking(NamedTuple):
    """Where an unmasking stands."""

    tokens: Int[Array, "b l"]
    masked: Bool[Array, "b l"]
    calls: Int[Array, "b"]  # network calls that the row has needed


@dataclass(frozen=True, kw_only=True)
class Unmasking:
    """How masked words are written."""

    name: str = "entropy_bounded"  # or ancestral; first_hitting, one word a call; confidence: see each
    steps: int = 64  # calls at most, and never more than words; first_hitting does not ask
    grid: str = "uniform"  # the times of ancestral; or "cosine": few words at first, when little is known of them
    temperature: float = 1.0
    top_p: float = 1.0  # words outside the likeliest that make up this share are not drawn
    entropy: float = 0.1  # entropy_bounded: nats that the words of one call may add up to

    def __post_init__(self) -> None:
        for field, names in (("name", NAMES), ("grid", ("uniform", "cosine"))):
            if getattr(self, field) not in names:
                raise ValueError(f"sampler.{field} must be one of {names}, got {getattr(self, field)!r}.")
        if self.steps < 1:
            raise ValueError(f"sampler.steps must be at least 1, got {self.steps}.")
        check_narrowing(self.temperature, self.top_p)
        if not self.entropy >= 0:
            raise ValueError(f"sampler.entropy must be at least 0, got {self.entropy}.")

    @property
    def stepped(self) -> bool:
        """Whether `steps` limits the calls."""
        return self.name != "first_hitting"

    def walk(self, schedule: Schedule, predict: Predict, keys: Keys, shape: tuple[int, ...]) -> tuple[Step, Any]:
        """The step, and the ticks that write every word of texts of this shape, [b, l]."""
        if self.name == "ancestral":
            return ancestral(schedule, predict, times(self.steps, self.grid), keys, shape)
        if self.name == "first_hitting":
            return first_hitting(predict, keys, shape)
        if self.name == "confidence":
            return confidence(predict), jnp.arange(self.steps, 0, -1)
        return entropy_bounded(predict, self.entropy), jnp.arange(min(self.steps, shape[1]), 0, -1)


def times(num_steps: int, grid: str) -> tuple[Array, Array]:
    """(t, s) of each step, evenly spaced; or by a cosine (Shi et al. 2024, §4; Chang et al. 2022)."""
    t, s = ticks(num_steps)
    bend = lambda u: jnp.cos(jnp.pi / 2 * (1 - u))
    return (t, s) if grid == "uniform" else (bend(t), jnp.where(s > 0, bend(s), 0.0))


def ancestral(
    schedule: Schedule, predict: Predict, grid: tuple[Array, Array], keys: Keys, shape: tuple[int, ...]
) -> tuple[Step, Array]:
    """x_s ~ q(x_s | x_t, x̂_0) over the `grid` of (t, s): a masked word is revealed with (ᾱ_s − ᾱ_t)/(1 − ᾱ_t).

    That does not depend on what the words are, so all is drawn at the start, and no call is made where it would reveal
    nothing: a text takes no more calls than it has words, each at the time, [b], that its words are revealed from.
    """
    t, s = grid
    when = reveal_ticks(schedule, grid, keys, shape)
    return _planned(predict, when, lambda turn: t[turn]), jnp.arange(min(len(s), shape[1]))


def reveal_ticks(
    schedule: Schedule, grid: tuple[Array, Array], keys: Keys, shape: tuple[int, ...]
) -> Int[Array, "b l"]:
    """The step of the grid in which each word is revealed: the number of those that leave it masked."""
    t, s = grid
    masked = jnp.expm1(schedule(s)) / jnp.expm1(schedule(t[0]))
    return len(s) - jnp.searchsorted(masked[::-1], draw(jax.random.uniform, keys, shape), side="right")


def first_hitting(predict: Predict, keys: Keys, shape: tuple[int, ...]) -> tuple[Step, Array]:
    """One word of each text a call, in random order: `ancestral` in infinitely many steps.

    Zheng et al. (2025), §4: the times between need not be drawn for a network that does not read them.
    """
    order = jnp.argsort(draw(jax.random.uniform, keys, shape), axis=-1)
    return _planned(predict, jnp.argsort(order, axis=-1), jnp.ones_like), jnp.arange(shape[1])


def confidence(predict: Predict) -> Step:
    """The words that were drawn with the highest probability, an even share a step (Chang et al. 2022; no likelihood).

    A tick is the number of steps left, this one included.
    """

    def step(keys: Keys, state: Masking, left: Array) -> Masking:
        log_p = predict(state.tokens, 1.0)
        words = Categorical(logits=log_p).sample(fold(keys, 1))
        sure = jnp.where(state.masked, Categorical(logits=log_p).log_prob(words), -jnp.inf)
        count = jnp.ceil(jnp.sum(state.masked, axis=-1) / left).astype(int)
        return _written(keys, state, largest(sure, count), log_p)

    return step


def entropy_bounded(predict: Predict, bound: float) -> Step:
    """The surest words, as many as keep what they may disagree on, Σ H − max H, within `bound` nats.

    Ben-Hamu et al. (2025), §3: the joint law of the words differs from the product of theirs by no more. A tick is the
    number of steps left, this one included: where they are few, an even share of the words is written all the same.
    """

    def step(keys: Keys, state: Masking, left: Array) -> Masking:
        log_p = predict(state.tokens, 1.0)
        p = jnp.exp(log_p)
        entropy = jnp.where(state.masked, -jnp.sum(jnp.where(p > 0, p * log_p, 0.0), axis=-1), jnp.inf)
        rising = jnp.sort(entropy, axis=-1)
        finite = jnp.where(rising < jnp.inf, rising, 0.0)
        count = jnp.sum((jnp.cumsum(finite, axis=-1) - finite <= bound) & (rising < jnp.inf), axis=-1)
        count = jnp.maximum(count, -(-jnp.sum(state.masked, axis=-1) // left))
        return _written(keys, state, largest(-entropy, count), log_p)

    return step


class Guess(NamedTuple):
    """Where mask-predict stands: every word, and how likely it was when it was last written."""

    tokens: Int[Array, "b l"]
    log_p: Float[Array, "b l"]


def mask_predict(predict: Predict, mask: int, free: Bool[Array, "b l"], num_steps: int) -> Step:
    """The ⌊N (1 − i/T)⌋ least likely of the N free words are masked and written anew; at tick i = 0, all.

    Ghazvininejad et al. (2019), §4: what stays keeps the probability that it was written with.
    """

    def step(keys: Keys, state: Guess, tick: Array) -> Guess:
        count = jnp.sum(free, axis=-1) * (num_steps - tick) // num_steps
        again = largest(jnp.where(free, -state.log_p, -jnp.inf), jnp.maximum(count, 1)) & free
        law = Categorical(logits=predict(jnp.where(again, mask, state.tokens), 1.0))
        words = law.sample(fold(keys, 1))
        return Guess(jnp.where(again, words, state.tokens), jnp.where(again, law.log_prob(words), state.log_p))

    return step


def _planned(predict: Predict, when: Int[Array, "b l"], time: Callable[[Int[Array, "b"]], Array]) -> Step:
    """The masked words whose turn, by `when`, comes next in their text; `time` is what the network is told of it."""

    def step(keys: Keys, state: Masking, tick: Array) -> Masking:
        turn = jnp.min(jnp.where(state.masked, when, jnp.iinfo(when.dtype).max), axis=-1)
        return _written(keys, state, when == turn[:, None], predict(state.tokens, time(turn)))

    return step


def _written(keys: Keys, state: Masking, chosen: Bool[Array, "b l"], log_p: Float[Array, "b l v"]) -> Masking:
    """The masked words among the chosen, drawn."""
    words = Categorical(logits=log_p).sample(fold(keys, 1))
    chosen = chosen & state.masked
    calls = state.calls + jnp.any(state.masked, axis=-1)
    return Masking(jnp.where(chosen, words, state.tokens), state.masked & ~chosen, calls)
