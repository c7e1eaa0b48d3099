"""Timing: seconds by the clock and of the CPU, taken in turns so that a busy machine is unfair to nobody."""

import importlib.util
import os
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jtextdiff.run.command import say


class Seconds(NamedTuple):
    """By the clock, and of all of the process's threads."""

    wall: float
    cpu: float


def timed(call: Callable[[], Any]) -> Seconds:
    """How long a call takes until its result is there."""
    wall, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(call())
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


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


def ratios(best: Mapping[str, Seconds], name: str, others: Sequence[str]) -> dict[str, float]:
    """`name` over each of the others that was timed: by the clock, and in CPU seconds."""
    found = {}
    for other in others:
        if other in best:
            found[f"{name}_over_{other}"] = best[name].wall / best[other].wall
            found[f"{name}_over_{other}_cpu"] = best[name].cpu / best[other].cpu
    return found


def torch_peer(method: Any) -> Any:
    """The module that writes the method in PyTorch; None, and told, if it does not know it or there is no PyTorch."""
    if importlib.util.find_spec("torch") is None:
        say("PyTorch is not installed: no peer.")
        return None
    from jtextdiff.run import peer

    if peer.supports(method):
        return peer
    say("The peer in PyTorch knows the default Diffusion-LM only: no peer for this one.")
    return None


TORCH = ("torch_eager", "torch_compiled")
SIZE = 2048


def matmul() -> Callable[[], Any]:
    """A square float32 product of SIZE, compiled: the machine's own rate is 2 SIZE³ FLOPs over its time."""
    product = jax.jit(jnp.matmul)
    one = jax.random.normal(jax.random.key(0), (SIZE, SIZE))
    jax.block_until_ready(product(one, one))
    return lambda: product(one, one)


def machine() -> dict[str, Any]:
    """What the figures were taken on, and what it was doing beside."""
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
