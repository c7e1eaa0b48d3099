"""Autoencoders: a network that reads a text into the law of a latent, and one that writes a text from a latent."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.nets.batch_sharding import by_rows, look_up
from jtextdiff.nets.chunking import by_pieces
from jtextdiff.nets.layers import MASKED, Kept, dense, table
from jtextdiff.nets.transformer import Transformer, Trunk

STIFF = 8.0
"""log σ² stays within ± this: an encoder that runs away would make a latent of no use, and its KL infinite."""

SURE = -2.0
"""log σ² of a fresh encoder: it starts near an autoencoder without noise."""


class TextEncoder(nnx.Module):
    """A bidirectional trunk, pooled by learned queries, each a weighted mean over the text's positions alone."""

    def __init__(
        self, trunk: Transformer, *, num_inputs: int, num_beside: int, queries: int, latent_dim: int, rngs: nnx.Rngs
    ):
        self.embed = table(num_inputs, trunk.width, init=trunk.init, rngs=rngs)
        self.beside = dense(num_beside, trunk.width, init=trunk.init, rngs=rngs) if num_beside else None
        self.trunk = Trunk(trunk, timed=False, rngs=rngs)
        self.look = dense(trunk.width, queries, init=trunk.init, rngs=rngs)
        self.answer = dense(queries * trunk.width, 2 * latent_dim, init=trunk.init, rngs=rngs)

    def __call__(
        self,
        tokens: Int[Array, "b l"],
        beside: Float[Array, "b s"] | None = None,
        *,
        valid: Bool[Array, "b l"],
        key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "b z"], Float[Array, "b z"]]:
        """The mean and log variance of q(z | text, what stands `beside` it)."""
        x = look_up(self.embed.embedding[...], tokens)
        if self.beside is not None and beside is not None:
            x = x + by_rows(self.beside(beside))[:, None]
        hidden = self.trunk(x, valid=valid, key=key)
        seen = jax.nn.softmax(self.look(hidden) + jnp.where(valid, 0.0, MASKED)[..., None], axis=1)
        pooled = jnp.einsum("blq,blw->bqw", seen, hidden).reshape(len(tokens), -1)
        mean, log_var = jnp.split(by_rows(self.answer(by_rows(pooled))), 2, axis=-1)
        return mean, STIFF * jnp.tanh((log_var + SURE) / STIFF)


class LatentDecoder(nnx.Module):
    """A causal trunk that sees the latent twice: in every word's vector, and as `slots` positions before the text,
    which each layer keeps as its memory of it (Li et al. 2020, §3, where the memory skips the layers below)."""

    def __init__(self, trunk: Transformer, *, num_inputs: int, vocab_size: int, num_latent: int, slots: int, rngs: Any):
        self.slots = slots
        self.embed = table(num_inputs, trunk.width, init=trunk.init, rngs=rngs)
        self.add = dense(num_latent, trunk.width, init=trunk.init, rngs=rngs)
        self.remember = dense(num_latent, slots * trunk.width, init=trunk.init, rngs=rngs)
        self.trunk = Trunk(trunk, timed=False, rngs=rngs)
        self.answer = dense(trunk.width, vocab_size, init=trunk.init, rngs=rngs)
        self.bag = dense(num_latent, vocab_size, init=trunk.init, rngs=rngs)

    def per_word(
        self,
        values: Callable[..., Any],
        others: tuple[Array, ...],
        before: Int[Array, "b l"],
        z: Float[Array, "b z"],
        *,
        key: Key[Array, ""] | None = None,
    ) -> Any:
        """values(logits, *others), a tree of [b, l], of each word from those `before` it and z; see `by_pieces`."""
        x = look_up(self.embed.embedding[...], before) + by_rows(self.add(z))[:, None]
        hidden = self.trunk(jnp.concatenate([self._memory(z), x], axis=1), key=key)[:, self.slots :]
        of_piece = lambda x, *others: values(by_rows(self.answer(x)), *others)
        return by_pieces(of_piece, self.answer.out_features, hidden, *others)

    def words(self, z: Float[Array, "b z"]) -> Float[Array, "b v"]:
        """Logits of the text's words in no order."""
        return by_rows(self.bag(z))

    def empty(self, z: Float[Array, "b z"], length: int) -> list[Kept]:
        """What `step` keeps before the first of `length` tokens: the memory of z, read."""
        kept = self.trunk.empty(len(z), self.slots + length)
        for slot, x in enumerate(jnp.moveaxis(self._memory(z), 1, 0)):
            _, kept = self.trunk.step(x[:, None], jnp.asarray(slot), kept)
        return kept

    def step(
        self, tokens: Int[Array, "b"], z: Float[Array, "b z"], position: Array, kept: list[Kept]
    ) -> tuple[Float[Array, "b v"], list[Kept]]:
        """The logits at one position, from the token before it, z, and what is kept."""
        x = self.embed(tokens) + by_rows(self.add(z))
        x, kept = self.trunk.step(x[:, None], self.slots + position, kept)
        return self.answer(x)[:, 0], kept

    def _memory(self, z: Float[Array, "b z"]) -> Float[Array, "b m w"]:
        return by_rows(self.remember(z)).reshape(len(z), self.slots, -1)
