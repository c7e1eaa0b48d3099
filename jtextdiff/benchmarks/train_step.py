"""The cost of a training step: the library's loop, the bare compiled step in it, and the same in PyTorch."""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jtextdiff.benchmarks.timing import TORCH, machine, peak_memory, race, timed, torch_peer
from jtextdiff.cli.output import say
from jtextdiff.data.batches import Batch
from jtextdiff.devices.flops import matmul_flops
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.run.config import Config, build
from jtextdiff.training.logger import Report
from jtextdiff.training.loop import Run, advance, batch_of, prepare
from jtextdiff.training.setup import check
from jtextdiff.training.train_step import TrainState


def bench(config: Config, *, num_steps: int, repeats: int, peer: bool) -> dict[str, Any]:
    """Times `num_steps` training steps of a config on its own first batches, in turns.

    `loop` is `run.loop.advance`, all that training does between two evaluations; `bare` the compiled step alone,
    on batches already on the device; `torch_eager` and `torch_compiled` the peer, where there is one.
    """
    with tempfile.TemporaryDirectory() as folder:
        check(config, Path(folder))
        make, state, _ = prepare(config, Path(folder))
        with Report(Path(folder), 0, num_steps * repeats + num_steps) as report:
            return _bench(make(report=report), state, num_steps, repeats, peer)


def _bench(run: Run, state: TrainState, num_steps: int, repeats: int, peer: bool) -> dict[str, Any]:
    where = machine()
    batches = [batch_of(run, index) for index in range(num_steps)]
    coins = [_two_passes(run, index) for index in range(num_steps)]
    flops = sum(map(_flops(run, state, float(np.mean(coins))), batches))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state["params"]))
    calls, holder = _turns(run, state, batches)
    say("compiling …")
    compile_s, memory = timed(calls["bare"]).wall, peak_memory()
    best, rate, over = race("loop", calls, _peers(run, holder["state"], batches, coins) if peer else {}, repeats)
    tokens = sum(int(batch.valid.sum()) for batch in batches)
    bare = best["bare"]
    ours = {
        "parameters": parameters,
        "num_steps": num_steps,
        "two_passes": float(np.mean(coins)),
        "batch_size": run.config.batch_size,
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
    return where | ours | memory | over


def _turns(
    run: Run, state: TrainState, batches: list[Batch]
) -> tuple[dict[str, Callable[[], TrainState]], dict[str, TrainState]]:
    """One turn of the bare step and one of the loop; and what holds the state, since a step gives its own away."""
    placed = [run.place(batch) for batch in batches]
    holder = {"state": state}

    def first() -> TrainState:
        """The state as at step 0 but for its values: each turn draws the same noise and the same coins."""
        step = jax.device_put(np.zeros((), np.int32), holder["state"]["step"].sharding)
        return holder["state"] | {"step": step}

    def bare() -> TrainState:
        now = first()
        for batch in placed:
            now, _ = run.step(now, run.root, batch)
        holder["state"] = now
        return now

    def loop() -> TrainState:
        now, late = first(), None
        for index in range(len(batches)):
            now, late = advance(run, now, index, late)
        holder["state"] = now
        return now

    return {"bare": bare, "loop": loop}, holder


def _two_passes(run: Run, index: int) -> bool:
    """Whether step `index` shows the network its first estimate, which costs another pass."""
    key = jax.random.fold_in(run.root, index)
    return isinstance(run.method, DiffusionLM) and bool(run.method.two_passes(key))


def _flops(run: Run, state: TrainState, share: float) -> Callable[[Any], float]:
    """FLOPs of the step on a batch, counted once for each length."""
    known: dict[tuple[int, ...], float] = {}

    def of(batch: Any) -> float:
        shape = batch.tokens.shape
        if shape not in known:
            known[shape] = matmul_flops(run.step, state, run.root, batch, share=share)
        return known[shape]

    return of


def _peers(run: Run, state: TrainState, batches: list[Batch], coins: list[bool]) -> dict[str, Callable[..., Any]]:
    """What makes the peer's turns: the same batches, as often in two passes, by the peer, if there is one."""
    optim = build(run.config.optim)
    if optim.accumulate > 1 or optim.matrices != "adam":
        say("The peer in PyTorch has one microbatch a step, and Adam: no peer for this optimiser.")
        return {}
    peer = torch_peer(run.method)
    if peer is None:
        return {}

    def turn(compiled: bool) -> Callable[[], None]:
        step = peer.trainer(state["params"], run.method, optim, compiled=compiled)

        def steps() -> None:
            for batch, two in zip(batches, coins, strict=True):
                step(batch, two)

        return steps

    return {name: functools.partial(turn, name == "torch_compiled") for name in TORCH}
