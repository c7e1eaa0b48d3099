"""The memory of the devices, and whether arrays fit into it, from their shapes alone."""

import math
import os
from typing import Any

import jax
import jax.numpy as jnp

from jtextdiff.cli.errors import UserError


def bytes_a_device(shapes: Any) -> int:
    """Returns the bytes that a tree of arrays, or of shapes with a sharding, takes on one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * jnp.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(shapes)
    )


def memory_a_device() -> int:
    """Returns the bytes of memory of one device; processors share that of this machine."""
    device = jax.local_devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit") if device.platform != "cpu" else None
    return limit or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // jax.local_device_count()


def check_memory(shapes: Any, what: str, *, can_be_half: bool) -> None:
    """Raises UserError if arrays of these shapes, with their sharding, are larger than the memory of a device.

    `can_be_half` is whether the method has a `param_dtype` that is still float32.
    """
    needed, available = bytes_a_device(shapes), memory_a_device()
    if needed > available:
        half = ", or set method.param_dtype=bfloat16 if they do not train" if can_be_half else ""
        raise UserError(
            f"{what} need {needed / 1e9:.1f} GB on each device, which has {available / 1e9:.1f} GB. Divide them over "
            f"more devices with mesh.fsdp{half}."
        )
