"""Timing: seconds by the clock and of the CPU, taken in turns so that a busy machine is unfair to nobody."""

import importlib.util
import math
import os
import resource
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from jtextdiff.cli.output import say


class Seconds(NamedTuple):
    """By the clock, and of all of the process's threads."""

    wall: float
    cpu: float


def timed(call: Callable[[], Any]) -> Seconds:
    """How long a call takes until its result is there."""
    wall, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(call())
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def race(
    name: str,
    calls: Mapping[str, Callable[[], Any]],
    makers: Mapping[str, Callable[[], Callable[[], Any]]],
    repeats: int,
) -> tuple[dict[str, Seconds], float, dict[str, Any]]:
    """Times the machine's matrix products, `calls`, and those of the peers' `makers` that run, in turns.

    Returns the least time of each, FLOP/s of the matrix products, and what a benchmark reports of it: `name` over
    every other, by the clock and in CPU seconds, and all times.
    """
    multiply, multiplied = matmul()
    contest = {"matmul": multiply, **calls, **that_run(makers)}
    rows = in_turns(contest, repeats)
    best = {each: least(times) for each, times in rows.items()}
    timings = {each: [*map(list, times)] for each, times in rows.items()}
    return best, multiplied / best["matmul"].wall, ratios(name, best) | {"timings": timings}


def ratios(name: str, best: Mapping[str, Seconds]) -> dict[str, Any]:
    """`name` over every other but the matrix products, by the clock and in CPU seconds."""
    figures = {}
    for other in [each for each in best if each not in (name, "matmul")]:
        figures[f"{name}_over_{other}"] = best[name].wall / best[other].wall
        figures[f"{name}_over_{other}_cpu"] = best[name].cpu / best[other].cpu
    return figures


def in_turns(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[Seconds]]:
    """Each call's times: all are called once, then all again, `repeats` times."""
    rows: dict[str, list[Seconds]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            rows[name].append(timed(call))
    return rows


def least(rows: list[Seconds]) -> Seconds:
    """The least of each: what the machine can do when it is left alone."""
    return Seconds(min(row.wall for row in rows), min(row.cpu for row in rows))


def torch_here() -> bool:
    """Whether there is a PyTorch to compare with on this device; if not, why is told."""
    if importlib.util.find_spec("torch") is None:
        say("PyTorch is not installed: no peer.")
        return False
    if jax.default_backend() != "cpu":
        say("The peers in PyTorch run on the CPU only: no peer on this device.")
        return False
    return True


def torch_peer(method: Any) -> Any:
    """The module that writes the method in PyTorch; None, and told why, if there is none to compare with here."""
    if not torch_here():
        return None
    from jtextdiff.benchmarks import torch_diffusion_lm as peer

    if peer.supports(method):
        return peer
    say("The peer in PyTorch knows the default Diffusion-LM and its ancestral sampler only: no peer for this one.")
    return None


def that_run(makers: Mapping[str, Callable[[], Callable[[], Any]]]) -> dict[str, Callable[[], Any]]:
    """The calls that can be made and called once, which also warms them up; the others are told of."""
    good = {}
    for name, make in makers.items():
        try:
            call = make()
            call()
            good[name] = call
        except Exception as error:  # a compiler that is not there, for one
            say(f"{name} does not run here and is left out: {(str(error) or repr(error)).splitlines()[0][:200]}")
    return good


TORCH = ("torch_eager", "torch_compiled")
SIZE = 2048


def matmul() -> tuple[Callable[[], Any], float]:
    """A chain of square products at the device's default precision, at least 50 ms long, compiled; and its FLOPs."""
    one = jax.random.normal(jax.random.key(0), (SIZE, SIZE)) / SIZE**0.5
    chain = jax.jit(lambda count, x: jax.lax.fori_loop(0, count, lambda _, y: y @ x, x))
    jax.block_until_ready(chain(1, one))
    count = max(1, math.ceil(0.05 / (timed(lambda: chain(10, one)).wall / 10)))
    return lambda: chain(count, one), 2.0 * count * SIZE**3


def machine() -> dict[str, Any]:
    """What the figures are taken on, and its load, which is that of others if this is asked first.

    Turns the cache of compiled programs off, so that compiling is timed as it is the first time.
    """
    jax.config.update("jax_enable_compilation_cache", False)
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def peak_memory() -> dict[str, float]:
    """MiB: the most that the process has held, and the most on the first device where that is counted."""
    peak = {"process_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    counted = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in counted:
        peak["device_mib"] = counted["peak_bytes_in_use"] / 2**20
    return peak
