"""Gaussian diffusion of vectors: prior, marginal and posterior.

All three hold for any pair of times s < t (Ho et al. 2020, eq. 4–7, at any stride; Kingma et al. 2021, appendix A).
Respacing, other time grids and DDIM therefore need nothing more.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jtextdiff.diffusion.distributions import Normal
from jtextdiff.diffusion.pytree import pytree, static
from jtextdiff.diffusion.schedules import Schedule, Time, expand_like

Vectors = Float[Array, "b l d"]


@pytree
class Gaussian:
    """The forward process x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε."""

    log_alpha_bar: Schedule = static()

    def alpha_bar(self, t: Time) -> Array:
        """Returns ᾱ_t, the share of the variance that is signal."""
        return jnp.exp(self.log_alpha_bar(t))

    def signal(self, t: Time, like: Array) -> Array:
        """Returns √ᾱ_t, shaped to broadcast against `like`."""
        return expand_like(jnp.exp(0.5 * self.log_alpha_bar(t)), like)

    def noise(self, t: Time, like: Array) -> Array:
        """Returns √(1 − ᾱ_t), shaped to broadcast against `like`."""
        return expand_like(jnp.sqrt(-jnp.expm1(self.log_alpha_bar(t))), like)

    def half_log_snr(self, t: Time) -> Array:
        """Returns λ_t = ½ log(ᾱ_t / (1 − ᾱ_t)); +∞ at t = 0."""
        log_alpha_bar = self.log_alpha_bar(t)
        return 0.5 * (log_alpha_bar - jnp.log(-jnp.expm1(log_alpha_bar)))

    def snr(self, t: Time) -> Array:
        """Returns the signal-to-noise ratio ᾱ_t / (1 − ᾱ_t); +∞ at t = 0."""
        return jnp.exp(2 * self.half_log_snr(t))

    def linear_estimate(self, x_t: Array, t: Time, spread: float) -> Array:
        """Returns the best linear estimate of x_0 from x_t, in units of `spread`, the standard deviation of x_0.

        √ᾱ σ / (ᾱ σ² + 1 − ᾱ) · x_t with σ = `spread` (Wiener filter; Karras et al. 2022, appendix B.6).
        """
        signal, noise = spread * self.signal(t, x_t), self.noise(t, x_t)
        return x_t * signal / (signal**2 + noise**2)

    def prior(self, shape: tuple[int, ...]) -> Normal:
        """Returns p(x_1) = N(0, I)."""
        return Normal(mean=jnp.zeros(shape), std=jnp.ones(()))

    def marginal(self, x_0: Array, t: Time) -> Normal:
        """Returns q(x_t | x_0) = N(√ᾱ_t x_0, (1 − ᾱ_t) I); at t = 0 the point x_0."""
        return Normal(mean=self.signal(t, x_0) * x_0, std=self.noise(t, x_0))

    def posterior(self, x_0: Array, x_t: Array, s: Time, t: Time) -> Normal:
        """Returns q(x_s | x_t, x_0) for s < t, the target of one reverse step; at s = 0 the point x_0.

        mean = √ᾱ_s β/(1−ᾱ_t) x_0 + √(ᾱ_t/ᾱ_s) (1−ᾱ_s)/(1−ᾱ_t) x_t, var = β (1−ᾱ_s)/(1−ᾱ_t), β = 1 − ᾱ_t/ᾱ_s.
        """
        log_s, log_t = expand_like(self.log_alpha_bar(s), x_t), expand_like(self.log_alpha_bar(t), x_t)
        beta = -jnp.expm1(log_t - log_s)
        noise_s, noise_t = -jnp.expm1(log_s), -jnp.expm1(log_t)
        from_x_0 = jnp.exp(0.5 * log_s) * beta / noise_t
        from_x_t = jnp.exp(0.5 * (log_t - log_s)) * noise_s / noise_t
        return Normal(mean=from_x_0 * x_0 + from_x_t * x_t, std=jnp.sqrt(beta * noise_s / noise_t))
