"""The prior of chained latents, level by level (DELLA)."""

import functools

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jtextdiff.nets.batch_sharding import shard_batch

LOG_STD_RANGE = 2.0
"""log σ of p(z_l | z_<l) stays within ± this."""


class LatentChain(nnx.Module):
    """p(z_l | z_<l) = N(μ_l, σ_l²) of `levels` latents of `dim` numbers each (Hu et al. 2022, eqs. 7 and 8).

    z_<l is summarised by h_l = tanh(H_l h_{l−1} + I_l z_{l−1}), h_1 = 0, and μ_l and σ_l are linear in it, without
    biases, so that z_1 ~ N(0, I). Fresh μ_l are 0 and σ_l are 1 for every level.
    """

    def __init__(self, levels: int, dim: int, *, rngs: nnx.Rngs):
        zeros = nnx.initializers.zeros_init()
        square = functools.partial(nnx.Linear, dim, dim, use_bias=False, rngs=rngs)
        self.from_latent = nnx.List([square() for _ in range(levels - 1)])
        self.from_summary = nnx.List([square() for _ in range(levels - 2)])  # that of no level is 0
        self.moments = nnx.List(
            [nnx.Linear(dim, 2 * dim, use_bias=False, kernel_init=zeros, rngs=rngs) for _ in range(levels - 1)]
        )

    def place(self, level: int, summary: Float[Array, "b p"], noise: Float[Array, "b p"]) -> Float[Array, "b p"]:
        """Returns z_l = μ_l + σ_l · noise; level 0 is the first."""
        if level == 0:
            return noise
        mean, log_std = jnp.split(shard_batch(self.moments[level - 1](summary)), 2, axis=-1)
        return mean + jnp.exp(LOG_STD_RANGE * jnp.tanh(log_std / LOG_STD_RANGE)) * noise

    def extend(self, level: int, summary: Float[Array, "b p"], z: Float[Array, "b p"]) -> Float[Array, "b p"]:
        """Returns the summary of the levels up to `level`, from that of the levels before it and its z."""
        if level == len(self.moments):
            return summary
        before = shard_batch(self.from_summary[level - 1](summary)) if level else summary
        return jnp.tanh(before + shard_batch(self.from_latent[level](z)))

    def __call__(self, noise: Float[Array, "b levels p"]) -> Float[Array, "b levels p"]:
        """Returns the latents of all levels from their noise: if that is N(0, I), they have the prior."""
        summary, latents = jnp.zeros_like(noise[:, 0]), []
        for level in range(noise.shape[1]):
            latents.append(self.place(level, summary, noise[:, level]))
            summary = self.extend(level, summary, latents[-1])
        return jnp.stack(latents, axis=1)
