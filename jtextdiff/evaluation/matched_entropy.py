"""Scores of samples at the temperature at which they are as varied as real text.

A temperature trades fluency for variety, so models are compared fairly where the entropy of their samples is that of
real text, and not at their own defaults.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from jtextdiff.cli.errors import UserError
from jtextdiff.inference.model import Model

TOLERANCE = 0.02
"""Nats by which the entropy may differ."""

MAX_SETS = 7
"""Sets of samples that are drawn, at most, to find the temperature."""

LEAST, MOST = 0.2, 5.0
"""Temperatures between which it is searched for."""


def check_temperature(model: Model) -> None:
    """Raises UserError if the model's sampler has no temperature, or does not use it."""
    sampler: Any = model.method.sampler
    if not hasattr(sampler, "temperature") or sampler.name in ("greedy", "beam"):
        raise UserError(
            f"--match_entropy varies the temperature of the sampler, and {sampler.name} has none: take another sampler."
        )


def with_temperature(model: Model, temperature: float) -> Model:
    """Returns the model with another temperature of its sampler."""
    method: Any = model.method
    sampler = dataclasses.replace(method.sampler, temperature=temperature)
    return dataclasses.replace(model, method=dataclasses.replace(method, sampler=sampler))


def matching_temperature(entropy_at: Callable[[float], float], wanted: float, start: float, entropy: float) -> float:
    """Returns the temperature whose entropy is within TOLERANCE of the wanted one, or the nearest one that was tried.

    `entropy` is that at `start`. Entropy rises with temperature: the next one to try lies on the line through the
    nearest ones below and above or, while there is none on one side, 1.4 times as far.
    """
    tried = {start: entropy}
    while len(tried) < MAX_SETS:
        nearest = min(tried, key=lambda temperature: abs(tried[temperature] - wanted))
        if abs(tried[nearest] - wanted) <= TOLERANCE:
            break
        below = max((t for t in tried if tried[t] < wanted), default=None)
        above = min((t for t in tried if tried[t] >= wanted), default=None)
        if below is None or above is None:
            temperature = min(tried) / 1.4 if below is None else max(tried) * 1.4
        else:
            share = (wanted - tried[below]) / (tried[above] - tried[below])
            temperature = below + min(max(share, 0.1), 0.9) * (above - below)
        if not LEAST <= temperature <= MOST or temperature in tried:
            break
        tried[temperature] = entropy_at(temperature)
    return min(tried, key=lambda temperature: abs(tried[temperature] - wanted))
