"""Memory, FLOPs and communication of a training step, read from the compiled program without training.

This machine's compiler makes the program, for the real or for simulated devices. The compiler of an accelerator fuses
more, and overlaps some of the communication with computation.
"""

import math
import time
from pathlib import Path
from typing import Any

import jax

from jtextdiff.cli.errors import UserError
from jtextdiff.cli.output import say
from jtextdiff.devices.collectives import collectives
from jtextdiff.devices.flops import matmul_flops
from jtextdiff.devices.memory import bytes_a_device
from jtextdiff.methods.method import Fitted
from jtextdiff.run.config import Config, build
from jtextdiff.training.compile_ahead import step_arguments
from jtextdiff.training.setup import build_setup
from jtextdiff.training.train_step import compiled_step

STATE_PARTS = {"params": "parameters", "ema": "running_mean", "opt": "optimiser"}
"""The parts of a state, and their names in the result."""


def simulate(devices: int | None) -> None:
    """Makes jax treat this machine's processor as this many devices; None: the real ones.

    Must be called before jax initialises its devices. Raises UserError if their number is fixed already.
    """
    if devices is None:
        return
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
    if jax.device_count() != devices:
        raise UserError(f"--devices {devices}: XLA_FLAGS already fixes the number of devices at {jax.device_count()}.")


def dry_run(config: Config, workdir: Path) -> dict[str, Any]:
    """Returns what a training step on the longest texts needs; bytes are those of one device."""
    if isinstance(build(config.method), Fitted):
        raise UserError("A control of a text VAE is fitted without training steps: there is nothing to simulate.")
    setup = build_setup(config, workdir)
    step, arguments = (
        compiled_step(setup.method, setup.optimizer, setup.mesh, setup.layout),
        step_arguments(setup, setup.corpus.buckets[-1]),
    )
    say("compiling …")
    started_at = time.perf_counter()
    compiled = step.lower(*arguments).compile()
    seconds = time.perf_counter() - started_at
    state, memory = arguments[0], compiled.memory_analysis()
    size_of = {name: bytes_a_device(state[part]) for part, name in STATE_PARTS.items()}
    size_of |= {"batch": bytes_a_device(arguments[2]), "activations_and_gradients": memory.temp_size_in_bytes}
    flops, num_devices = matmul_flops(step, *arguments), setup.mesh.size
    rows, length = arguments[2].tokens.shape
    return {
        "parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state["params"])),
        "devices": num_devices,
        "mesh": dict(setup.mesh.shape),
        "compiled_for": jax.default_backend(),
        "batch": {"rows": rows, "rows_a_device": arguments[2].tokens.sharding.shard_shape((rows, length))[0]}
        | {"length": length, "tokens": rows * length},
        "bytes_a_device": size_of | {"total": sum(size_of.values())},
        "matmul_flops_a_step": flops,
        "matmul_flops_a_device": flops / num_devices,
        "collectives": {kind: traffic._asdict() for kind, traffic in collectives(compiled.as_text()).items()},
        "compile_seconds": round(seconds, 1),
    }
