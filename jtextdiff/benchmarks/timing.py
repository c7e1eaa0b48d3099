"""Interleaved timings and figures of the machine.

Every call is timed once per round, so that other load on the machine affects all calls alike.
"""

import importlib.util
import math
import os
import resource
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from jtextdiff.cli.output import say

Call = Callable[[], Any]

TORCH = ("torch_eager", "torch_compiled")
MATMUL_SIZE = 2048


class Seconds(NamedTuple):
    """Wall-clock time, and CPU time over all threads of the process."""

    wall: float
    cpu: float


def time_call(call: Call) -> Seconds:
    """Returns how long a call takes until its result is computed."""
    wall, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(call())
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def compare_timings(
    name: str, calls: Mapping[str, Call], peers: Mapping[str, Callable[[], Call]], repeats: int
) -> tuple[dict[str, Seconds], float, dict[str, Any]]:
    """Times matrix products of this machine, `calls`, and those `peers` that run here, interleaved.

    `peers` maps a name to a function that builds the call. Returns the fastest time of each call, the FLOP/s of the
    matrix products, and a report: `name` over every other call, in wall-clock and CPU seconds, and all timings.
    """
    multiply, flops = matmul_chain()
    timings = time_interleaved({"matmul": multiply, **calls, **runnable(peers)}, repeats)
    best = {call: fastest(times) for call, times in timings.items()}
    report = ratios(name, best) | {"timings": {call: [*map(list, times)] for call, times in timings.items()}}
    return best, flops / best["matmul"].wall, report


def ratios(name: str, best: Mapping[str, Seconds]) -> dict[str, Any]:
    """Returns `name` over every other call except the matrix products, in wall-clock and CPU seconds."""
    figures = {}
    for other in [call for call in best if call not in (name, "matmul")]:
        figures[f"{name}_over_{other}"] = best[name].wall / best[other].wall
        figures[f"{name}_over_{other}_cpu"] = best[name].cpu / best[other].cpu
    return figures


def time_interleaved(calls: Mapping[str, Call], repeats: int) -> dict[str, list[Seconds]]:
    """Returns the times of each call over `repeats` rounds; a round runs every call once."""
    timings: dict[str, list[Seconds]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            timings[name].append(time_call(call))
    return timings


def fastest(times: list[Seconds]) -> Seconds:
    """Returns the least wall-clock and the least CPU time: what the machine achieves without other load."""
    return Seconds(min(seconds.wall for seconds in times), min(seconds.cpu for seconds in times))


def torch_available() -> bool:
    """Returns whether PyTorch can be compared on this device; if not, prints why."""
    if importlib.util.find_spec("torch") is None:
        say("PyTorch is not installed: no peer is timed.")
        return False
    if jax.default_backend() != "cpu":
        say("The PyTorch peers run on the CPU only: no peer is timed on this device.")
        return False
    return True


def torch_peer(method: Any) -> Any:
    """Returns the module that implements the method in PyTorch; None, with a printed reason, if there is none here."""
    if not torch_available():
        return None
    from jtextdiff.benchmarks import torch_diffusion_lm as peer

    if peer.supports(method):
        return peer
    say("The PyTorch peer implements the default Diffusion-LM with its ancestral sampler only: no peer is timed.")
    return None


def runnable(peers: Mapping[str, Callable[[], Call]]) -> dict[str, Call]:
    """Returns the calls that can be built and run once, which also warms them up; the others are reported."""
    calls = {}
    for name, build in peers.items():
        try:
            call = build()
            call()
            calls[name] = call
        except Exception as error:  # for example, a missing compiler
            say(f"{name} does not run here and is not timed: {(str(error) or repr(error)).splitlines()[0][:200]}")
    return calls


def matmul_chain() -> tuple[Call, float]:
    """Returns a compiled chain of square products at default precision, at least 50 ms long, and its FLOPs."""
    matrix = jax.random.normal(jax.random.key(0), (MATMUL_SIZE, MATMUL_SIZE)) / MATMUL_SIZE**0.5
    chain = jax.jit(lambda count, x: jax.lax.fori_loop(0, count, lambda _, y: y @ x, x))
    jax.block_until_ready(chain(1, matrix))
    count = max(1, math.ceil(0.05 / (time_call(lambda: chain(10, matrix)).wall / 10)))
    return lambda: chain(count, matrix), 2.0 * count * MATMUL_SIZE**3


def machine_info() -> dict[str, Any]:
    """Returns the device, the number of devices and CPUs, and the load average of the last minute.

    The load is that of other programs if this is called before any work.
    """
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def peak_memory() -> dict[str, float]:
    """Returns the peak memory in MiB of the process, and of the first device if it is counted there."""
    peak = {"process_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        peak["device_mib"] = stats["peak_bytes_in_use"] / 2**20
    return peak
