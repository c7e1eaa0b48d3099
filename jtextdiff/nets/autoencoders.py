"""A text encoder q(z | text), and a decoder of a text from a latent."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.nets.batch_sharding import look_up, shard_batch
from jtextdiff.nets.chunking import map_chunks
from jtextdiff.nets.layers import MASKED, KVCache, dense, embedding
from jtextdiff.nets.transformer import Transformer, Trunk

MAX_LOG_VAR = 8.0
"""log σ² stays within ± this: a diverging encoder would make the latent useless, and its KL infinite."""

INITIAL_LOG_VAR = -2.0
"""log σ² of a fresh encoder, which is close to an autoencoder without noise."""


class TextEncoder(nnx.Module):
    """A bidirectional trunk with attention pooling: `pooling_heads` learned weighted means over the text's positions.

    With `num_conditions` it also reads a vector of that size for each text.
    """

    def __init__(
        self,
        trunk: Transformer,
        *,
        num_inputs: int,
        num_conditions: int,
        pooling_heads: int,
        latent_dim: int,
        rngs: nnx.Rngs,
    ):
        self.embed = embedding(num_inputs, trunk.width, init=trunk.init, rngs=rngs)
        self.beside = dense(num_conditions, trunk.width, init=trunk.init, rngs=rngs) if num_conditions else None
        self.trunk = Trunk(trunk, timed=False, rngs=rngs)
        self.look = dense(trunk.width, pooling_heads, init=trunk.init, rngs=rngs)
        self.answer = dense(pooling_heads * trunk.width, 2 * latent_dim, init=trunk.init, rngs=rngs)

    def __call__(
        self,
        tokens: Int[Array, "b l"],
        condition: Float[Array, "b s"] | None = None,
        *,
        valid: Bool[Array, "b l"],
        key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "b z"], Float[Array, "b z"]]:
        """Returns the mean and the log-variance of q(z | text, condition)."""
        x = look_up(self.embed.embedding[...], tokens)
        if self.beside is not None and condition is not None:
            x = x + shard_batch(self.beside(condition))[:, None]
        hidden = self.trunk(x, valid=valid, key=key)
        weights = jax.nn.softmax(self.look(hidden) + jnp.where(valid, 0.0, MASKED)[..., None], axis=1)
        pooled = jnp.einsum("blq,blw->bqw", weights, hidden).reshape(len(tokens), -1)
        mean, log_var = jnp.split(shard_batch(self.answer(shard_batch(pooled))), 2, axis=-1)
        return mean, MAX_LOG_VAR * jnp.tanh((log_var + INITIAL_LOG_VAR) / MAX_LOG_VAR)


class LatentDecoder(nnx.Module):
    """A causal trunk that reads the latent twice: added to every token's embedding, and as positions before the text.

    These `memory_slots` positions are each layer's memory of the latent (Li et al. 2020, §3, where the memory skips the
    layers below).
    """

    def __init__(
        self,
        trunk: Transformer,
        *,
        num_inputs: int,
        vocab_size: int,
        num_latent: int,
        memory_slots: int,
        rngs: nnx.Rngs,
    ):
        self.memory_slots = memory_slots
        self.embed = embedding(num_inputs, trunk.width, init=trunk.init, rngs=rngs)
        self.add = dense(num_latent, trunk.width, init=trunk.init, rngs=rngs)
        self.remember = dense(num_latent, memory_slots * trunk.width, init=trunk.init, rngs=rngs)
        self.trunk = Trunk(trunk, timed=False, rngs=rngs)
        self.answer = dense(trunk.width, vocab_size, init=trunk.init, rngs=rngs)
        self.bag = dense(num_latent, vocab_size, init=trunk.init, rngs=rngs)

    def per_token(
        self,
        function: Callable[..., Any],
        arrays: tuple[Array, ...],
        previous: Int[Array, "b l"],
        z: Float[Array, "b z"],
        *,
        key: Key[Array, ""] | None = None,
    ) -> Any:
        """Returns function(logits, *arrays), a tree of [b, l], without storing the logits of all positions at once.

        The logits of each position condition on z and the `previous` token and those before it; see `map_chunks`.
        """

        def of_chunk(hidden: Array, *arrays: Array) -> Any:
            return function(shard_batch(self.answer(hidden)), *arrays)

        x = look_up(self.embed.embedding[...], previous) + shard_batch(self.add(z))[:, None]
        hidden = self.trunk(jnp.concatenate([self._memory(z), x], axis=1), key=key)[:, self.memory_slots :]
        return map_chunks(of_chunk, self.answer.out_features, hidden, *arrays)

    def bag_logits(self, z: Float[Array, "b z"]) -> Float[Array, "b v"]:
        """Returns the logits of the text's tokens as a bag of words."""
        return shard_batch(self.bag(z))

    def init_cache(self, z: Float[Array, "b z"], length: int) -> list[KVCache]:
        """Returns the cache of `step` before the first of `length` tokens; it contains the memory of z."""
        cache = self.trunk.init_cache(len(z), self.memory_slots + length)
        for slot, x in enumerate(jnp.moveaxis(self._memory(z), 1, 0)):
            _, cache = self.trunk.step(x[:, None], jnp.asarray(slot), cache)
        return cache

    def step(
        self, tokens: Int[Array, "b"], z: Float[Array, "b z"], position: Array, cache: list[KVCache]
    ) -> tuple[Float[Array, "b v"], list[KVCache]]:
        """Returns the logits at one position, from the token before it, z and the cache."""
        x = self.embed(tokens) + shard_batch(self.add(z))
        x, cache = self.trunk.step(x[:, None], self.memory_slots + position, cache)
        return self.answer(x)[:, 0], cache

    def _memory(self, z: Float[Array, "b z"]) -> Float[Array, "b m w"]:
        return shard_batch(self.remember(z)).reshape(len(z), self.memory_slots, -1)
