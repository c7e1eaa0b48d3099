"""Rows: on a mesh, activations stay with the rows of their batch, and it is the parameters that travel."""

import jax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

ROWS = ("data", "fsdp")
"""The axes of a mesh over which the rows of a batch are divided."""


def by_rows(x: Float[Array, "b l *w"]) -> Float[Array, "b l *w"]:
    """`x`, its rows divided over the mesh that the program is traced for, if it is traced for one.

    Left to itself, the compiler may rather send activations than a divided kernel, and compute the same on each device.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.size == 1 or not set(ROWS) <= set(mesh.axis_names):
        return x
    if x.shape[0] % (mesh.shape["data"] * mesh.shape["fsdp"]):
        return x
    return jax.lax.with_sharding_constraint(x, P(ROWS, None, *[P.UNCONSTRAINED] * (x.ndim - 2)))
