"""Left-to-right decoding and beam search as steps.

Both take `next_token(tokens, position, cache)`, which returns the logits [n, v] of the token at a position, and the
network's cache after it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jtextdiff.diffusion.distributions import UNDEFINED, Categorical
from jtextdiff.diffusion.randomness import Keys
from jtextdiff.sampling.loop import Step

NextToken = Callable[[Int[Array, "n l"], Array, Any], tuple[Float[Array, "n v"], Any]]
"""(tokens, position, cache) ↦ (logits of the token at the position, cache)."""


class DecodingState(NamedTuple):
    """Tokens decoded so far, and the network's cache."""

    tokens: Int[Array, "b l"]
    cache: Any


def autoregress(next_token: NextToken, choose: Callable[[Categorical, Keys], Array] = Categorical.sample) -> Step:
    """Returns the step that decodes one token; a point of the grid is a position."""

    def step(keys: Keys, state: DecodingState, position: Array) -> DecodingState:
        logits, cache = next_token(state.tokens, position, state.cache)
        return DecodingState(state.tokens.at[:, position].set(choose(Categorical(logits=logits), keys)), cache)

    return step


class Beams(NamedTuple):
    """State of a beam search: `width` prefixes per text in consecutive rows, the most likely first."""

    tokens: Int[Array, "n l"]
    cache: Any
    log_p: Float[Array, "n"]


def initial_beams(state: DecodingState, width: int) -> Beams:
    """Returns identical beams, of which only the first of each text has probability."""
    log_p = jnp.where(jnp.arange(len(state.tokens)) % width == 0, 0.0, -jnp.inf)
    return Beams(state.tokens, state.cache, log_p)


def beam_search(next_token: NextToken, width: int, eos: int, pad: int) -> Step:
    """Returns the step that extends all beams by one position, for a normalised `next_token`.

    A finished beam stays as it is and continues with PAD.
    """

    def step(keys: Keys, state: Beams, position: Array) -> Beams:
        log_p, cache = next_token(state.tokens, position, state.cache)
        num, vocab_size = log_p.shape
        only_pad = jnp.where(jnp.arange(vocab_size) == pad, 0.0, -jnp.inf)
        log_p = jnp.where(jnp.any(state.tokens == eos, axis=-1)[:, None], only_pad, log_p) + state.log_p[:, None]
        best, index = jax.lax.top_k(log_p.reshape(num // width, width * vocab_size), width)
        parent = (jnp.arange(num // width)[:, None] * width + index // vocab_size).reshape(num)
        tokens, cache = jax.tree.map(lambda leaf: leaf[parent], (state.tokens, cache))
        token = jnp.where(jnp.isnan(best), UNDEFINED, index % vocab_size)
        return Beams(tokens.at[:, position].set(token.reshape(num)), cache, best.reshape(num))

    return step
