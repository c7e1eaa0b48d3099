"""Keeps activations sharded by batch rows, so that parameters are sent between devices instead."""

import jax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Shaped

ROWS = ("data", "fsdp")
"""The mesh axes over which the rows of a batch are sharded."""


def shard_batch(x: Shaped[Array, "b *w"]) -> Shaped[Array, "b *w"]:
    """Constrains the rows of `x` to be sharded over the mesh that the program is traced for, if there is one.

    Without the constraint the compiler may send activations instead of a sharded kernel, and repeat the same
    computation on each device. Vectors of a whole text, [b, w], need it too: where XLA (of jax 0.10) had to guess their
    layout, it computed other values on 2 x 2 x 2 devices.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not _shards_batches(mesh) or x.shape[0] % (mesh.shape["data"] * mesh.shape["fsdp"]):
        return x
    return jax.lax.with_sharding_constraint(x, P(ROWS))


def look_up(embedding: Float[Array, "v d"], ids: Int[Array, "b *l"]) -> Float[Array, "b *l d"]:
    """Returns the rows `ids` of an embedding matrix. On a mesh each device gathers the whole matrix."""
    if _shards_batches(jax.sharding.get_abstract_mesh()):
        embedding = jax.lax.with_sharding_constraint(embedding, P())
    return shard_batch(embedding[ids])


def _shards_batches(mesh: jax.sharding.AbstractMesh) -> bool:
    return mesh.size > 1 and set(ROWS) <= set(mesh.axis_names)
