"""Rectified flow between two sets of points: a velocity field whose ODE carries the one to the other.

With x_s = (1 − s) x_0 + s x_1, the field E[x_1 − x_0 | x_s] moves the distribution of x_0 to that of x_1 for any
coupling of the two (Liu et al. 2023; Lipman et al. 2023).
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.optimize import linear_sum_assignment

from jtextdiff.diffusion.pytree import pytree, static

Velocity = Callable[[Float[Array, "b z"], Float[Array, "b"]], Float[Array, "b z"]]
"""(x_s, s) ↦ the velocity dx/ds."""


@pytree
class Field:
    """A velocity field with parameters, towards one of several targets, times a `strength`."""

    params: Any
    target: Int[Array, ""] | int
    strength: Float[Array, ""] | float
    velocity: Callable[..., Any] = static()  # (params, target, x_s, s) ↦ dx/ds

    def __call__(self, x: Float[Array, "b z"], s: Float[Array, "b"]) -> Float[Array, "b z"]:
        return self.strength * self.velocity(self.params, self.target, x, s)


def regression_loss(
    velocity: Velocity, x_0: Float[Array, "b z"], x_1: Float[Array, "b z"], s: Float[Array, "b"]
) -> Float[Array, "b"]:
    """Returns ‖v(x_s, s) − (x_1 − x_0)‖² by the number of dimensions (Liu et al. 2023, eq. 1)."""
    x_s = (1 - s[:, None]) * x_0 + s[:, None] * x_1
    return jnp.mean((velocity(x_s, s) - (x_1 - x_0)) ** 2, axis=-1)


def transport_order(x_0: Float[np.ndarray, "n z"], x_1: Float[np.ndarray, "n z"], block: int) -> Int[np.ndarray, "n"]:
    """Returns the order of x_1 in which its rows are the partners of x_0's with the least total squared distance.

    The assignment is exact within blocks of `block` rows (Tong et al. 2024).
    """
    order = np.arange(len(x_1))
    for start in range(0, len(x_0), block):
        rows = slice(start, start + block)
        cost = -2 * x_0[rows] @ x_1[rows].T + np.sum(x_1[rows] ** 2, axis=-1)
        order[rows] = start + linear_sum_assignment(cost)[1]
    return order


def normal_velocity(
    mean_0: Float[Array, "*#b z"],
    cov_0: Float[Array, "*#b z z"],
    mean_1: Float[Array, "*#b z"],
    cov_1: Float[Array, "*#b z z"],
    x: Float[Array, "*b z"],
    s: Float[Array, "*b"],
) -> Float[Array, "*b z"]:
    """Returns the velocity of the rectified flow of two independent normals, which is affine in x.

    E[x_1 − x_0 | x_s], from the joint normal of x_0, x_1 and x_s.
    """
    t = s[..., None, None]
    centered = x - ((1 - s[..., None]) * mean_0 + s[..., None] * mean_1)
    covariance = (1 - t) ** 2 * cov_0 + t**2 * cov_1
    solved = jnp.linalg.solve(covariance, centered[..., None])
    return mean_1 - mean_0 + ((t * cov_1 - (1 - t) * cov_0) @ solved)[..., 0]


def energy_distance(x: Float[np.ndarray, "n z"], y: Float[np.ndarray, "m z"]) -> float:
    """Returns 2 E‖x − y‖ − E‖x − x′‖ − E‖y − y′‖ of two samples: 0 for equal distributions (Székely & Rizzo 2013)."""

    def mean_distance(a: np.ndarray, b: np.ndarray, pairs: int) -> float:
        squares = np.sum(a**2, axis=-1)[:, None] + np.sum(b**2, axis=-1) - 2 * a @ b.T
        return float(np.sum(np.sqrt(np.maximum(squares, 0)))) / pairs

    within = mean_distance(x, x, len(x) * (len(x) - 1)) + mean_distance(y, y, len(y) * (len(y) - 1))
    return 2 * mean_distance(x, y, len(x) * len(y)) - within
