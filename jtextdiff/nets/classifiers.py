"""Classifiers: networks that read a noisy text and answer for all of it, for each word, or for each stretch."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from jtextdiff.nets.layers import dense, table
from jtextdiff.nets.transformer import Transformer, Trunk


class SequenceClassifier(nnx.Module):
    """A trunk that reads noisy vectors, the time and the length of a text, and a head for the `kind` of answer."""

    def __init__(
        self, trunk: Transformer, *, kind: str, num_inputs: int, num_lengths: int, num_answers: int, rngs: nnx.Rngs
    ):
        linear = functools.partial(dense, init=trunk.init, rngs=rngs)
        self.kind = kind
        self.read = linear(num_inputs, trunk.width)
        self.length = table(num_lengths, trunk.width, init=trunk.init, rngs=rngs)
        self.trunk = Trunk(trunk, timed=True, rngs=rngs)
        if kind == "stretches":
            self.first, self.last = linear(trunk.width, trunk.width), linear(trunk.width, trunk.width)
        self.answer = linear(trunk.width, num_answers)

    def __call__(
        self,
        x_t: Float[Array, "b l d"],
        t: Float[Array, "b 1"],
        *,
        valid: Bool[Array, "b l"],
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "b *cells c"]:
        """Logits of the text [b, c], read off the mean of its hidden states; of each word, [b, l, c]; or of each
        stretch from word i to word j, [b, i, j, c]. t in [0, 1000]."""
        x = self.read(x_t) + self.length(jnp.sum(valid, axis=-1))[:, None]
        hidden = self.trunk(x, t, valid=valid, key=key)
        if self.kind == "text":
            hidden = jnp.sum(jnp.where(valid[..., None], hidden, 0.0), axis=1) / jnp.sum(valid, axis=1)[:, None]
        return self.answer(self.stretches(hidden) if self.kind == "stretches" else hidden)

    def stretches(self, hidden: Float[Array, "b l w"]) -> Float[Array, "b l l w"]:
        """Of each stretch: a dense layer of its ends' states side by side, at the cost of two layers of one each."""
        return jax.nn.tanh(self.first(hidden)[:, :, None] + self.last(hidden)[:, None])


class LatentHead(nnx.Module):
    """One hidden layer over a latent, or none."""

    def __init__(self, *, dim: int, width: int, num_answers: int, rngs: nnx.Rngs):
        self.lift = dense(dim, width, rngs=rngs) if width else None
        self.answer = dense(width or dim, num_answers, rngs=rngs)

    def __call__(self, z: Float[Array, "b z"]) -> Float[Array, "b c"]:
        return self.answer(z if self.lift is None else jax.nn.tanh(self.lift(z)))
