"""Conversions between x_0, noise, score and v predictions.

All four express one estimate (Luo 2022, eq. 99, 130, 148; Salimans & Ho 2022, appendix D). With signal √ᾱ and noise
√(1 − ᾱ): x_t = signal · x_0 + noise · ε, score = −ε / noise, v = signal · ε − noise · x_0.
"""

from collections.abc import Callable

from jaxtyping import Array

from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.schedules import Time

Conversion = Callable[[Gaussian, Array, Array, Time], Array]


def x_0_from_noise(process: Gaussian, noise: Array, x_t: Array, t: Time) -> Array:
    return (x_t - process.noise(t, x_t) * noise) / process.signal(t, x_t)


def x_0_from_score(process: Gaussian, score: Array, x_t: Array, t: Time) -> Array:
    """Returns x̂_0 by Tweedie's formula."""
    return (x_t + process.noise(t, x_t) ** 2 * score) / process.signal(t, x_t)


def x_0_from_v(process: Gaussian, v: Array, x_t: Array, t: Time) -> Array:
    return process.signal(t, x_t) * x_t - process.noise(t, x_t) * v


def noise_from_x_0(process: Gaussian, x_0: Array, x_t: Array, t: Time) -> Array:
    return (x_t - process.signal(t, x_t) * x_0) / process.noise(t, x_t)


def score_from_x_0(process: Gaussian, x_0: Array, x_t: Array, t: Time) -> Array:
    return (process.signal(t, x_t) * x_0 - x_t) / process.noise(t, x_t) ** 2


def v_from_x_0(process: Gaussian, x_0: Array, x_t: Array, t: Time) -> Array:
    return (process.signal(t, x_t) * x_t - x_0) / process.noise(t, x_t)


TO_X_0: dict[str, Conversion] = {
    "x_0": lambda process, x_0, x_t, t: x_0,
    "noise": x_0_from_noise,
    "score": x_0_from_score,
    "v": x_0_from_v,
}
"""Parameterization ↦ the function (process, prediction, x_t, t) ↦ x̂_0."""

FROM_X_0: dict[str, Conversion] = {
    "x_0": lambda process, x_0, x_t, t: x_0,
    "noise": noise_from_x_0,
    "score": score_from_x_0,
    "v": v_from_x_0,
}
"""Parameterization ↦ the function (process, x_0, x_t, t) ↦ the target of the network."""
