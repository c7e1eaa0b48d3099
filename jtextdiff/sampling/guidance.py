"""Guidance: a Step that moves what it has drawn to lower energy, in the compiled loop (Li et al. 2022, §5.1)."""

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
from jtextdiff.sampling.loop import State, Step

MOVES = ("std", "sign", "adagrad", "scaled")
SEES = ("state", "estimate", "network")


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How an energy is followed: `updates` moves of x_s after each step, against E(x_s, s), for texts above `enough`.

    `sees`: what those energies see that serve better on an estimate of x_0. "estimate": the one that the step was made
    from, moved as x_s is, which costs nothing; "network": the network's of x_s, whose gradient goes through it, for
    some three calls an update; "state": x_s itself, as the paper has it.

    `move`: "std" goes down the text's gradient by `rate` standard deviations of what the step itself draws, a
    coordinate in the mean, however steep: a weight tells beside other energies alone. Where a step draws nothing it is
    the posterior's deviation. "sign" moves every coordinate by `rate`, which is what the released code's fresh Adagrad
    amounts to; "adagrad" divides by the root of the squares summed over the step's updates, as the paper's text has
    it. All three take the released penalty `fluency` · Σ (x_s − μ)²/σ, without which sign and adagrad leave what can be
    read. "scaled" moves by `rate` σ² times the gradient (Dhariwal & Nichol 2021, algorithm 1, at rate 1), with
    `fluency` · Σ (x_s − μ)²/2σ².
    """

    move: str = "std"
    updates: int = 1
    rate: float = 1.0
    fluency: float = 0.0
    first: float = 1.0  # guided from this time …
    last: float = 0.05  # … to this
    enough: float = 0.1  # nats: a text whose energy is below this is left alone
    sees: str = "estimate"

    def __post_init__(self) -> None:
        if self.move not in MOVES:
            raise ValueError(f"guidance.move must be one of {MOVES}, got {self.move!r}.")
        if self.sees not in SEES:
            raise ValueError(f"guidance.sees must be one of {SEES}, got {self.sees!r}.")
        if self.updates < 0:
            raise ValueError(f"guidance.updates must be at least 0, got {self.updates}.")
        for field in ("rate", "fluency", "enough"):
            if not getattr(self, field) >= 0:
                raise ValueError(f"guidance.{field} must be at least 0, got {getattr(self, field)}.")
        if not 0 <= self.last <= self.first <= 1:
            raise ValueError(
                f"guidance.first and last are times, 0 <= last <= first <= 1; got {self.first} and {self.last}."
            )


RELEASED = Guidance(move="sign", updates=3, rate=0.1, fluency=0.01, enough=0.0, sees="state")
"""As the paper's code has it. There the rate is absolute; here it is so if word vectors have a free norm, and else in
units of what a coordinate of a word spans."""

See = Callable[[Array, Time, State], Array | None]
"""(x_s, s, the state then) ↦ the estimate of x_0 that the energy is shown beside x_s, if any."""


def guided(
    step: Step,
    process: Gaussian,
    energy: Energy,
    how: Guidance,
    *,
    drawn: bool,
    free: Bool[Array, "b l"],
    valid: Bool[Array, "b l"] | None,
    see: See = lambda x_s, s, state: None,
) -> Step:
    """`step`, followed by moves of its x_s at the `free` positions. Gradients are taken of x_s alone.

    `drawn`: whether the step draws x_s around the posterior's mean, which is then the μ to stay near; else that is x_s.
    """

    def steered(keys: Keys, state: State, tick: tuple[Array, Array]) -> State:
        t, s = tick
        after = step(keys, state, tick)
        law = process.posterior(after.x_0_hat, state.x_t, s, t)
        mean = law.mean if drawn else after.x_t
        wanted = lambda x_s: energy(x_s, s, valid, see(x_s, s, after))
        move = lambda x_s: _moved(x_s, mean, jnp.maximum(law.std, 1e-8), wanted, how, free[..., None])
        x_s = jax.lax.cond((how.last <= s) & (s <= how.first), move, lambda x_s: x_s, after.x_t)
        return after._replace(x_t=x_s)

    return steered


def _moved(
    x_s: Float[Array, "b l d"],
    mean: Float[Array, "b l d"],
    std: Array,
    wanted: Callable[[Array], Float[Array, "b"]],
    how: Guidance,
    free: Bool[Array, "b l 1"],
) -> Float[Array, "b l d"]:
    """The updates of one step; none, once all texts are well enough."""

    def body(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        index, x, squares, active = carry
        value, pull = jax.vjp(wanted, x)
        (gradient,) = pull(jnp.ones_like(value))
        active = value >= how.enough
        if how.move == "scaled":
            change = how.rate * (std**2 * gradient + how.fluency * (x - mean))
        else:
            gradient = jnp.where(free, gradient + 2 * how.fluency * (x - mean) / std, 0.0)
            squares = gradient**2 + (squares if how.move == "adagrad" else 0.0)
            size = _root_mean(squares, free) / std if how.move == "std" else jnp.sqrt(squares)
            change = how.rate * gradient / (size + 1e-10)
        return index + 1, jnp.where(free & active[:, None, None], x - change, x), squares, active

    going = lambda carry: (carry[0] < how.updates) & jnp.any(carry[3])
    start = (0, x_s, jnp.zeros_like(x_s), jnp.ones(len(x_s), bool))
    return jax.lax.while_loop(going, body, start)[1]


def _root_mean(squares: Float[Array, "b l d"], free: Bool[Array, "b l 1"]) -> Float[Array, "b 1 1"]:
    """The root of each text's mean over its free coordinates."""
    count = jnp.maximum(jnp.sum(free, axis=(1, 2), keepdims=True), 1) * squares.shape[-1]
    return jnp.sqrt(jnp.sum(squares, axis=(1, 2), keepdims=True) / count)
