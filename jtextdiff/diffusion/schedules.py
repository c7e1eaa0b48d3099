"""Noise schedules as log ᾱ(t) for t in [0, 1].

The logarithm represents both 1 − ᾱ near t = 0 and ᾱ near t = 1 in float32, where both are small. ᾱ(0) = 1 is the data,
exactly. Index i of a paper's table of T steps is the time t = (i + 1)/T.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

Time = Float[Array, "..."] | float
Schedule = Callable[[Time], Array]
"""t ↦ log ᾱ(t), elementwise."""

MAX_BETA = 0.999
"""Largest β of any one of the T steps (Nichol & Dhariwal 2021, §3.2)."""

MAX_SIGMA = -math.log(0.001)
"""σ at t = 1 under the log-linear schedule."""


def sqrt(num_steps: int) -> Schedule:
    """ᾱ(t) = (1 − √(t + s)) / (1 − √s), s = 1e-4: the square-root schedule of the Diffusion-LM release.

    Li et al. (2022), appendix A, print 1 − √(t + s); the released β telescope to the quotient. The last of the T steps
    is clipped at β = .999, so the schedule depends on T.
    """
    s = 1e-4

    def log_alpha_bar(t: Time) -> Array:
        t = jnp.asarray(t, float)
        root = jnp.sqrt(t + s)
        near_data = jnp.log1p(-jnp.minimum(t / (root + math.sqrt(s)) / (1 - math.sqrt(s)), 0.9))
        near_noise = jnp.log(jnp.maximum((1 - t) - s, 1e-9) / (1 + root) / (1 - math.sqrt(s)))
        return jnp.where(t < 0.5, near_data, near_noise)

    last = math.log((1 - math.sqrt(1 - 1 / num_steps + s)) / (1 - math.sqrt(s)))
    return _clip_last_step(log_alpha_bar, num_steps, last)


def cosine(num_steps: int) -> Schedule:
    """ᾱ(t) = cos²((t + s)/(1 + s) · π/2) / cos²(s/(1 + s) · π/2), s = .008 (Nichol & Dhariwal 2021, eq. 17)."""
    s = 0.008
    quarter = math.pi / 2 / (1 + s)

    def log_alpha_bar(t: Time) -> Array:
        # cos(x) = sin(π/2 − x), and π/2 − x = (1 − t) · quarter keeps its digits near t = 1.
        t = jnp.asarray(t, float)
        angle = jnp.maximum((1 - t) * quarter, 1e-9)
        # cos²(x)/cos²(y) = 1 − (sin²x − sin²y)/cos²y, and sin²x − sin²y = sin(x + y) sin(x − y).
        lost = jnp.sin((t + 2 * s) * quarter) * jnp.sin(t * quarter) / math.cos(s * quarter) ** 2
        near_noise = 2 * (jnp.log(jnp.sin(angle)) - math.log(math.cos(s * quarter)))
        return jnp.where(t < 0.5, jnp.log1p(-jnp.minimum(lost, 0.9)), near_noise)

    last = 2 * math.log(math.sin(quarter / num_steps) / math.cos(s * quarter))
    return _clip_last_step(log_alpha_bar, num_steps, last)


def linear(num_steps: int) -> Schedule:
    """log ᾱ(t) = −(β₀ t + (β₁ − β₀) t²/2), β from .1 to 20: the limit of DDPM's linear β (Song et al. 2021, eq. 32)."""
    del num_steps  # the limit is independent of T
    return lambda t: -(0.1 * jnp.asarray(t, float) + 9.95 * jnp.asarray(t, float) ** 2)


def constant(total: Time) -> Schedule:
    """log ᾱ(t) = −`total` · t: constant β."""
    return lambda t: -total * jnp.asarray(t, float)


def reciprocal(num_steps: int) -> Schedule:
    """ᾱ(t) = 1 − t: β = 1/(T − t + 1), each step replaces an equal share of the tokens (Austin et al. 2021, §3.1)."""
    del num_steps
    return lambda t: jnp.log1p(-jnp.asarray(t, float))


