"""Text encoder q(z | text) and text decoder p(text | z), for latents of one or several levels."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.nets.attention import MASKED, KVCache
from jtextdiff.nets.batch_sharding import look_up, shard_batch
from jtextdiff.nets.chunking import map_chunks
from jtextdiff.nets.layers import dense, embedding
from jtextdiff.nets.transformer import Transformer
from jtextdiff.nets.trunk import Trunk

MAX_LOG_VAR = 8.0
"""log σ² stays within ± this: a diverging encoder would make the latent useless, and its KL infinite."""

INITIAL_LOG_VAR = -2.0
"""log σ² of a fresh encoder, which is close to an autoencoder without noise."""


def spread_over_blocks(levels: int, num_blocks: int) -> list[int]:
    """Returns the block, counted from 0, of each level: evenly spaced, the last level at the last block."""
    return [-(-(level + 1) * num_blocks // levels) - 1 for level in range(levels)]


class TextEncoder(nnx.Module):
    """A bidirectional trunk with attention pooling: `pooling_heads` learned weighted means over the text's positions.

    With `num_conditions` it also reads a vector of that size for each text. Each of the `levels` of the latent has
    means and an output layer of its own. They pool the last states of the trunk or, with `spread`, those after evenly
    spaced blocks. With `chained`, the outputs of a level also read a summary of the levels below it.
    """

    def __init__(
        self,
        trunk: Transformer,
        *,
        num_inputs: int,
        num_conditions: int,
        pooling_heads: int,
        latent_dim: int,
        levels: int = 1,
        spread: bool = False,
        chained: bool = False,
        rngs: nnx.Rngs,
    ):
        width, dim = trunk.width, latent_dim // levels
        sizes = [pooling_heads * width + (dim if chained and level else 0) for level in range(levels)]
        self.blocks = tuple(spread_over_blocks(levels, trunk.num_layers)[:-1]) if spread else ()
        self.embed = embedding(num_inputs, width, init=trunk.init, rngs=rngs)
        self.beside = dense(num_conditions, width, init=trunk.init, rngs=rngs) if num_conditions else None
        self.trunk = Trunk(trunk, timed=False, rngs=rngs)
        self.look = dense(width, pooling_heads, init=trunk.init, rngs=rngs)  # of the last level
        self.answer = dense(sizes[-1], 2 * dim, init=trunk.init, rngs=rngs)
        self.lower_look = nnx.List([dense(width, pooling_heads, init=trunk.init, rngs=rngs) for _ in sizes[:-1]])
        self.lower_answer = nnx.List([dense(size, 2 * dim, init=trunk.init, rngs=rngs) for size in sizes[:-1]])
        self.lower_norm = nnx.List([nnx.LayerNorm(width, epsilon=1e-6, rngs=rngs) for _ in self.blocks])

    def pooled(
        self,
        tokens: Int[Array, "b l"],
        condition: Float[Array, "b s"] | None = None,
        *,
        valid: Bool[Array, "b l"],
        key: Key[Array, ""] | None = None,
    ) -> list[Float[Array, "b q"]]:
        """Returns the pooled states of every level."""
        x = look_up(self.embed.embedding[...], tokens)
        if self.beside is not None and condition is not None:
            x = x + shard_batch(self.beside(condition))[:, None]
        last, states = self.trunk.states(x, valid=valid, key=key, blocks=self.blocks)
        lower = [norm(state) for norm, state in zip(self.lower_norm, states, strict=True)]
        lower = lower if self.blocks else [last] * len(self.lower_look)
        looks = [*self.lower_look, self.look]
        return [self._pool(look, hidden, valid) for look, hidden in zip(looks, [*lower, last], strict=True)]

    def posterior(
        self, level: int, pooled: Float[Array, "b q"], summary: Float[Array, "b p"] | None = None
    ) -> tuple[Float[Array, "b p"], Float[Array, "b p"]]:
        """Returns the mean and the log-variance of one level, 0 the first, given a `summary` of those below it."""
        read = pooled if summary is None or level == 0 else jnp.concatenate([pooled, summary], axis=-1)
        answer = [*self.lower_answer, self.answer][level]
        mean, log_var = jnp.split(shard_batch(answer(shard_batch(read))), 2, axis=-1)
        return mean, MAX_LOG_VAR * jnp.tanh((log_var + INITIAL_LOG_VAR) / MAX_LOG_VAR)

    def _pool(self, look: Any, hidden: Float[Array, "b l w"], valid: Bool[Array, "b l"]) -> Float[Array, "b q"]:
        weights = jax.nn.softmax(look(hidden) + jnp.where(valid, 0.0, MASKED)[..., None], axis=1)
        return jnp.einsum("blq,blw->bqw", weights, hidden).reshape(len(hidden), -1)


class LatentDecoder(nnx.Module):
    """A causal trunk that reads the latent twice: added to every token's embedding, and as positions before the text.

    These `memory_slots` positions are each layer's memory of the latent (Li et al. 2020, §3, where the memory skips the
    layers below). The latent may hold several levels and a condition. With `trunk.context_dim`, each block also reads
    one level and the condition, as the context of `ValueFusion`: the lower blocks the lower levels. Without
    `latent_input`, that is all that the trunk reads of the latent.
    """

    def __init__(
        self,
        trunk: Transformer,
        *,
        num_inputs: int,
        vocab_size: int,
        latent_dim: int,
        levels: int = 1,
        num_conditions: int = 0,
        memory_slots: int,
        latent_input: bool = True,
        rngs: nnx.Rngs,
    ):
        num_latent = latent_dim + num_conditions
        self.memory_slots = memory_slots if latent_input else 0
        self.latent_dim, self.levels = latent_dim, levels
        self.embed = embedding(num_inputs, trunk.width, init=trunk.init, rngs=rngs)
        self.add = dense(num_latent, trunk.width, init=trunk.init, rngs=rngs) if latent_input else None
        slots = memory_slots * trunk.width
        self.remember = dense(num_latent, slots, init=trunk.init, rngs=rngs) if latent_input else None
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

        x = look_up(self.embed.embedding[...], previous)
        x = x if self.add is None else x + shard_batch(self.add(z))[:, None]
        x = jnp.concatenate([*self._memory(z), x], axis=1)
        hidden = self.trunk(x, key=key, contexts=self._contexts(z))[:, self.memory_slots :]
        return map_chunks(of_chunk, self.answer.out_features, hidden, *arrays)

    def bag_logits(self, z: Float[Array, "b z"]) -> Float[Array, "b v"]:
        """Returns the logits of the text's tokens as a bag of words."""
        return shard_batch(self.bag(z))

    def word_vectors(self) -> Float[Array, "v w"]:
        """Returns a vector of length 1 for each token, in the direction of similar ones.

        It joins the token's input embedding, which decides what follows it, and its output weights, which decide where
        it follows; of each the mean over tokens is subtracted.
        """
        num = self.answer.out_features
        parts = [self.embed.embedding[...][:num], self.answer.kernel[...].T]
        centred = [part.astype(jnp.float32) - jnp.mean(part.astype(jnp.float32), axis=0) for part in parts]
        scaled = [part / jnp.maximum(jnp.linalg.norm(part, axis=-1, keepdims=True), 1e-6) for part in centred]
        return jnp.concatenate(scaled, axis=-1) * 0.5**0.5

    def init_cache(self, z: Float[Array, "b z"], length: int) -> list[KVCache]:
        """Returns the cache of `step` before the first of `length` tokens; it contains the memory of z."""
        cache = self.trunk.init_cache(len(z), self.memory_slots + length)
        slots = [x for memory in self._memory(z) for x in jnp.moveaxis(memory, 1, 0)]
        for slot, x in enumerate(slots):
            _, cache = self.trunk.step(x[:, None], jnp.asarray(slot), cache, self._contexts(z))
        return cache

    def step(
        self, tokens: Int[Array, "b"], z: Float[Array, "b z"], position: Array, cache: list[KVCache]
    ) -> tuple[Float[Array, "b v"], list[KVCache]]:
        """Returns the logits at one position, from the token before it, z and the cache."""
        x = self.embed(tokens) if self.add is None else self.embed(tokens) + shard_batch(self.add(z))
        x, cache = self.trunk.step(x[:, None], self.memory_slots + position, cache, self._contexts(z))
        return self.answer(x)[:, 0], cache

    def _memory(self, z: Float[Array, "b z"]) -> list[Float[Array, "b m w"]]:
        """Returns the positions before the text, if there are any."""
        if self.remember is None:
            return []
        return [shard_batch(self.remember(z)).reshape(len(z), self.memory_slots, -1)]

    def _contexts(self, z: Float[Array, "b z"]) -> Float[Array, "n b c"] | None:
        """Returns what each block reads: its level and the condition."""
        num_blocks, dim = self.trunk.shape.num_layers, self.latent_dim // self.levels
        if not self.trunk.shape.context_dim:
            return None
        levels = [block * self.levels // num_blocks for block in range(num_blocks)]
        condition = z[:, self.latent_dim :]
        return jnp.stack(
            [jnp.concatenate([z[:, level * dim : (level + 1) * dim], condition], axis=-1) for level in levels]
        )
