"""The state of samplers of tokens, what they need of a network, and how they reveal tokens."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jtextdiff.diffusion.distributions import Categorical
from jtextdiff.diffusion.randomness import Keys, fold_in
from jtextdiff.diffusion.schedules import Time

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
