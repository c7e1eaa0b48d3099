"""Rows: on a mesh, activations stay with the rows of their batch, and it is the parameters that travel."""

import jax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Shaped

ROWS = ("data", "fsdp")
"""The axes of a mesh over which the rows of a batch are divided."""


def by_rows(x: Shaped[Array, "b *w"]) -> Shaped[Array, "b *w"]:
    """`x`, its rows divided over the mesh that the program is traced for, if it is traced for one.

    Left to itself, the compiler may rather send activations than a divided kernel, and compute the same on each device.
    Vectors of a whole text [b, w] need this too: where XLA (of jax 0.10) had to guess how they lie, it computed other
    values on 2 x 2 x 2 devices.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not _divides(mesh) or x.shape[0] % (mesh.shape["data"] * mesh.shape["fsdp"]):
        return x
    return jax.lax.with_sharding_constraint(x, P(ROWS))


def look_up(table: Float[Array, "v d"], ids: Int[Array, "b *l"]) -> Float[Array, "b *l d"]:
    """The rows of a table that are asked for. On a mesh the whole table comes to each device."""
    if _divides(jax.sharding.get_abstract_mesh()):
        table = jax.lax.with_sharding_constraint(table, P())
    return by_rows(table[ids])


def _divides(mesh: jax.sharding.AbstractMesh) -> bool:
    return mesh.size > 1 and set(ROWS) <= set(mesh.axis_names)
