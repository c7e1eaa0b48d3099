"""Profiles: a trace of a few training steps, for TensorBoard's profile page or ui.perfetto.dev."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax

from jtextdiff.cli.output import say

WARM, TRACED = 10, 10
"""Steps that are left to pass first, and steps that are traced then."""


@contextmanager
def traced(folder: Path, start: int) -> Iterator[Callable[[int], None]]:
    """A function to be told of every step of a run that goes on from step `start`; it traces some of them."""
    first, running = start + WARM, []

    def end() -> None:
        if running:
            jax.profiler.stop_trace()
            if running[-1] > first:
                say(f"Steps {first + 1} to {running[-1]} are traced in {folder}, for TensorBoard or Perfetto.")
            running.clear()

    def trace(done: int) -> None:
        if done == first:
            jax.profiler.start_trace(str(folder), create_perfetto_trace=True)
        if first <= done <= first + TRACED:
            running.append(done)
        if done == first + TRACED:
            end()

    try:
        yield trace
    finally:
        end()
