"""Compiles a run's step for every batch length in a thread, so that the first length trains meanwhile."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from jtextdiff.data.batches import Batch, lengths_from
from jtextdiff.devices.sharding import batch_sharding, replicated
from jtextdiff.run.checkpoints import shapes_of
from jtextdiff.training.setup import Setup

Step = Callable[..., Any]
"""(state, key, batch) ↦ (state, metrics)."""


@contextmanager
def compiled_ahead(step: Any, setup: Setup, lengths: Sequence[int], report: Callable[[str], None]) -> Iterator[Step]:
    """Yields the jitted `step`, of which a thread compiles one program after another, in the order of `lengths`.

    A call waits for the program of its batch; a batch of another length is compiled when it is first seen. `report`
    receives what is being compiled and how long that took. At the end, the thread finishes the program that it is
    compiling, since a process cannot exit safely during a compilation.
    """
    programs: dict[int, Future[Step]] = {length: Future() for length in dict.fromkeys(lengths)}
    ended = threading.Event()

    def compile_all() -> None:
        for length, program in programs.items():
            if ended.is_set():
                return
            try:
                program.set_result(_compile(step, setup, length, report))
            except BaseException as error:  # raised where the program is used
                program.set_exception(error)

    def call(state: Any, key: Any, batch: Batch) -> Any:
        program = programs.get(batch.tokens.shape[1])
        return (step if program is None else program.result())(state, key, batch)

    thread = threading.Thread(target=compile_all, name="compile ahead", daemon=True)
    thread.start()
    try:
        yield call
    finally:
        ended.set()
        if thread.is_alive():
            report("waiting for the compiler, which cannot be stopped …")
        thread.join()


def step_lengths(setup: Setup, start: int) -> list[int]:
    """Returns the lengths of the batches of the steps from `start` on, in order of need."""
    return lengths_from(
        setup.corpus.splits["train"],
        start,
        num_steps=setup.config.num_steps - start,
        batch_size=setup.config.batch_size,
        buckets=setup.corpus.buckets,
        seed=setup.config.seed,
    )


def step_arguments(setup: Setup, length: int) -> tuple[Any, Any, Any]:
    """Returns the shapes and shardings of a step's arguments: state, key and a batch of this length."""
    rows, by_rows = setup.config.batch_size, batch_sharding(setup.mesh)

    def array(dtype: Any, *shape: int) -> Any:
        return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=by_rows)

    labels = {name: array(ids.dtype, *ids.shape[1:]) for name, ids in setup.corpus.splits["train"].labels.items()}
    mask = array(np.bool_, length)
    batch = Batch(array(np.int32, length), mask, mask, labels, array(np.float32))
    key = jax.eval_shape(lambda: jax.random.key(0))
    placed_key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=replicated(setup.mesh))
    return shapes_of(setup.shapes, setup.layout), placed_key, batch


def _compile(step: Any, setup: Setup, length: int, report: Callable[[str], None]) -> Step:
    report(f"compiling the training step for texts of up to {length} tokens …")
    started_at = time.perf_counter()
    program = step.lower(*step_arguments(setup, length)).compile()
    report(f"compiled the training step for up to {length} tokens in {time.perf_counter() - started_at:.1f} s")
    return program
