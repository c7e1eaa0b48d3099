"""Classifiers of noisy texts."""

import functools

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from jtextdiff.nets.layers import dense, table
from jtextdiff.nets.transformer import Transformer, Trunk


class SequenceClassifier(nnx.Module):
    """A trunk that reads noisy vectors, the time and the length of a text, and answers with logits for the whole."""

    def __init__(self, trunk: Transformer, *, num_inputs: int, num_lengths: int, num_answers: int, rngs: nnx.Rngs):
        linear = functools.partial(dense, init=trunk.init, rngs=rngs)
        self.read = linear(num_inputs, trunk.width)
        self.length = table(num_lengths, trunk.width, init=trunk.init, rngs=rngs)
        self.trunk = Trunk(trunk, timed=True, rngs=rngs)
        self.answer = linear(trunk.width, num_answers)

    def __call__(
        self,
        x_t: Float[Array, "b l d"],
        t: Float[Array, "b 1"],
        *,
        valid: Bool[Array, "b l"],
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "b c"]:
        """Read off the mean of the hidden states of the text; t in [0, 1000]."""
        x = self.read(x_t) + self.length(jnp.sum(valid, axis=-1))[:, None]
        hidden = self.trunk(x, t, valid=valid, key=key)
        return self.answer(jnp.sum(jnp.where(valid[..., None], hidden, 0.0), axis=1) / jnp.sum(valid, axis=1)[:, None])
