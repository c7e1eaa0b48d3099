"""Balancing: how much each of several controls should weigh, and how far each moves what the others want."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jtextdiff.cli.errors import UserError
from jtextdiff.cli.output import say
from jtextdiff.control.controls import Control
from jtextdiff.control.resolve import asked
from jtextdiff.methods.method import Latent
from jtextdiff.sampling.energies import Sum, parts

LATENTS = 256
"""Drawn from the initial law to see where controls take them."""

ROUNDS = 6
Flow = Callable[[Float[Array, "b z"], Sequence[Any]], Float[Array, "b z"]]
"""(latents, weights of the parts) ↦ where they come to."""


class Interference(NamedTuple):
    """Mean probabilities, by the controls' own classifiers: of each thing wanted where nothing is pushed; and, with
    each thing pushed alone, of every thing; last, with all pushed together, of every thing, and of all at once."""

    names: tuple[str, ...]
    unmoved: list[float]
    pushed: list[list[float]]  # [pushed][seen]
    together: list[float]
    jointly: float


def balanced(model: Any, control: Control, *, seed: int = 0) -> Control:
    """The control with those weights of its parts, of several tried, under which all are likeliest met at once.

    Weights start at one. In each round latents of the initial law flow under the whole, and a part's weight is
    multiplied by the root of its mean energy over the parts' geometric mean, so that what is met least pulls more; the
    weights' geometric mean stays one. Of all rounds that counts in which the product of the parts' probabilities, by
    the controls' own classifiers, is highest in the mean: so it is never below that of equal weights. A weight that the
    control itself gives a part is multiplied in.
    """
    whole = control.as_sum()
    energy, flow = _flow(model, control)
    ours = iter(settled(energy, flow, _latents(model, seed)))
    given = zip(whole.parts, whole.weights, strict=True)
    names = asked(control, model.steered).names
    mine = tuple(weight * (float(next(ours)) if str(part) in names else 1.0) for part, weight in given)
    return Control("all", parts=whole.parts, weights=mine)


def settled(energy: Sum, flow: Flow, start: Float[Array, "b z"]) -> list[float]:
    """What each part's own weight is to be multiplied by: see `balanced`."""
    own = np.asarray(energy.weights, np.float64)
    weights, tried = np.ones(len(own)), []
    for _ in range(ROUNDS):
        ends = flow(start, tuple(jnp.float32(weight) for weight in weights * own))
        nats = np.asarray(parts(energy, ends, 0.0), np.float64)
        tried.append((float(np.exp(-nats.sum(1)).mean()), weights.tolist()))
        short = np.maximum(nats.mean(0), 1e-4)
        weights = weights * np.sqrt(short / np.exp(np.log(short).mean()))
        weights = weights / np.exp(np.log(weights).mean())
    return max(tried)[1]


def weighed(model: Any, control: Control | None, balance: bool) -> Control | None:
    """The control, balanced if that is asked for, which is told. Raises UserError if there is none to balance."""
    if not balance:
        return control
    if control is None:
        raise UserError("--balance weighs controls: give two at least with --control.")
    found = balanced(model, control)
    say(
        "Weights: " + ", ".join(f"{part} {weight:.2f}" for part, weight in zip(found.parts, found.weights, strict=True))
    )
    return found


def interference(model: Any, control: Control, *, seed: int = 0) -> Interference:
    """What pushing each part of a control does to the others."""
    energy, flow = _flow(model, control)
    return pushed(energy, flow, _latents(model, seed), asked(control, model.steered).names)


def pushed(energy: Sum, flow: Flow, start: Float[Array, "b z"], names: tuple[str, ...]) -> Interference:
    """The same of an energy, whose parts have the `names`."""
    num = len(energy.energies)
    sure = lambda z: np.exp(-np.asarray(parts(energy, z, 0.0), np.float64))
    alone = [tuple(jnp.float32(i == j) for j in range(num)) for i in range(num)]
    each = [sure(flow(start, weights)).mean(0).tolist() for weights in alone]
    both = sure(flow(start, energy.weights))
    return Interference(names, sure(start).mean(0).tolist(), each, both.mean(0).tolist(), float(both.prod(1).mean()))


def check(model: Any, control: Control | None) -> None:
    """Raises UserError for a model without latents, or fewer controls than two."""
    if control is None:
        raise UserError("--interference is of controls: give two at least with --control.")
    _flow(model, control)


def _flow(model: Any, control: Control) -> tuple[Sum, Flow]:
    """The energy of a control, and where it takes latents. Raises UserError for a model without."""
    sampler: Any = model.method.sampler
    if not isinstance(model.method, Latent):
        raise UserError(f"{type(model.method).__name__} has no latents to weigh controls in. TextVAE has.")
    energy = asked(control, model.steered).energy
    if not isinstance(energy, Sum) or len(energy.energies) < 2:
        raise UserError(f"{control}: there is nothing to weigh against each other. Give two controls at least.")

    @jax.jit
    def flow(start: Float[Array, "b z"], weights: Sequence[Array]) -> Float[Array, "b z"]:
        return sampler.moved(Sum(energies=energy.energies, weights=tuple(weights)), start, tau=sampler.tau).z

    return energy, flow


def _latents(model: Any, seed: int) -> Float[Array, "b z"]:
    method: Any = model.method
    return jax.random.normal(jax.random.key(seed), (LATENTS, method.latent_dim))
