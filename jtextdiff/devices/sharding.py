"""The device mesh and the table of sharding rules for the arrays of a run."""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int

from jtextdiff.cli.errors import UserError
from jtextdiff.devices.platform import check_platform
from jtextdiff.nets.batch_sharding import ROWS

AXES = ("data", "fsdp", "tensor")

RULES: tuple[tuple[str, P], ...] = (
    (r"(embedding)$", P("tensor", "fsdp")),
    (
        r"(query|key|value|up|gate|read|modulation|add|remember|beside|gain|more_(gains|values)/\d+)/kernel$",
        P("fsdp", "tensor"),
    ),
    (r"(out|down)/kernel$", P("tensor", "fsdp")),
    (r"(lift|lower|look|lower_look/\d+)/kernel$", P("fsdp", None)),
    (r"(answer|bag|lower_answer/\d+)/kernel$", P("fsdp", "tensor")),
    (r"(bias|scale|lora_[ab])$", P()),
)
"""The first row whose pattern matches an array's path applies. Paths of optimiser moments and running means end in the
paths of their parameters, so one table serves all. A dimension that an axis does not divide stays whole."""

SMALL = 2**20
"""Bytes up to which an array without a rule is replicated on every device."""


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """Returns a mesh of all devices; one of the sizes may be -1 and is then inferred from the others.

    Raises UserError if the sizes do not multiply to the number of devices, or jax finds no devices.
    """
    check_platform()
    sizes, num = [data, fsdp, tensor], jax.device_count()
    product = int(np.prod([size for size in sizes if size != -1]))
    if sizes.count(-1) == 1 and product > 0 and num % product == 0:
        sizes[sizes.index(-1)] = num // product
    if min(sizes) < 1 or int(np.prod(sizes)) != num:
        raise UserError(
            f"mesh data={data}, fsdp={fsdp}, tensor={tensor} does not fit {num} devices: "
            "the sizes must multiply to that number, and one of them may be -1."
        )
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def shardings(mesh: Mesh | AbstractMesh, tree: Any) -> Any:
    """Returns the sharding of each array of `tree` (arrays or their shapes) on the mesh.

    Raises UserError for a large array that no rule matches.
    """
    return jax.tree_util.tree_map_with_path(lambda path, leaf: _sharding(mesh, _name(path), leaf), tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that divides the rows of a batch over all data-parallel devices."""
    return NamedSharding(mesh, P(ROWS))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that keeps a whole array on every device."""
    return NamedSharding(mesh, P())


def on_mesh(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Returns the function, traced in the context of the mesh; `nets.batch_sharding` reads the mesh from there."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args, **kwargs)

    return wrapped


def mesh_of(params: Any) -> Mesh | None:
    """Returns the mesh of placed parameters; None if they are on one device, or not placed."""
    shardings = {getattr(leaf, "sharding", None) for leaf in jax.tree.leaves(params)}
    meshes = {
        sharding.mesh
        for sharding in shardings
        if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh)
    }
    return next((mesh for mesh in meshes if mesh.size > 1), None)


def num_shards(mesh: Mesh | AbstractMesh | None) -> int:
    """Returns the number of parts into which the rows of a batch are divided."""
    return 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]


def check_batch(mesh: Mesh | AbstractMesh, batch_size: int, accumulate: int) -> None:
    """Raises UserError if the rows of a batch do not divide evenly over the mesh."""
    shards = num_shards(mesh)
    if batch_size % (shards * accumulate):
        parts = f" in optim.accumulate = {accumulate} parts each" if accumulate > 1 else ""
        suggestion = max(batch_size // (shards * accumulate), 1) * shards * accumulate
        raise UserError(
            f"batch_size = {batch_size} rows do not divide over {shards} devices (mesh data x fsdp){parts}. "
            f"Try --config.batch_size={suggestion}, or another mesh."
        )


def local_row_indices(mesh: Mesh, num: int) -> Int[np.ndarray, "m"]:
    """Returns the indices, in order, of those of the `num` rows of a batch that devices of this process hold."""
    indices = batch_sharding(mesh).addressable_devices_indices_map((num,)).values()
    return np.unique(np.concatenate([np.arange(num)[index] for index in indices if index is not None]))


def place_batch(batch: Any, mesh: Mesh, num: int) -> Any:
    """Puts a batch of `num` rows on all devices; `batch` has the rows at `local_row_indices`."""
    sharding = batch_sharding(mesh)

    def put(leaf: Any) -> Array:
        leaf = np.asarray(leaf)
        return jax.make_array_from_process_local_data(sharding, leaf, (num, *leaf.shape[1:]))

    return jax.tree.map(put, batch)


def _sharding(mesh: Mesh | AbstractMesh, name: str, leaf: Any) -> NamedSharding:
    for pattern, partition in RULES:
        if re.search(pattern, name):
            return NamedSharding(mesh, _divisible(mesh, partition, leaf.shape))
    if leaf.size * leaf.dtype.itemsize <= SMALL:
        return NamedSharding(mesh, P())
    raise UserError(
        f"No sharding rule matches {name!r} {leaf.shape}. Add a row to RULES in jtextdiff/devices/sharding.py."
    )


def _divisible(mesh: Mesh | AbstractMesh, partition: P, shape: tuple[int, ...]) -> P:
    """Returns the partition without the axes that do not divide their dimension."""
    axes = [
        axis if axis is not None and size % mesh.shape[axis] == 0 else None
        for axis, size in zip(partition, shape, strict=False)
    ]
    return P(*axes)


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(str(getattr(part, "key", getattr(part, "name", getattr(part, "idx", part)))) for part in path)
