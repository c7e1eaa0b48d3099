"""Classifiers of noisy texts, their tokens or spans, and of latents."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from jtextdiff.nets.layers import dense, embedding
from jtextdiff.nets.transformer import Transformer
from jtextdiff.nets.trunk import Trunk


class SequenceClassifier(nnx.Module):
    """A trunk that reads noisy vectors, the time and the length of a text, with a head for the `kind` of label.

    `kind` is "text", "words" (one label per token) or "spans" (one label per span of tokens).
    """

    def __init__(
        self, trunk: Transformer, *, kind: str, num_inputs: int, num_lengths: int, num_outputs: int, rngs: nnx.Rngs
    ):
        linear = functools.partial(dense, init=trunk.init, rngs=rngs)
        self.kind = kind
        self.read = linear(num_inputs, trunk.width)
        self.length = embedding(num_lengths, trunk.width, init=trunk.init, rngs=rngs)
        self.trunk = Trunk(trunk, timed=True, rngs=rngs)
        if kind == "spans":
            self.first, self.last = linear(trunk.width, trunk.width), linear(trunk.width, trunk.width)
        self.answer = linear(trunk.width, num_outputs)

    def __call__(
        self,
        x_t: Float[Array, "b l d"],
        t: Float[Array, "b 1"],
        *,
        valid: Bool[Array, "b l"],
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "b *cells c"]:
        """Returns logits of the text, [b, c], from its mean hidden state; of each token, [b, l, c]; or of each span.

        Spans from token i to token j are [b, i, j, c]. t is in [0, 1000].
        """
        x = self.read(x_t) + self.length(jnp.sum(valid, axis=-1))[:, None]
        hidden = self.trunk(x, t, valid=valid, key=key)
        if self.kind == "text":
            hidden = jnp.sum(jnp.where(valid[..., None], hidden, 0.0), axis=1) / jnp.sum(valid, axis=1)[:, None]
        return self.answer(self.span_states(hidden) if self.kind == "spans" else hidden)

    def span_states(self, hidden: Float[Array, "b l w"]) -> Float[Array, "b l l w"]:
        """Returns, for each span, a dense layer of its two end states concatenated.

        Its cost is that of two layers of one state each.
        """
        return jax.nn.tanh(self.first(hidden)[:, :, None] + self.last(hidden)[:, None])


class LatentHead(nnx.Module):
    """A classifier of a latent with one hidden layer, or none if `width` is 0.

    Its products are float32 on any device: an ODE solver with error control integrates its gradient.
    """

    def __init__(self, *, dim: int, width: int, num_outputs: int, rngs: nnx.Rngs):
        self.lift = dense(dim, width, precision="highest", rngs=rngs) if width else None
        self.answer = dense(width or dim, num_outputs, precision="highest", rngs=rngs)

    def __call__(self, z: Float[Array, "b z"]) -> Float[Array, "b c"]:
        return self.answer(z if self.lift is None else jax.nn.tanh(self.lift(z)))
