"""Samplers of a Gaussian diffusion: three Steps from (x_t, x̂_0) to x_s, and the settings that choose one."""

import dataclasses
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Bool

from jtextdiff.diffusion.distributions import Normal, check_narrowing
from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.parameterization import noise_from_x_0
from jtextdiff.diffusion.randomness import Keys
from jtextdiff.sampling.energies import Energy
from jtextdiff.sampling.guidance import Guidance, guided
from jtextdiff.sampling.loop import Denoise, State, Step


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How samples are drawn."""

    name: str = "ancestral"  # or ddim, dpm_solver
    steps: int = 200
    eta: float = 0.0  # ddim only: 0 is deterministic, 1 is ancestral
    clamp: float = 0.25  # x̂_0 is the nearest word's vector once t is at or below this; 0 never, 1 always
    temperature: float = 1.0  # of the distribution over words, where the network answers with one
    guidance: Guidance = Guidance()  # how an energy is followed, if there is one

    def __post_init__(self) -> None:
        if self.name not in ("ancestral", "ddim", "dpm_solver"):
            raise ValueError(f"sampler.name must be ancestral, ddim or dpm_solver, got {self.name!r}.")
        if self.steps < 1:
            raise ValueError(f"sampler.steps must be at least 1, got {self.steps}.")
        check_narrowing(self.temperature)

    def step(self, process: Gaussian, denoise: Denoise) -> Step:
        if self.name == "ddim":
            return ddim(process, denoise, self.eta)
        return dpm_solver(process, denoise) if self.name == "dpm_solver" else ancestral(process, denoise)

    def steer(
        self,
        step: Step,
        process: Gaussian,
        denoise: Denoise,
        energy: Energy,
        fixed: Bool[Array, "b l"],
        valid: Bool[Array, "b l"],
        unit: float,
    ) -> Step:
        """The step, guided: see `guided`. The rate of sign and adagrad is in `unit`s, what a clean coordinate spans."""
        how = self.guidance
        if how.move in ("sign", "adagrad"):
            how = dataclasses.replace(how, rate=how.rate * unit)
        drawn = self.name == "ancestral" or (self.name == "ddim" and self.eta == 1)
        see = {
            "state": lambda x_s, s, state: None,
            "estimate": lambda x_s, s, state: state.x_0_hat + (x_s - state.x_t),
            "network": lambda x_s, s, state: denoise(x_s, s, state.x_0_hat),
        }[how.sees]
        return guided(step, process, energy, how, drawn=drawn, free=valid & ~fixed, valid=valid, see=see)


def ancestral(process: Gaussian, denoise: Denoise) -> Step:
    """x_s ~ q(x_s | x_t, x̂_0): Ho et al. (2020), algorithm 2, at any stride."""

    def step(keys: Keys, state: State, tick: tuple[Array, Array]) -> State:
        t, s = tick
        x_0_hat = denoise(state.x_t, t, state.x_0_hat)
        x_s = process.posterior(x_0_hat, state.x_t, s, t).sample(keys)
        return State(x_s, x_0_hat, t)

    return step


def ddim(process: Gaussian, denoise: Denoise, eta: float) -> Step:
    """Song et al. (2021), eq. 12 and 16: `eta` = 0 is deterministic, `eta` = 1 is `ancestral` in law."""

    def step(keys: Keys, state: State, tick: tuple[Array, Array]) -> State:
        t, s = tick
        x_0_hat = denoise(state.x_t, t, state.x_0_hat)
        std = eta * process.posterior(x_0_hat, state.x_t, s, t).std
        # (1 − ᾱ_s) − std², as a product: the difference of the two would lose its digits near t = 1.
        beta = -jnp.expm1(process.log_alpha_bar(t) - process.log_alpha_bar(s))
        kept = 1 - eta**2 * beta / process.noise(t, state.x_t) ** 2
        direction = process.noise(s, state.x_t) * jnp.sqrt(jnp.maximum(kept, 0.0))
        noise_hat = noise_from_x_0(process, x_0_hat, state.x_t, t)
        mean = process.signal(s, state.x_t) * x_0_hat + direction * noise_hat
        return State(Normal(mean=mean, std=std).sample(keys), x_0_hat, t)

    return step


def dpm_solver(process: Gaussian, denoise: Denoise) -> Step:
    """DPM-Solver++(2M), the second-order multistep solver of the data-prediction ODE (Lu et al. 2022, algorithm 2).

    The first step has no earlier estimate and the last, to s = 0, has an infinite step in log-SNR: both are
    first order, which at s = 0 is x̂_0 itself.
    """

    def step(keys: Keys, state: State, tick: tuple[Array, Array]) -> State:
        t, s = tick
        x_0_hat = denoise(state.x_t, t, state.x_0_hat)
        now = process.half_log_snr(t)
        ahead, behind = process.half_log_snr(s) - now, now - process.half_log_snr(state.t_hat)
        second_order = (state.t_hat > t) & (s > 0)
        slope = jnp.where(second_order, ahead / jnp.where(second_order, 2 * behind, 1.0), 0.0)
        estimate = x_0_hat + jnp.where(second_order, slope, 0.0) * (x_0_hat - state.x_0_hat)
        shrink = process.noise(s, state.x_t) / process.noise(t, state.x_t)
        x_s = shrink * state.x_t - process.signal(s, state.x_t) * jnp.expm1(-ahead) * estimate
        return State(x_s, x_0_hat, t)

    return step
