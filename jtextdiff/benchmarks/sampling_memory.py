"""The memory that sampling takes, from the compiled program without parameters."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jtextdiff.cli.output import say
from jtextdiff.devices.memory import bytes_a_device, memory_a_device
from jtextdiff.devices.sharding import make_mesh, shardings
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.inference.batched import BATCH_SIZES
from jtextdiff.methods.components.types import nothing_given
from jtextdiff.pretrained.standalone import config_of_shapes, is_published
from jtextdiff.run.checkpoints import shapes_of
from jtextdiff.run.config import Config, build
from jtextdiff.run.config_files import override_run
from jtextdiff.run.workdir import read_config

DEVICE_BYTES = 80 * 10**9
"""The memory of a large accelerator."""


def sampling_memory(source: Path, num: int, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the bytes of one call of the sampler for `num` texts of the longest length, on each device of its mesh.

    `source` is a run or the folder of a published checkpoint, of which its config alone is read. The program is that
    of this machine's compiler; on a CPU it keeps a float32 copy of each bfloat16 parameter that it multiplies, beside
    the activations. `devices_of_80_gb`: the parameters are divided among so many, the rest is not. Raises UserError for
    a config that cannot be read.
    """
    config = _config(source, overrides)
    method, mesh = build(config.method), make_mesh(**config.mesh)
    params = jax.eval_shape(method.init, jax.random.key(0))
    params = shapes_of(params, shardings(mesh, params))
    rows = next((size for size in BATCH_SIZES if size >= num), BATCH_SIZES[-1])
    length = method.text_spec.length

    def sample(params: Any, key: Any) -> Any:
        return method.sample(params, keys_for(key, jnp.arange(rows)), nothing_given(rows, length)).tokens

    say("compiling …")
    started_at = time.perf_counter()
    compiled = jax.jit(sample).lower(params, jax.eval_shape(lambda: jax.random.key(0))).compile()
    memory: Any = compiled.memory_analysis()
    needed = {"parameters": bytes_a_device(params), "activations_and_casts": memory.temp_size_in_bytes}
    bytes_of_all = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    room = DEVICE_BYTES - needed["activations_and_casts"]
    return {
        "parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)),
        "types": sorted({str(leaf.dtype) for leaf in jax.tree.leaves(params)}),
        "batch": {"rows": rows, "length": length},
        "compiled_for": jax.default_backend(),
        "bytes": needed | {"total": sum(needed.values()), "memory_here": memory_a_device()},
        "devices_of_80_gb": math.ceil(bytes_of_all / room) if room > 0 else None,
        "compile_seconds": round(time.perf_counter() - started_at, 1),
    }


def _config(source: Path, overrides: Sequence[str]) -> Config:
    if is_published(source):
        return config_of_shapes(source, overrides)
    config = read_config(source)
    config.mesh.update(data=-1, fsdp=1, tensor=1)  # as it is loaded
    return override_run(config, overrides)
