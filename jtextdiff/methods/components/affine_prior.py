"""Affine Gaussian prior of latents, and the whitened coordinates in which it is N(0, I)."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jtextdiff.diffusion.distributions import Normal
from jtextdiff.nets.functional import Params

FITS = ("likelihood", "adversarial")
"""How the prior is fitted to latents: by its likelihood, or against a critic."""

GENERATOR_WEIGHT = 1 / 8
"""Weight of the adversarial prior's loss relative to its critic's: the authors' code updates it one step in eight."""


def initial_prior(dim: int, fit: str = "likelihood") -> Params:
    """Returns parameters of N(0, I); for an adversarial fit of N(0, I/3), with a critic that is 0 everywhere.

    N(0, I/3) is the mean of the random matrices from which the authors' code starts.
    """
    prior = {"scale": jnp.zeros((dim, dim)), "shift": jnp.zeros(dim)}
    if fit == "likelihood":
        return prior
    critic = {"weights": jnp.zeros(dim), "bias": jnp.zeros(())}
    return {**prior, "scale": 0.5 * math.log(3) * jnp.eye(dim), "critic": critic}


def prior_fit_loss(prior: Params, z: Float[Array, "b z"], key: Key[Array, ""]) -> Float[Array, "b"]:
    """Returns zero, with the gradient that fits the prior (and its critic, if any) to latents z of texts.

    It is the gradient of −log p(z), nats. With a critic it is that of the GAN of LatentOps (Liu et al. 2022, §3.4): an
    affine generator and a linear critic, both trained by the binary cross-entropy of the critic. No gradient reaches z.
    """
    z = jax.lax.stop_gradient(z)
    loss = _adversarial_loss(prior, z, key) if "critic" in prior else prior_nll(prior, z)
    return loss - jax.lax.stop_gradient(loss)


def _adversarial_loss(prior: Params, z: Float[Array, "b z"], key: Key[Array, ""]) -> Float[Array, "b"]:
    generated = unwhitened(prior, jax.random.normal(key, z.shape))

    def logit(critic: Params, z: Float[Array, "b z"]) -> Float[Array, "b"]:
        return jnp.matmul(z, critic["weights"], precision="highest") + critic["bias"]

    real, fake = logit(prior["critic"], z), logit(prior["critic"], jax.lax.stop_gradient(generated))
    generator_logit = logit(jax.lax.stop_gradient(prior["critic"]), generated)
    critic_loss = jax.nn.softplus(-real) + jax.nn.softplus(fake)
    return critic_loss + GENERATOR_WEIGHT * jax.nn.softplus(-generator_logit)


def whitened(prior: Params, z: Float[Array, "b z"]) -> Float[Array, "b z"]:
    """Returns ε = A z − c, with A lower triangular: ε ~ N(0, I) if z has the prior."""
    return jnp.matmul(z, _matrix(prior).T, precision="highest") - prior["shift"][None]


def unwhitened(prior: Params, epsilon: Float[Array, "b z"]) -> Float[Array, "b z"]:
    """Returns z = A⁻¹ (ε + c), the inverse of `whitened`."""
    return jax.scipy.linalg.solve_triangular(_matrix(prior), (epsilon + prior["shift"][None]).T, lower=True).T


def prior_nll(prior: Params, z: Float[Array, "b z"]) -> Float[Array, "b"]:
    """Returns −log p(z), nats."""
    squares = whitened(prior, z) ** 2 + math.log(2 * math.pi)
    return 0.5 * jnp.sum(squares, axis=-1) - jnp.sum(jnp.diag(prior["scale"]))


def standard_normal(like: Float[Array, "b z"]) -> Normal:
    """Returns N(0, I) of the shape of `like`."""
    return Normal(mean=jnp.zeros_like(like), std=jnp.ones(()))


def _matrix(prior: Params) -> Float[Array, "z z"]:
    """Returns A: `scale` below the diagonal, its exponential on the diagonal."""
    return jnp.tril(prior["scale"], -1) + jnp.diag(jnp.exp(jnp.diag(prior["scale"])))
