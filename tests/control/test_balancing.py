"""Balancing: never worse than equal weights, by its own measure; and what pushes what is seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.control.balancing import find_weights, measure_interference
from jtextdiff.methods.components.latents import LatentSampler
from jtextdiff.sampling.energies import Learned, Sum, energy_terms

START = jax.random.normal(jax.random.key(0), (64, 3))


def wish(slope: list[float]) -> Learned:
    """p = σ(slope · z)."""
    return Learned(
        params=jnp.asarray(slope),
        target=jnp.ones(()),
        log_prob=lambda params, target, z, t, valid: jax.nn.log_sigmoid(z @ params),
    )


def world(*slopes: list[float]) -> tuple[Sum, object]:
    energy = Sum(energies=tuple(map(wish, slopes)), weights=tuple(np.float32(1) for _ in slopes))
    move = lambda z, weights: (
        LatentSampler().flow(Sum(energies=energy.energies, weights=tuple(weights)), z, max_time=1.0).z
    )
    return energy, jax.jit(move)


def jointly(energy: Sum, flow: object, weights: list[float]) -> float:
    nats = energy_terms(energy, flow(START, tuple(map(jnp.float32, weights))), 0.0)
    return float(jnp.exp(-nats.sum(-1)).mean())


@pytest.mark.parametrize("slopes", [([3.0, 0, 0], [0, 0.5, 0]), ([1.0, 0, 0], [-0.8, 0.6, 0], [0, 0, 2.0])])
def test_weights_are_never_worse_than_equal_ones(slopes: tuple[list[float], ...]) -> None:
    energy, flow = world(*slopes)
    found = find_weights(energy, flow, START)
    assert np.prod(found) == pytest.approx(1.0, rel=1e-4)
    assert jointly(energy, flow, found) >= jointly(energy, flow, [1.0] * len(slopes)) - 1e-6


def test_what_is_met_least_weighs_more() -> None:
    """The flatter wish moves slowest: with weight it is met more often, and the steeper one hardly less."""
    energy, flow = world([5.0, 0, 0], [0, 1.0, 0])
    found = find_weights(energy, flow, START)
    assert found[1] > 2 * found[0] and jointly(energy, flow, found) > jointly(energy, flow, [1.0, 1.0]) + 0.02


def test_who_pushes_whom() -> None:
    """Wishes at right angles leave each other alone; one against another takes from it."""
    energy, flow = world([2.0, 0, 0], [0, 2.0, 0], [-1.5, 0, 1.0])
    found = measure_interference(energy, flow, START, ("a", "b", "c"))
    assert found.pushed[0][0] > found.unmoved[0] + 0.2
    assert found.pushed[0][1] == pytest.approx(found.unmoved[1], abs=1e-3)
    assert found.pushed[0][2] < found.unmoved[2] - 0.05
    assert found.jointly <= min(found.together)
