"""Attention values that are multiplied by projections of a context: how a decoder's layer reads a latent (DELLA)."""

from flax import nnx
from jaxtyping import Array, Float

from jtextdiff.nets.batch_sharding import shard_batch
from jtextdiff.nets.layers import dense


class ValueFusion(nnx.Module):
    """Returns Σ_j (V_j x) ∘ (G_j c): a product of rank `rank` of the input x and a context c, one c per text.

    Hu et al. (2022), eq. 9, which multiplies two sums and so has rank one; here the products are summed. V_1 is the
    attention's own value projection and G_1 starts near one, the other G_j at zero: fresh values are close to those
    without a context.
    """

    def __init__(self, width: int, *, context_dim: int, rank: int, init: str, bfloat16: bool, rngs: nnx.Rngs):
        near_one = {
            "kernel_init": nnx.initializers.variance_scaling(0.1, "fan_in", "truncated_normal"),
            "bias_init": nnx.initializers.ones_init(),
        }
        self.gain = nnx.Linear(context_dim, width, **near_one, rngs=rngs)
        zeros = {"use_bias": False, "kernel_init": nnx.initializers.zeros_init()}
        self.more_gains = nnx.List([nnx.Linear(context_dim, width, **zeros, rngs=rngs) for _ in range(rank - 1)])
        self.more_values = nnx.List(
            [dense(width, width, init=init, bfloat16=bfloat16, rngs=rngs) for _ in range(rank - 1)]
        )

    def __call__(
        self, x: Float[Array, "b l w"], value: Float[Array, "b l w"], context: Float[Array, "b c"]
    ) -> Float[Array, "b l w"]:
        """`value` is V_1 x. The products are float32, the sum is of the type of `value`."""
        fused = value * shard_batch(self.gain(context))[:, None]
        for project, gain in zip(self.more_values, self.more_gains, strict=True):
            fused = fused + project(x) * shard_batch(gain(context))[:, None]
        return fused.astype(value.dtype)
