"""A dry run: what a training step needs on each device, read off the compiled program; nothing is trained or made.

The program is that of this machine's compiler, for as many simulated devices as are asked for. An accelerator's own
compiler fuses more, and sends some of it while it computes.
"""

import math
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jtextdiff.cli.errors import UserError
from jtextdiff.cli.output import say
from jtextdiff.data.batches import Batch
from jtextdiff.devices.collectives import collectives
from jtextdiff.devices.flops import matmul_flops
from jtextdiff.devices.sharding import batch_sharding, replicated
from jtextdiff.run.checkpoints import shapes_of
from jtextdiff.run.config import Config
from jtextdiff.training.setup import Plan, plan
from jtextdiff.training.train_step import compiled_step


def simulate(devices: int | None) -> None:
    """Has jax take this machine's processor for so many devices. Must be called before it looks for any."""
    if devices is None:
        return
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
    if jax.device_count() != devices:
        raise UserError(f"--devices {devices}: XLA_FLAGS already fixes the number of devices at {jax.device_count()}.")


def dry_run(config: Config, workdir: Path) -> dict[str, Any]:
    """What a training step of the longest texts needs; bytes are those of one device."""
    if config.method["class"].endswith(":LatentClassifier"):
        raise UserError("A control of latents is fitted at once: there is no training step to tell of.")
    ready = plan(config, workdir)
    step, arguments = compiled_step(ready.method, ready.optim, ready.mesh, ready.layout), _arguments(ready)
    say("compiling …")
    begun = time.perf_counter()
    compiled = step.lower(*arguments).compile()
    seconds = time.perf_counter() - begun
    state, memory = arguments[0], compiled.memory_analysis()
    kept = {name: _bytes(state[part]) for part, name in KEPT.items()}
    kept |= {"batch": _bytes(arguments[2]), "activations_and_gradients": memory.temp_size_in_bytes}
    params = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state["params"]))
    flops, size = matmul_flops(step, *arguments), ready.mesh.size
    rows, length = arguments[2].tokens.shape
    return {
        "parameters": params,
        "devices": size,
        "mesh": dict(ready.mesh.shape),
        "compiled_for": jax.default_backend(),
        "batch": {"rows": rows, "rows_a_device": arguments[2].tokens.sharding.shard_shape((rows, length))[0]}
        | {"length": length, "tokens": rows * length},
        "bytes_a_device": kept | {"total": sum(kept.values())},
        "matmul_flops_a_step": flops,
        "matmul_flops_a_device": flops / size,
        "collectives": {kind: sent._asdict() for kind, sent in collectives(compiled.as_text()).items()},
        "compile_seconds": round(seconds, 1),
    }


KEPT = {"params": "parameters", "ema": "running_mean", "opt": "optimiser"}
"""The parts of a state, and what they are called here."""


def _arguments(ready: Plan) -> tuple[Any, Any, Any]:
    """The shapes of what a step is given, with their places."""
    rows, length, place = ready.config.batch_size, ready.corpus.buckets[-1], batch_sharding(ready.mesh)
    shaped: Any = lambda kind, *shape: jax.ShapeDtypeStruct((rows, *shape), kind, sharding=place)
    labels = {name: shaped(np.int32) for name in ready.corpus.splits["train"].labels}
    mask = shaped(np.bool_, length)
    batch = Batch(shaped(np.int32, length), mask, mask, labels, shaped(np.float32))
    key = jax.eval_shape(lambda: jax.random.key(0))
    root = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=replicated(ready.mesh))
    return shapes_of(ready.shapes, ready.layout), root, batch


def _bytes(tree: Any) -> int:
    """What the arrays of a tree of placed shapes take on one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * jnp.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
    )
