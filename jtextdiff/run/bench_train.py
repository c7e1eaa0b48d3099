"""The cost of a training step: the library's loop, the bare compiled step in it, and the same in PyTorch."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jtextdiff.run.command import say
from jtextdiff.run.config import Config, build
from jtextdiff.run.flops import matmul_flops
from jtextdiff.run.loop import Run, advance, batch_of, prepare
from jtextdiff.run.prepare import check
from jtextdiff.run.report import Report
from jtextdiff.run.step import TrainState
from jtextdiff.run.timing import SIZE, TORCH, in_turns, least, machine, matmul, peak_memory, ratios, timed, torch_peer


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
    batches = [batch_of(run, index) for index in range(num_steps)]
    placed = [run.place(batch) for batch in batches]
    holder = {"state": state, "late": None}

    def bare() -> Any:
        for batch in placed:
            holder["state"], _ = run.step(holder["state"], run.root, batch)
        return holder["state"]

    def loop() -> Any:
        for index in range(num_steps):
            holder["state"], holder["late"] = advance(run, holder["state"], index, holder["late"])
        return holder["late"]

    flops = sum(map(_flops(run, state), batches))
    say("compiling …")
    compile_s, memory = timed(bare).wall, peak_memory()
    calls = {"matmul": matmul(), "bare": bare, "loop": loop} | (_peers(run, holder["state"], batches) if peer else {})
    for warm_up in list(calls.values())[1:]:
        warm_up()
    rows = in_turns(calls, repeats)
    best = {name: least(times) for name, times in rows.items()}
    tokens = sum(int(batch.valid.sum()) for batch in batches)
    bare_s, rate = best["bare"], 2 * SIZE**3 / best["matmul"].wall
    ours = {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state["params"])),
        "num_steps": num_steps,
        "batch_size": run.config.batch_size,
        "tokens_per_step": tokens / num_steps,
        "padding": 1 - tokens / sum(batch.valid.size for batch in batches),
        "compile_s": compile_s - bare_s.wall,
        "step_ms": 1e3 * bare_s.wall / num_steps,
        "step_cpu_ms": 1e3 * bare_s.cpu / num_steps,
        "tokens_per_second": tokens / best["loop"].wall,
        "matmul_gflop_per_step": flops / num_steps / 1e9,
        "gflop_per_second": flops / bare_s.wall / 1e9,
        "machine_gflop_per_second": rate / 1e9,
        "share_of_machine": flops / bare_s.wall / rate,
    }
    over = ratios(best, "loop", ("bare", *TORCH))
    return machine() | ours | memory | over | {"timings": {name: [*map(list, times)] for name, times in rows.items()}}


def _flops(run: Run, state: TrainState) -> Callable[[Any], float]:
    """FLOPs of the step on a batch, counted once for each length."""
    known: dict[tuple[int, ...], float] = {}

    def of(batch: Any) -> float:
        shape = batch.tokens.shape
        if shape not in known:
            known[shape] = matmul_flops(run.step, state, run.root, batch)
        return known[shape]

    return of


def _peers(run: Run, state: TrainState, batches: list[Any]) -> dict[str, Callable[[], Any]]:
    """The same steps by the peer, if there is one."""
    peer, optim = torch_peer(run.method), build(run.config.optim)
    if peer is None:
        return {}

    def turn(compiled: bool) -> Callable[[], None]:
        step = peer.trainer(state["params"], run.method, optim, compiled=compiled)

        def steps() -> None:
            for batch in batches:
                step(batch)

        return steps

    return dict(zip(TORCH, (turn(False), turn(True)), strict=True))
