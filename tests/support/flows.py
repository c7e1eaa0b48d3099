"""Energies and fields with known flows. Each is of one structure, so that all flows of one shape are one program."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jtextdiff.sampling.energies import Learned
from jtextdiff.sampling.rectified_flow import Field


class Terms(NamedTuple):
    """The terms of an energy, most of them zero."""

    curvature: float = 0.0
    middle: float = 0.0
    share: float = 0.0  # of the logistic term
    slope: float = 0.0
    constant: float = 0.0
    tilt: float = 0.0
    of_time: float = 0.0


def log_prob(terms: Terms, target: Any, z: Array, t: Any, valid: Any) -> Array:
    quadratic = 0.5 * terms.curvature * jnp.sum((z - terms.middle) ** 2, axis=-1)
    logistic = terms.share * jnp.sum(jax.nn.softplus(-terms.slope * z), axis=-1)
    return -(quadratic + logistic + terms.constant + terms.tilt * z[:, 0] + terms.of_time * t)


def of_terms(**terms: float) -> Learned:
    return Learned(params=Terms(**terms), target=(), log_prob=log_prob)


def bowl(curvature: float, middle: float) -> Learned:
    return of_terms(curvature=curvature, middle=middle)


def logistic(slope: float) -> Learned:
    return of_terms(share=1.0, slope=slope)


NOTHING = of_terms()


class Motion(NamedTuple):
    """A field: z moves away from `middle` at a rate, and by `shift` from time 0 to 1."""

    rate: float = 0.0
    middle: float = 0.0
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)


def velocity(motion: Motion, target: Any, z: Array, s: Array) -> Array:
    return motion.rate * (z - motion.middle) + 2 * s[:, None] * jnp.stack(motion.shift)[None]


def field_of(motion: Motion, strength: float = 1.0) -> Field:
    return Field(params=motion, target=0, strength=strength, velocity=velocity)
