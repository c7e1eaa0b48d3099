"""Balancing of guidance weights: it never satisfies fewer controls than equal weights, and interference is measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.control.balancing import find_weights, measure_interference
from jtextdiff.methods.components.latents import FlowLimits, LatentSampler
from jtextdiff.sampling.energies import Learned, Sum, energy_terms

START = jax.random.normal(jax.random.key(0), (64, 3))


def logistic(params: jax.Array, target: jax.Array, z: jax.Array, t: jax.Array, valid: object) -> jax.Array:
    """p = σ(slope · z)."""
    return jax.nn.log_sigmoid(z @ params)


@jax.jit
def moved(energies: tuple[Learned, ...], z: jax.Array, weights: tuple[jax.Array, ...]) -> jax.Array:
    """One program for all sums of as many energies."""
    return LatentSampler().flow(Sum(energies=energies, weights=weights), z, FlowLimits(1.0)).z


def energy_and_flow(*slopes: list[float]) -> tuple[Sum, object]:
    energies = tuple(Learned(params=jnp.asarray(slope), target=jnp.ones(()), log_prob=logistic) for slope in slopes)
    energy = Sum(energies=energies, weights=tuple(np.float32(1) for _ in slopes))
    return energy, lambda z, weights: moved(energies, z, tuple(weights))


def success(energy: Sum, flow: object, weights: list[float]) -> float:
    energies = energy_terms(energy, flow(START, tuple(map(jnp.float32, weights))), 0.0)
    return float(jnp.exp(-energies.sum(-1)).mean())


@pytest.mark.parametrize("slopes", [([3.0, 0, 0], [0, 0.5, 0]), ([1.0, 0, 0], [-0.8, 0.6, 0], [0, 0, 2.0])])
def test_weights_are_never_worse_than_equal_ones(slopes: tuple[list[float], ...]) -> None:
    energy, flow = energy_and_flow(*slopes)
    weights = find_weights(energy, flow, START)
    assert np.prod(weights) == pytest.approx(1.0, rel=1e-4)
    assert success(energy, flow, weights) >= success(energy, flow, [1.0] * len(slopes)) - 1e-6


def test_the_least_satisfied_control_gets_more_weight() -> None:
    """Weight on the flatter, slower energy raises its probability much and lowers that of the steeper one little."""
    energy, flow = energy_and_flow([5.0, 0, 0], [0, 1.0, 0])
    weights = find_weights(energy, flow, START)
    assert weights[1] > 2 * weights[0] and success(energy, flow, weights) > success(energy, flow, [1.0, 1.0]) + 0.02


def test_interference_has_the_sign_of_the_angle_between_gradients() -> None:
    """Orthogonal energies do not change each other; opposed ones lower each other's probability."""
    energy, flow = energy_and_flow([2.0, 0, 0], [0, 2.0, 0], [-1.5, 0, 1.0])
    interference = measure_interference(energy, flow, START, ("a", "b", "c"))
    assert interference.pushed[0][0] > interference.unmoved[0] + 0.2
    assert interference.pushed[0][1] == pytest.approx(interference.unmoved[1], abs=1e-3)
    assert interference.pushed[0][2] < interference.unmoved[2] - 0.05
    assert interference.jointly <= min(interference.together)
