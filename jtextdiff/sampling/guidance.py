"""Gradient guidance: a step followed by updates of x_s that lower an energy (Li et al. 2022, §5.1)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.randomness import Keys
from jtextdiff.diffusion.schedules import Time
from jtextdiff.sampling.energies import Energy
from jtextdiff.sampling.loop import State, Step, later

UPDATE_RULES = ("std", "sign", "adagrad", "scaled")
INPUTS = ("state", "estimate", "network")
MIN_STD = 1e-8

EstimateX0 = Callable[[Array, Array, State], Array | None]
"""(x_s, s, state after the step) ↦ the estimate of x_0 that the energy reads besides x_s, or None."""


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """Settings of guidance: after each step, `updates` moves of x_s along the gradient of the energy E(x_s, s).

    Only texts with an energy of at least `energy_threshold` are moved.

    `input` is what an energy reads if it serves better on an estimate of x_0:
    - "estimate": the step's own x̂_0, shifted as x_s is. It costs nothing.
    - "network": the network's estimate from x_s. The gradient passes through it: about three calls per update.
    - "state": x_s itself, as in the paper.

    `update_rule`:
    - "std": steps along the gradient of each text, whatever its norm; the root mean square of a step over coordinates
      is `rate` standard deviations of the noise that the sampling step adds. The weight of an energy therefore matters
      only relative to other energies. A step without noise uses the posterior's standard deviation.
    - "sign": moves every coordinate by `rate`, which is what the fresh Adagrad of the released code amounts to.
    - "adagrad": divides by the root of the squares summed over the step's updates, as in the paper's text.
    - "scaled": moves by `rate` σ² times the gradient (Dhariwal & Nichol 2021, algorithm 1, at rate 1), with the penalty
      `fluency` · Σ (x_s − μ)²/2σ².

    The first three rules add the released penalty `fluency` · Σ (x_s − μ)²/σ. Without it, sign and adagrad end in
    unreadable text.
    """

    update_rule: str = "std"
    updates: int = 1
    rate: float = 1.0
    fluency: float = 0.0
    start: float = 1.0  # guided from this time …
    stop: float = 0.05  # … down to this one
    energy_threshold: float = 0.1  # nats: a text with a lower energy is not moved
    input: str = "estimate"

    def __post_init__(self) -> None:
        if self.update_rule not in UPDATE_RULES:
            raise ValueError(f"guidance.update_rule must be one of {UPDATE_RULES}, got {self.update_rule!r}.")
        if self.input not in INPUTS:
            raise ValueError(f"guidance.input must be one of {INPUTS}, got {self.input!r}.")
        if self.updates < 0:
            raise ValueError(f"guidance.updates must be at least 0, got {self.updates}.")
        for field in ("rate", "fluency", "energy_threshold"):
            if not getattr(self, field) >= 0:
                raise ValueError(f"guidance.{field} must be at least 0, got {getattr(self, field)}.")
        if not 0 <= self.stop <= self.start <= 1:
            raise ValueError(
                f"guidance.start and stop are times, 0 <= stop <= start <= 1; got {self.start} and {self.stop}."
            )

    def acts_at(self, s: Time) -> Array:
        """Returns whether a step that ends at time s is guided."""
        return ~later(self.stop, s) & ~later(s, self.start)


RELEASED = Guidance(update_rule="sign", updates=3, rate=0.1, fluency=0.01, energy_threshold=0.0, input="state")
"""Guidance of the paper's released code. There the rate is absolute. Here it is absolute if word vectors have a free
norm, and otherwise in units of the standard deviation of their coordinates."""


def guided(
    step: Step,
    process: Gaussian,
    energy: Energy,
    settings: Guidance,
    *,
    stochastic: bool,
    free: Bool[Array, "b l"],
    valid: Bool[Array, "b l"] | None,
    estimate_x_0: EstimateX0 = lambda x_s, s, state: None,
) -> Step:
    """Returns `step` followed by updates of its x_s at the `free` positions. Gradients are with respect to x_s alone.

    The penalty's μ is the posterior mean if the step is `stochastic`, i.e. samples x_s around it; else μ is x_s.
    """

    def guided_step(keys: Keys, state: State, times: tuple[Array, Array]) -> State:
        t, s = times
        after = step(keys, state, times)
        posterior = process.posterior(after.x_0_hat, state.x_t, s, t)
        mean = posterior.mean if stochastic else after.x_t
        std = jnp.maximum(posterior.std, MIN_STD)

        def energy_at(x_s: Array) -> Float[Array, "b"]:
            return energy(x_s, s, valid, estimate_x_0(x_s, s, after))

        def update(x_s: Array) -> Array:
            return _updated(x_s, mean, std, energy_at, settings, free[..., None])

        return after._replace(x_t=jax.lax.cond(settings.acts_at(s), update, lambda x_s: x_s, after.x_t))

    return guided_step


def _updated(
    x_s: Float[Array, "b l d"],
    mean: Float[Array, "b l d"],
    std: Array,
    energy: Callable[[Array], Float[Array, "b"]],
    settings: Guidance,
    free: Bool[Array, "b l 1"],
) -> Float[Array, "b l d"]:
    """Applies the updates of one step; stops once all texts are below the energy threshold."""

    def body(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        index, x, squares, active = carry
        value, vjp = jax.vjp(energy, x)
        (gradient,) = vjp(jnp.ones_like(value))
        active = value >= settings.energy_threshold
        if settings.update_rule == "scaled":
            change = settings.rate * (std**2 * gradient + settings.fluency * (x - mean))
        else:
            gradient = jnp.where(free, gradient + 2 * settings.fluency * (x - mean) / std, 0.0)
            squares = gradient**2 + (squares if settings.update_rule == "adagrad" else 0.0)
            size = _root_mean(squares, free) / std if settings.update_rule == "std" else jnp.sqrt(squares)
            change = settings.rate * gradient / (size + 1e-10)
        return index + 1, jnp.where(free & active[:, None, None], x - change, x), squares, active

    def unfinished(carry: tuple[Any, ...]) -> Array:
        return (carry[0] < settings.updates) & jnp.any(carry[3])

    start = (0, x_s, jnp.zeros_like(x_s), jnp.ones(len(x_s), bool))
    return jax.lax.while_loop(unfinished, body, start)[1]


def _root_mean(squares: Float[Array, "b l d"], free: Bool[Array, "b l 1"]) -> Float[Array, "b 1 1"]:
    """Returns the root of each text's mean over its free coordinates."""
    count = jnp.maximum(jnp.sum(free, axis=(1, 2), keepdims=True), 1) * squares.shape[-1]
    return jnp.sqrt(jnp.sum(squares, axis=(1, 2), keepdims=True) / count)
