"""A network that predicts a velocity in latent space."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jtextdiff.nets.layers import dense, sinusoid

TIME_FEATURES = 32


class LatentFieldNet(nnx.Module):
    """A residual network of the latent, the time from 0 to 1 and the one-hot target; fresh, it is 0.

    Its products are float32 on any device: an ODE solver with error control integrates it.
    """

    def __init__(self, *, dim: int, num_targets: int, width: int, rngs: nnx.Rngs):
        zeros = nnx.initializers.zeros_init()
        self.lift = dense(dim + TIME_FEATURES + num_targets, width, precision="highest", rngs=rngs)
        self.up = nnx.List([dense(width, width, precision="highest", rngs=rngs) for _ in range(2)])
        self.down = nnx.List([dense(width, width, precision="highest", rngs=rngs) for _ in range(2)])
        self.answer = nnx.Linear(width, dim, kernel_init=zeros, precision="highest", rngs=rngs)

    def __call__(
        self, z: Float[Array, "b z"], s: Float[Array, "b"], target: Float[Array, "b c"]
    ) -> Float[Array, "b z"]:
        x = self.lift(jnp.concatenate([z, sinusoid(1000 * s, TIME_FEATURES), target], axis=-1))
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(jax.nn.silu(up(jax.nn.silu(x))))
        return self.answer(jax.nn.silu(x))
