"""Ancestral, DDIM and DPM-Solver++ steps of Gaussian diffusion.

Each step maps (x_t, x̂_0) to x_s; a point of the grid is (t, s).
"""

import dataclasses
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Bool

from jtextdiff.diffusion.distributions import Normal, check_temperature_and_top_p
from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.parameterization import noise_from_x_0
from jtextdiff.diffusion.randomness import Keys
from jtextdiff.sampling.energies import Energy
from jtextdiff.sampling.guidance import Guidance, guided
from jtextdiff.sampling.loop import Denoise, State, Step, later

NAMES = ("ancestral", "ddim", "dpm_solver")


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Settings of a Gaussian sampler."""

    name: str = "ancestral"  # or ddim, dpm_solver
    steps: int = 200
    eta: float = 0.0  # ddim only: 0 is deterministic, 1 is ancestral
    clamp: float = 0.25  # x̂_0 is the nearest token embedding once t is at or below this; 0 never, 1 always
    temperature: float = 1.0  # of the distribution over tokens, if the network predicts one
    guidance: Guidance = Guidance()  # how an energy is followed, if there is one

    names = NAMES
    uses_steps = True

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ValueError(f"sampler.name must be ancestral, ddim or dpm_solver, got {self.name!r}.")
        if self.steps < 1:
            raise ValueError(f"sampler.steps must be at least 1, got {self.steps}.")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"sampler.eta must be from 0 to 1, got {self.eta}.")
        if not 0 <= self.clamp <= 1:
            raise ValueError(f"sampler.clamp is a time from 0 to 1, got {self.clamp}.")
        check_temperature_and_top_p(self.temperature)

    @property
    def stochastic(self) -> bool:
        """Returns whether a step samples x_s from the posterior."""
        return self.name == "ancestral" or (self.name == "ddim" and self.eta == 1)

    def step(self, process: Gaussian, denoise: Denoise) -> Step:
        """Returns the step of these settings."""
        if self.name == "ddim":
            return ddim(process, denoise, self.eta)
        return dpm_solver(process, denoise) if self.name == "dpm_solver" else ancestral(process, denoise)

    def guide(
        self,
        step: Step,
        process: Gaussian,
        denoise: Denoise,
        energy: Energy,
        fixed: Bool[Array, "b l"],
        valid: Bool[Array, "b l"],
        unit: float,
    ) -> Step:
        """Returns the step followed by guidance, see `guided`.

        The rates of sign and adagrad are in `unit`s: the standard deviation of a coordinate of clean vectors.
        """
        settings = self.guidance
        if settings.update_rule in ("sign", "adagrad"):
            settings = dataclasses.replace(settings, rate=settings.rate * unit)
        estimate_x_0 = {
            "state": lambda x_s, s, state: None,
            "estimate": lambda x_s, s, state: state.x_0_hat + (x_s - state.x_t),
            "network": lambda x_s, s, state: denoise(x_s, s, state.x_0_hat),
        }[settings.input]
        return guided(
            step,
            process,
            energy,
            settings,
            stochastic=self.stochastic,
            free=valid & ~fixed,
            valid=valid,
            estimate_x_0=estimate_x_0,
        )


def ancestral(process: Gaussian, denoise: Denoise) -> Step:
    """Returns the step x_s ~ q(x_s | x_t, x̂_0): Ho et al. (2020), algorithm 2, at any stride."""

    def step(keys: Keys, state: State, times: tuple[Array, Array]) -> State:
        t, s = times
        x_0_hat = denoise(state.x_t, t, state.x_0_hat)
        x_s = process.posterior(x_0_hat, state.x_t, s, t).sample(keys)
        return State(x_s, x_0_hat, t)

    return step


def ddim(process: Gaussian, denoise: Denoise, eta: float) -> Step:
    """Returns the DDIM step (Song et al. 2021, eq. 12 and 16).

    `eta` = 0 is deterministic; `eta` = 1 has the distribution of `ancestral`.
    """

    def step(keys: Keys, state: State, times: tuple[Array, Array]) -> State:
        t, s = times
        x_0_hat = denoise(state.x_t, t, state.x_0_hat)
        std = eta * process.posterior(x_0_hat, state.x_t, s, t).std
        # (1 − ᾱ_s) − std² as a product: the difference of the two would lose its digits near t = 1.
        beta = -jnp.expm1(process.log_alpha_bar(t) - process.log_alpha_bar(s))
        share = 1 - eta**2 * beta / process.noise(t, state.x_t) ** 2
        direction = process.noise(s, state.x_t) * jnp.sqrt(jnp.maximum(share, 0.0))
        noise_hat = noise_from_x_0(process, x_0_hat, state.x_t, t)
        mean = process.signal(s, state.x_t) * x_0_hat + direction * noise_hat
        return State(Normal(mean=mean, std=std).sample(keys), x_0_hat, t)

    return step


def dpm_solver(process: Gaussian, denoise: Denoise) -> Step:
    """Returns the step of DPM-Solver++(2M) for the data-prediction ODE (Lu et al. 2022, algorithm 2).

    This multistep solver is second order. The first step has no earlier estimate, and the last step, to s = 0, is
    infinite in log-SNR: both are first order, which at s = 0 gives x̂_0 itself.
    """

    def step(keys: Keys, state: State, times: tuple[Array, Array]) -> State:
        t, s = times
        x_0_hat = denoise(state.x_t, t, state.x_0_hat)
        lambda_t = process.half_log_snr(t)
        h, h_previous = process.half_log_snr(s) - lambda_t, lambda_t - process.half_log_snr(state.t_hat)
        second_order = later(state.t_hat, t) & (s > 0)
        slope = jnp.where(second_order, h / jnp.where(second_order, 2 * h_previous, 1.0), 0.0)
        extrapolated = x_0_hat + jnp.where(second_order, slope, 0.0) * (x_0_hat - state.x_0_hat)
        shrink = process.noise(s, state.x_t) / process.noise(t, state.x_t)
        x_s = shrink * state.x_t - process.signal(s, state.x_t) * jnp.expm1(-h) * extrapolated
        return State(x_s, x_0_hat, t)

    return step
