"""The state of samplers of tokens, what they need of a network, and how they reveal tokens, in blocks or in one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jtextdiff.diffusion.distributions import Categorical
from jtextdiff.diffusion.randomness import Keys, fold_in
from jtextdiff.diffusion.schedules import Time
from jtextdiff.sampling.loop import Step

Hidden = Any
"""The last hidden states of a self-conditioned network, [b, l, w]; None of any other."""

Predict = Callable[[Int[Array, "b l"], Time, Hidden], tuple[Float[Array, "b l v"], Hidden]]
"""(x_t, t, hidden states of the step before) ↦ log p(x_0 | x_t) of each token on its own, hidden states."""

Draw = Callable[[Keys, Float[Array, "b l v"]], Int[Array, "b l"]]
"""(keys, log p) ↦ tokens."""


class MaskedState(NamedTuple):
    """State of an unmasking sampler."""

    tokens: Int[Array, "b l"]
    masked: Bool[Array, "b l"]
    calls: Int[Array, "b"]  # network calls that each row has needed
    log_p: Float[Array, "b l"]  # of each token when it was drawn, nats; 0 if it has not been
    hidden: Hidden = None

    @classmethod
    def start(cls, tokens: Int[Array, "b l"], masked: Bool[Array, "b l"], hidden: Hidden = None) -> "MaskedState":
        """Returns the state before the first call."""
        return cls(tokens, masked, jnp.zeros(len(tokens), int), jnp.zeros(tokens.shape), hidden)


def sample_tokens(keys: Keys, log_p: Float[Array, "b l v"]) -> Int[Array, "b l"]:
    """Draws each token from its own distribution."""
    return Categorical(logits=log_p).sample(keys)


def reveal(
    keys: Keys,
    state: MaskedState,
    selected: Bool[Array, "b l"],
    log_p: Float[Array, "b l v"],
    hidden: Hidden,
    draw: Draw = sample_tokens,
) -> MaskedState:
    """Returns the state after a call, with the masked tokens among the `selected` positions drawn from `log_p`."""
    tokens = draw(fold_in(keys, 1), log_p)
    selected = selected & state.masked
    calls = state.calls + jnp.any(state.masked, axis=-1)
    drawn = jnp.where(selected, Categorical(logits=log_p).log_prob(tokens), state.log_p)
    return MaskedState(jnp.where(selected, tokens, state.tokens), state.masked & ~selected, calls, drawn, hidden)


def in_blocks(step: Step, start: MaskedState, length: int, steps: int) -> tuple[Step, Array]:
    """Returns the step that reveals tokens of one block, and its grid: the index of each step, [n].

    A block holds the next `length` tokens that are masked at the `start`; given ones belong to none. The blocks of a
    row, from left to right, have even shares of the `steps`: at least one call each, and at most one a token. While
    `step` reveals tokens of a block, those of later blocks are MASK. A block whose tokens are all revealed makes no
    call. Nie et al. (2025, LLaDA), §2.4.
    """
    block = (jnp.cumsum(start.masked, axis=-1) - 1) // length
    num_blocks = jnp.maximum(-(-jnp.sum(start.masked, axis=-1) // length), 1)
    calls = jnp.clip(steps // num_blocks, 1, length)
    most_blocks = -(-start.tokens.shape[1] // length)

    def within(keys: Keys, state: MaskedState, index: Array) -> MaskedState:
        current = state.masked & (block == (index // calls)[:, None])
        active = jnp.any(current, axis=-1)

        def advance(state: MaskedState) -> MaskedState:
            after = step(keys, state._replace(masked=current), calls - index % calls)
            # The hidden states of a row are those of its own calls, whatever other rows need.
            hidden = jax.tree.map(
                lambda new, old: jnp.where(active[:, None, None], new, old), after.hidden, state.hidden
            )
            return after._replace(masked=after.masked | (state.masked & ~current), hidden=hidden)

        return jax.lax.cond(jnp.any(active), advance, lambda state: state, state)

    return within, jnp.arange(min(max(steps, most_blocks), most_blocks * length))
