"""Latents: where the latents of texts lie, and the coordinates in which that law is N(0, I)."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jtextdiff.nets.functional import Params


def fresh_law(dim: int) -> Params:
    """N(0, I), as the parameters of an affine law."""
    return {"scale": jnp.zeros((dim, dim)), "shift": jnp.zeros(dim)}


def whitened(law: Params, z: Float[Array, "b z"]) -> Float[Array, "b z"]:
    """ε = A z − c, which is N(0, I) where z has the law; A is lower triangular."""
    return z @ _matrix(law).T - law["shift"]


def coloured(law: Params, epsilon: Float[Array, "b z"]) -> Float[Array, "b z"]:
    """z = A⁻¹ (ε + c), the way back."""
    return jax.scipy.linalg.solve_triangular(_matrix(law), (epsilon + law["shift"]).T, lower=True).T


def law_nll(law: Params, z: Float[Array, "b z"]) -> Float[Array, "b"]:
    """−log p(z), nats."""
    squares = whitened(law, z) ** 2 + math.log(2 * math.pi)
    return 0.5 * jnp.sum(squares, axis=-1) - jnp.sum(jnp.diag(law["scale"]))


def _matrix(law: Params) -> Float[Array, "z z"]:
    """A: below the diagonal the scale's own entries, on it their exponentials."""
    return jnp.tril(law["scale"], -1) + jnp.diag(jnp.exp(jnp.diag(law["scale"])))
