"""Scores at the temperature at which samples have the entropy of real text.

A temperature trades fluency for variety, so models are compared fairly where the entropy of their samples is that of
real text, and not at their own defaults.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from jtextdiff.cli.errors import UserError, mistakes
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
    if sampler.name in ("greedy", "beam"):
        raise UserError(f"--match_entropy varies a temperature, and {sampler.name} has none: give --sampler sample.")
    with mistakes(ValueError):
        with_temperature(model, 1.4 * sampler.temperature)


def with_temperature(model: Model, temperature: float) -> Model:
    """Returns the model with another temperature of its sampler."""
    method: Any = model.method
    sampler = dataclasses.replace(method.sampler, temperature=temperature)
    return dataclasses.replace(model, method=dataclasses.replace(method, sampler=sampler))


def matching_temperature(entropy_at: Callable[[float], float], wanted: float, start: float, entropy: float) -> float:
    """Returns the temperature whose entropy is within TOLERANCE of the wanted one, or the nearest one that was tried.

    `entropy` is that at `start`. Entropy rises with temperature: the next one to try lies where the line through the
    nearest ones below and above has the wanted entropy, but not within a tenth of the way to either, since a line is a
    rough guide; while there is none on one side, it is 1.4 times higher or lower, from LEAST to MOST.
    """
    tried = {start: entropy}
    while len(tried) < MAX_SETS:
        nearest = min(tried, key=lambda temperature: abs(tried[temperature] - wanted))
        if abs(tried[nearest] - wanted) <= TOLERANCE:
            break
        below = max((t for t in tried if tried[t] < wanted), default=None)
        above = min((t for t in tried if tried[t] >= wanted), default=None)
        if below is None:
            temperature = max(min(min(tried) / 1.4, MOST), LEAST)
        elif above is None:
            temperature = min(max(max(tried) * 1.4, LEAST), MOST)
        else:
            share = (wanted - tried[below]) / (tried[above] - tried[below])
            temperature = below + min(max(share, 0.1), 0.9) * (above - below)
        wrong_way = temperature >= min(tried) if below is None else above is None and temperature <= max(tried)
        if wrong_way or temperature in tried:
            break
        tried[temperature] = entropy_at(temperature)
    return min(tried, key=lambda temperature: abs(tried[temperature] - wanted))
