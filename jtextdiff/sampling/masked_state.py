"""The state of samplers of tokens, and what they need of a network."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int

from jtextdiff.diffusion.schedules import Time

Hidden = Any
"""The last hidden states of a self-conditioned network, [b, l, w]; None of any other."""

Predict = Callable[[Int[Array, "b l"], Time, Hidden], tuple[Float[Array, "b l v"], Hidden]]
"""(x_t, t, hidden states of the step before) ↦ log p(x_0 | x_t) of each token on its own, hidden states."""


class MaskedState(NamedTuple):
    """State of an unmasking sampler."""

    tokens: Int[Array, "b l"]
    masked: Bool[Array, "b l"]
    calls: Int[Array, "b"]  # network calls that each row has needed
    hidden: Hidden = None
