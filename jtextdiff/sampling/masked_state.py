"""The state of samplers that unmask, and what they need of a network."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Bool, Float, Int

from jtextdiff.diffusion.schedules import Time

Predict = Callable[[Int[Array, "b l"], Time], Float[Array, "b l v"]]
"""(x_t, t) ↦ log p(x_0 | x_t) of each token on its own."""


class MaskedState(NamedTuple):
    """State of an unmasking sampler."""

    tokens: Int[Array, "b l"]
    masked: Bool[Array, "b l"]
    calls: Int[Array, "b"]  # network calls that each row has needed
