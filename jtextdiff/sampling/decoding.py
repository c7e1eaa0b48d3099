"""Left-to-right decoding and beam search as steps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jtextdiff.diffusion.distributions import Categorical
from jtextdiff.diffusion.randomness import Keys
from jtextdiff.sampling.loop import Step


class Writing(NamedTuple):
    """Where an autoregression stands."""

    tokens: Int[Array, "b l"]
    memory: Any  # what the network keeps of the tokens it has read


def autoregress(
    read: Callable[[Int[Array, "b l"], Array, Any], tuple[Array, Any]],
    choose: Callable[[Categorical, Keys], Array] = Categorical.sample,
) -> Step:
    """Writes one token a tick, a position; `read(tokens, position, memory)` are logits [b, k] and the memory then."""

    def step(keys: Keys, state: Writing, position: Array) -> Writing:
        logits, memory = read(state.tokens, position, state.memory)
        return Writing(state.tokens.at[:, position].set(choose(Categorical(logits=logits), keys)), memory)

    return step


class Beams(NamedTuple):
    """Where a search stands: `width` beginnings a text, one after another in the rows, the likeliest first."""

    tokens: Int[Array, "n l"]
    memory: Any
    log_p: Float[Array, "n"]


def start_beams(state: Writing, width: int) -> Beams:
    """Beams that are all the same; only the first of each text counts."""
    log_p = jnp.where(jnp.arange(len(state.tokens)) % width == 0, 0.0, -jnp.inf)
    return Beams(state.tokens, state.memory, log_p)


def beam_search(
    read: Callable[[Int[Array, "n l"], Array, Any], tuple[Array, Any]], width: int, eos: int, pad: int
) -> Step:
    """One position a tick, for a normalised `read` as in `autoregress`. A text that has ended stays; PAD follows."""

    def step(keys: Keys, state: Beams, position: Array) -> Beams:
        log_p, memory = read(state.tokens, position, state.memory)
        num, words = log_p.shape
        stays = jnp.where(jnp.arange(words) == pad, 0.0, -jnp.inf)
        log_p = jnp.where(jnp.any(state.tokens == eos, axis=-1)[:, None], stays, log_p) + state.log_p[:, None]
        best, index = jax.lax.top_k(log_p.reshape(num // width, width * words), width)
        parent = (jnp.arange(num // width)[:, None] * width + index // words).reshape(num)
        tokens, memory = jax.tree.map(lambda leaf: leaf[parent], (state.tokens, memory))
        return Beams(tokens.at[:, position].set((index % words).reshape(num)), memory, best.reshape(num))

    return step
