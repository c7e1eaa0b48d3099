"""A jax.profiler trace of ten training steps, for TensorBoard or ui.perfetto.dev."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax

from jtextdiff.cli.output import say

WARM_UP, TRACED = 10, 10
"""Steps before the trace begins, and steps in the trace."""


@contextmanager
def trace_steps(folder: Path, start: int) -> Iterator[Callable[[int], None]]:
    """Gives a function to call with the number of each finished step of a run that continues at step `start`.

    It starts and stops the trace. A run that ends early stops it too.
    """
    first, steps = start + WARM_UP, []

    def end() -> None:
        if steps:
            jax.profiler.stop_trace()
            if steps[-1] > first:
                say(f"Wrote a trace of steps {first + 1} to {steps[-1]} to {folder}, for TensorBoard or Perfetto.")
            steps.clear()

    def after_step(done: int) -> None:
        if done == first:
            jax.profiler.start_trace(str(folder), create_perfetto_trace=True)
        if first <= done <= first + TRACED:
            steps.append(done)
        if done == first + TRACED:
            end()

    try:
        yield after_step
    finally:
        end()
