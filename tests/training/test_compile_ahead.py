"""Programs compiled in a thread before they are needed: the same results, one program a length, errors where used."""

import dataclasses
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
from support.runs import toy, write_texts

from jtextdiff.data.batches import Batch
from jtextdiff.run.config_files import load_config
from jtextdiff.training.compile_ahead import compiled_ahead, step_arguments
from jtextdiff.training.setup import Setup, build_setup, restore_or_init
from jtextdiff.training.train_step import TrainState, compiled_step

LENGTHS = (6, 8)


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    folder = tmp_path_factory.mktemp("ahead")
    write_texts(folder)
    path, *overrides = toy("run", 10, f"--config.text.path={folder}/texts.txt")
    overrides = [flag for flag in overrides if flag.startswith("--config.")]
    return build_setup(load_config(path.removeprefix("--config="), overrides), folder / "run")


def step_of(setup: Setup) -> object:
    return compiled_step(setup.method, setup.optimizer, setup.mesh, setup.layout)


def batch(setup: Setup, length: int) -> Batch:
    rows = setup.config.batch_size
    tokens = np.random.default_rng(length).integers(3, 8, (rows, length)).astype(np.int32)
    mask = np.ones_like(tokens, bool)
    return Batch(tokens, mask, ~mask, {}, np.full(rows, 0.5, np.float32))


def two_steps(setup: Setup, step) -> TrainState:
    state, _ = restore_or_init(setup, Path("nothing-here"))
    for length in LENGTHS:
        state, _ = step(state, jax.random.key(0), batch(setup, length))
    return state


@pytest.mark.slow
def test_steps_equal_those_of_jit_and_each_length_is_compiled_once(setup: Setup) -> None:
    reported = []
    with compiled_ahead(step_of(setup), setup, LENGTHS * 3, reported.append) as step:
        ahead = two_steps(setup, step)
    jax.tree.map(np.testing.assert_array_equal, ahead, two_steps(setup, step_of(setup)))
    begun = [line for line in reported if line.startswith("compiling")]
    assert len(begun) == len(LENGTHS) and all(f"up to {n} " in line for n, line in zip(LENGTHS, begun, strict=True))


@pytest.mark.slow
def test_an_unexpected_length_is_compiled_when_it_is_seen(setup: Setup) -> None:
    with compiled_ahead(step_of(setup), setup, LENGTHS[:1], lambda line: None) as step:
        ahead = two_steps(setup, step)
    jax.tree.map(np.testing.assert_array_equal, ahead, two_steps(setup, step_of(setup)))


def test_an_error_of_the_compiler_is_raised_where_the_program_is_used(setup: Setup) -> None:
    class Broken:
        def lower(self, *arguments: object) -> None:
            raise RuntimeError("no memory")

    with compiled_ahead(Broken(), setup, LENGTHS, lambda line: None) as step, pytest.raises(RuntimeError, match="no m"):
        two_steps(setup, step)


def test_the_thread_ends_with_the_context_and_starts_no_more_programs(setup: Setup) -> None:
    started, may_go_on = [], threading.Event()

    def report(line: str) -> None:
        started.append(line)
        may_go_on.wait(10)

    with compiled_ahead(step_of(setup), setup, range(3, 40), report):
        may_go_on.set()
    assert not any(thread.name == "compile ahead" for thread in threading.enumerate())
    assert len(started) < 2 * 37


@pytest.mark.parametrize("shape", [(), (8,), (8, 8)])
def test_labels_keep_their_shape_and_type(shape: tuple[int, ...], setup: Setup) -> None:
    """A label has one value a text, one a token or one a span."""
    train = setup.corpus.splits["train"]
    labels = {"label": np.zeros((len(train), *shape), np.uint8)}
    corpus = dataclasses.replace(setup.corpus, splits={"train": dataclasses.replace(train, labels=labels)})
    (label,) = step_arguments(setup._replace(corpus=corpus), 8)[2].labels.values()
    assert label.shape == (setup.config.batch_size, *shape) and label.dtype == np.uint8
