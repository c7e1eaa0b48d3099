"""Cost of a training step: the library's loop, the compiled step alone, and the same step in PyTorch."""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jtextdiff.benchmarks.timing import (
    TORCH,
    Call,
    compare_timings,
    machine_info,
    peak_memory,
    time_call,
    torch_peer,
)
from jtextdiff.cli.output import say
from jtextdiff.data.batches import Batch
from jtextdiff.devices.flops import matmul_flops
from jtextdiff.methods.method import SelfConditioned
from jtextdiff.run.config import Config
from jtextdiff.training.logger import MetricsLogger
from jtextdiff.training.loop import Run, build_run, dispatch_step, start_state, train_batch
from jtextdiff.training.setup import build_setup, validate_config
from jtextdiff.training.train_step import TrainState


def benchmark_train_step(config: Config, *, num_steps: int, repeats: int, peer: bool) -> dict[str, Any]:
    """Times `num_steps` training steps of a config on its own first batches, interleaved.

    `loop` is `training.loop.dispatch_step`, all that training does between two evaluations. `bare` is the compiled step
    alone, on batches already on the device. `torch_eager` and `torch_compiled` are the PyTorch peer, if there is one.
    """
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder)
        validate_config(config, workdir)
        setup = build_setup(config, workdir)
        state, _ = start_state(setup, workdir)
        with MetricsLogger(workdir, 0, num_steps * repeats + num_steps) as logger:
            return _time_steps(build_run(setup, workdir, logger), state, num_steps, repeats, peer)


def _time_steps(run: Run, state: TrainState, num_steps: int, repeats: int, peer: bool) -> dict[str, Any]:
    info = machine_info()
    batches = [train_batch(run, index) for index in range(num_steps)]
    two_passes = [_has_two_passes(run, index) for index in range(num_steps)]
    flops = sum(map(_flops_counter(run, state, float(np.mean(two_passes))), batches))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state["params"]))
    calls, holder = _calls(run, state, batches)
    say("compiling …")
    compile_s, memory = time_call(calls["bare"]).wall, peak_memory()
    peers = _peers(run, holder["state"], batches, two_passes) if peer else {}
    best, rate, report = compare_timings("loop", calls, peers, repeats)
    tokens = sum(int(batch.valid.sum()) for batch in batches)
    bare = best["bare"]
    figures = {
        "parameters": parameters,
        "num_steps": num_steps,
        "two_passes": float(np.mean(two_passes)),
        "batch_size": run.setup.config.batch_size,
        "tokens_per_step": tokens / num_steps,
        "padding": 1 - tokens / sum(batch.valid.size for batch in batches),
        "compile_s": compile_s - bare.wall,
        "step_ms": 1e3 * bare.wall / num_steps,
        "step_cpu_ms": 1e3 * bare.cpu / num_steps,
        "tokens_per_second": tokens / best["loop"].wall,
        "matmul_gflop_per_step": flops / num_steps / 1e9,
        "gflop_per_second": flops / bare.wall / 1e9,
        "machine_gflop_per_second": rate / 1e9,
        "share_of_machine": flops / bare.wall / rate,
    }
    return info | figures | memory | report


def _calls(
    run: Run, state: TrainState, batches: list[Batch]
) -> tuple[dict[str, Callable[[], TrainState]], dict[str, TrainState]]:
    """Returns calls of the bare steps and of the loop, and a holder of the state, since a step donates its own."""
    placed = [run.place(batch) for batch in batches]
    holder = {"state": state}

    def restarted() -> TrainState:
        """Returns the state at step 0, with its present values: every round uses the same randomness."""
        step = jax.device_put(np.zeros((), np.int32), holder["state"]["step"].sharding)
        return holder["state"] | {"step": step}

    def bare() -> TrainState:
        state = restarted()
        for batch in placed:
            state, _ = run.step(state, run.key, batch)
        holder["state"] = state
        return state

    def loop() -> TrainState:
        state, pending = restarted(), None
        for index in range(len(batches)):
            state, pending = dispatch_step(run, state, index, pending)
        holder["state"] = state
        return state

    return {"bare": bare, "loop": loop}, holder


def _has_two_passes(run: Run, index: int) -> bool:
    """Returns whether step `index` is self-conditioned on a first estimate, which costs another pass."""
    key, method = jax.random.fold_in(run.key, index), run.setup.method
    return isinstance(method, SelfConditioned) and bool(method.two_passes(key))


def _flops_counter(run: Run, state: TrainState, share: float) -> Callable[[Any], float]:
    """Returns a function that counts the FLOPs of the step on a batch, once per batch shape."""
    counts: dict[tuple[int, ...], float] = {}

    def flops(batch: Any) -> float:
        shape = batch.tokens.shape
        if shape not in counts:
            counts[shape] = matmul_flops(run.step, state, run.key, batch, share=share)
        return counts[shape]

    return flops


def _peers(run: Run, state: TrainState, batches: list[Batch], two_passes: list[bool]) -> dict[str, Callable[[], Call]]:
    """Returns builders of the PyTorch calls, with the same batches and passes; {} without a peer."""
    method, optimizer = run.setup.method, run.setup.optimizer
    if optimizer.accumulate > 1 or optimizer.matrix_optimizer != "adam":
        say("The PyTorch peer has one microbatch per step, and Adam: no peer is timed for this optimizer.")
        return {}
    peer = torch_peer(method)
    if peer is None:
        return {}

    def build(compiled: bool) -> Call:
        step = peer.trainer(state["params"], method, optimizer, compiled=compiled)

        def steps() -> None:
            for batch, two in zip(batches, two_passes, strict=True):
                step(batch, two)

        return steps

    return {name: functools.partial(build, name == "torch_compiled") for name in TORCH}