def log_linear(num_steps: int) -> Schedule:
    """ᾱ(t) = 1 − (1 − ε) t, ε = .001: the noise −log ᾱ is log-linear (Sahoo et al. 2024, appendix; Lou et al. 2024)."""
    del num_steps
    return lambda t: jnp.log1p(-0.999 * jnp.asarray(t, float))


def cosine_d3pm(num_steps: int) -> Schedule:
    """ᾱ(t) = cos((t + s)/(1 + s) · π/2) / cos(s/(1 + s) · π/2), s = .008, not squared (Austin et al. 2021, eq. 18)."""
    s = 0.008
    quarter = math.pi / 2 / (1 + s)

    def log_alpha_bar(t: Time) -> Array:
        # cos(x)/cos(y) = 1 − 2 sin((x + y)/2) sin((x − y)/2)/cos(y) keeps the digits of 1 − ᾱ near t = 0.
        t = jnp.asarray(t, float)
        angle = jnp.maximum((1 - t) * quarter, 1e-9)
        lost = 2 * jnp.sin((t / 2 + s) * quarter) * jnp.sin(t / 2 * quarter) / math.cos(s * quarter)
        near_noise = jnp.log(jnp.sin(angle)) - math.log(math.cos(s * quarter))
        return jnp.where(t < 0.5, jnp.log1p(-jnp.minimum(lost, 0.9)), near_noise)

    last = math.log(math.sin(quarter / num_steps) / math.cos(s * quarter))
    return _clip_last_step(log_alpha_bar, num_steps, last)


def cosine_md4(num_steps: int) -> Schedule:
    """ᾱ(t) = 1 − cos(π/2 (1 − t)): near t = 1 few tokens are revealed (Shi et al. 2024, table 4)."""
    del num_steps

    def log_alpha_bar(t: Time) -> Array:
        # 1 − cos(x) = 2 sin²(x/2), and near t = 0, 1 − ᾱ = sin(π/2 t).
        t = jnp.asarray(t, float)
        near_noise = math.log(2) + 2 * jnp.log(jnp.sin(math.pi / 4 * (1 - t)))
        return jnp.where(t < 0.5, jnp.log1p(-jnp.sin(math.pi / 2 * jnp.minimum(t, 0.5))), near_noise)

    return log_alpha_bar


def sigma(log_alpha_bar: Array) -> Array:
    """Returns σ = −log ᾱ as networks read it: at most that of the log-linear schedule at t = 1, where it is finite."""
    return jnp.minimum(-log_alpha_bar, MAX_SIGMA)


def _clip_last_step(log_alpha_bar: Schedule, num_steps: int, last: float) -> Schedule:
    """Makes log ᾱ linear in the last of `num_steps` cells: from `last` down by log(1 − .999)."""
    fall = math.log(1 - MAX_BETA)

    def clipped(t: Time) -> Array:
        t = jnp.asarray(t, float)
        steps_left = (1 - t) * num_steps
        return jnp.where(steps_left < 1, last + (1 - steps_left) * fall, log_alpha_bar(t))

    return clipped


def expand_like(value: Array, like: Array) -> Array:
    """Appends axes to a value (a scalar, one per text or one per token) until it broadcasts against `like`."""
    return value.reshape(value.shape + (1,) * (like.ndim - value.ndim))


SCHEDULES: dict[str, Callable[[int], Schedule]] = {"sqrt": sqrt, "cosine": cosine, "linear": linear}
"""Schedules of Gaussian diffusion: ᾱ is the share of the variance that is signal."""

TOKEN_SCHEDULES: dict[str, Callable[[int], Schedule]] = {
    "reciprocal": reciprocal,
    "log_linear": log_linear,
    "linear": linear,
    "cosine_d3pm": cosine_d3pm,
    "cosine_md4": cosine_md4,
}
"""Schedules of discrete diffusion: ᾱ is the probability that a token is unchanged."""
