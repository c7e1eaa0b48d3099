"""Classifiers of noisy texts: what is said of a whole text, of its words, or of its spans."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from jtextdiff.nets.layers import dense, table
from jtextdiff.nets.transformer import Transformer, Trunk


class SequenceClassifier(nnx.Module):
    """A trunk that reads noisy vectors and the time, and one door out.

    Doors: `whole` for the text, from the mean of its positions; `words` for each position; `spans` for each pair of
    positions, first and last: tanh(A h_i + B h_j) and a dense layer, which is the dense layer of both hidden vectors
    side by side without their being put there (Li et al. 2022, released parser). All answers are logits.
    """

    def __init__(
        self, trunk: Transformer, *, num_inputs: int, num_lengths: int, num_answers: int, spans: bool, rngs: nnx.Rngs
    ):
        linear = functools.partial(dense, init=trunk.init, rngs=rngs)
        self.read = linear(num_inputs, trunk.width)
        self.length = table(num_lengths, trunk.width, init=trunk.init, rngs=rngs)
        self.trunk = Trunk(trunk, timed=True, rngs=rngs)
        self.answer = linear(trunk.width, num_answers)
        self.first = linear(trunk.width, trunk.width) if spans else None
        self.last = linear(trunk.width, trunk.width) if spans else None

    def whole(
        self,
        x_t: Float[Array, "b l d"],
        t: Float[Array, "b 1"],
        *,
        valid: Bool[Array, "b l"],
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "b c"]:
        hidden = self._hidden(x_t, t, valid, key)
        mean = jnp.sum(jnp.where(valid[..., None], hidden, 0.0), axis=1) / jnp.sum(valid, axis=1)[:, None]
        return self.answer(mean)

    def words(
        self,
        x_t: Float[Array, "b l d"],
        t: Float[Array, "b 1"],
        *,
        valid: Bool[Array, "b l"],
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "b l c"]:
        return self.answer(self._hidden(x_t, t, valid, key))

    def spans(
        self,
        x_t: Float[Array, "b l d"],
        t: Float[Array, "b 1"],
        *,
        valid: Bool[Array, "b l"],
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "b l l c"]:
        """Logits of the span from position i to position j, at [i, j]; those with j < i mean nothing."""
        if self.first is None or self.last is None:
            raise ValueError("this classifier was not made for spans: set spans=True.")
        hidden = self._hidden(x_t, t, valid, key)
        return self.answer(jax.nn.tanh(self.first(hidden)[:, :, None] + self.last(hidden)[:, None]))

    def _hidden(self, x_t: Array, t: Array, valid: Array, key: Key[Array, ""] | None) -> Float[Array, "b l w"]:
        x = self.read(x_t) + self.length(jnp.sum(valid, axis=-1))[:, None]
        return self.trunk(x, t, valid=valid, key=key)
