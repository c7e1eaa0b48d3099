"""Weights for several controls, and their interference."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jtextdiff.cli.errors import UserError
from jtextdiff.cli.output import say
from jtextdiff.control.controls import Control
from jtextdiff.control.resolve import resolve
from jtextdiff.control.trained_model import TrainedModel
from jtextdiff.methods.components.latents import FlowLimits
from jtextdiff.methods.method import LatentVariableModel
from jtextdiff.sampling.energies import Sum, energy_terms

NUM_LATENTS = 256
"""Latents drawn from the prior, on which weights are tried."""

NUM_ROUNDS = 6
LatentFlow = Callable[[Float[Array, "b z"], Sequence[Any]], Float[Array, "b z"]]
"""(latents, weights of the energy's parts) ↦ the latents at the end of the flow."""


class Interference(NamedTuple):
    """Mean probabilities of controls by their own classifiers, under several flows."""

    names: tuple[str, ...]
    unmoved: list[float]  # of each control, without a flow
    pushed: list[list[float]]  # [i][j]: of control j where the flow follows control i alone
    together: list[float]  # of each control where the flow follows all of them
    jointly: float  # of all controls at once, under the same flow


def balance(model: TrainedModel, control: Control, *, seed: int = 0) -> Control:
    """Returns the control with the weights of its parts, out of several tried, that make all parts most probable.

    Weights start at one. In each round, latents of the prior flow under the whole control. A part's weight is then
    multiplied by the square root of its mean energy over the geometric mean of the parts, so that the least satisfied
    part pulls more. The geometric mean of the weights stays one. The round is taken in which the product of the parts'
    probabilities, by the controls' own classifiers, has the highest mean: it is never below that of equal weights. The
    weights that the control itself gives are multiplied in.
    """
    conjunction = control.as_sum()
    energy, flow = _flow(model, control)
    factors = iter(find_weights(energy, flow, _prior_latents(model, seed)))
    guided = resolve(control, model).names
    weights = tuple(
        weight * (float(next(factors)) if str(part) in guided else 1.0)
        for part, weight in zip(conjunction.parts, conjunction.weights, strict=True)
    )
    return Control("all", parts=conjunction.parts, weights=weights)


def find_weights(energy: Sum, flow: LatentFlow, start: Float[Array, "b z"]) -> list[float]:
    """Returns the factors for the weights of an energy's parts; see `balance`."""
    given = np.asarray(energy.weights, np.float64)
    factors, rounds = np.ones(len(given)), []
    for _ in range(NUM_ROUNDS):
        ends = flow(start, tuple(jnp.float32(weight) for weight in factors * given))
        nats = np.asarray(energy_terms(energy, ends, 0.0), np.float64)
        rounds.append((float(np.exp(-nats.sum(1)).mean()), factors.tolist()))
        mean_nats = np.maximum(nats.mean(0), 1e-4)
        factors = factors * np.sqrt(mean_nats / np.exp(np.log(mean_nats).mean()))
        factors = factors / np.exp(np.log(factors).mean())
    return max(rounds)[1]


def balance_if(requested: bool, model: TrainedModel, control: Control | None) -> Control | None:
    """Returns the control, with balanced weights if `requested`, which are then reported.

    Raises UserError if there is no control to balance.
    """
    if not requested:
        return control
    if control is None:
        raise UserError("--balance weighs controls: give two at least with --control.")
    balanced = balance(model, control)
    weighted = zip(balanced.parts, balanced.weights, strict=True)
    say("Weights: " + ", ".join(f"{part} {weight:.2f}" for part, weight in weighted))
    return balanced


def interference(model: TrainedModel, control: Control, *, seed: int = 0) -> Interference:
    """Returns how a flow along each part of a control changes the probabilities of the others."""
    energy, flow = _flow(model, control)
    return measure_interference(energy, flow, _prior_latents(model, seed), resolve(control, model).names)


def measure_interference(
    energy: Sum, flow: LatentFlow, start: Float[Array, "b z"], names: tuple[str, ...]
) -> Interference:
    """Returns the interference of an energy's parts, given their names."""

    def probabilities(latents: Float[Array, "b z"]) -> Float[np.ndarray, "b parts"]:
        return np.exp(-np.asarray(energy_terms(energy, latents, 0.0), np.float64))

    num = len(energy.energies)
    one_part = [tuple(jnp.float32(i == j) for j in range(num)) for i in range(num)]
    pushed = [probabilities(flow(start, weights)).mean(0).tolist() for weights in one_part]
    joint = probabilities(flow(start, energy.weights))
    unmoved = probabilities(start).mean(0).tolist()
    return Interference(names, unmoved, pushed, joint.mean(0).tolist(), float(joint.prod(1).mean()))


def check_interference(model: TrainedModel, control: Control | None) -> None:
    """Raises UserError for a model without latents, or fewer than two controls."""
    if control is None:
        raise UserError("--interference compares controls: give two at least with --control.")
    _flow(model, control)


def _flow(model: TrainedModel, control: Control) -> tuple[Sum, LatentFlow]:
    """The energy of a control and its flow in latent space. Raises UserError for a model without latents."""
    sampler: Any = model.method.sampler
    if not isinstance(model.method, LatentVariableModel):
        raise UserError(f"{type(model.method).__name__} has no latents to weigh controls in. TextVAE has.")
    energy = resolve(control, model).energy
    if not isinstance(energy, Sum) or len(energy.energies) < 2:
        raise UserError(f"{control}: there is nothing to weigh against each other. Give two controls at least.")

    @jax.jit
    def flow(start: Float[Array, "b z"], weights: Sequence[Array]) -> Float[Array, "b z"]:
        weighted = Sum(energies=energy.energies, weights=tuple(weights))
        return sampler.flow(weighted, start, FlowLimits(sampler.max_time)).z

    return energy, flow


def _prior_latents(model: TrainedModel, seed: int) -> Float[Array, "b z"]:
    method: Any = model.method
    return jax.random.normal(jax.random.key(seed), (NUM_LATENTS, method.latent_dim))
