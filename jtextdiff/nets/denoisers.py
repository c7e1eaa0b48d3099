"""Denoisers: a transformer trunk over noisy token embeddings, or over tokens."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.nets.attention import KVCache, Layout
from jtextdiff.nets.batch_sharding import look_up, shard_batch
from jtextdiff.nets.chunking import map_chunks
from jtextdiff.nets.layers import ACTIVATIONS, dense, embedding, norm_layer, uniform
from jtextdiff.nets.transformer import Transformer
from jtextdiff.nets.trunk import Trunk


def with_norm(embedding: Float[Array, "v d"], norm: float | None) -> Float[Array, "v d"]:
    """Returns the rows of an embedding matrix scaled to this norm; unchanged if it is None."""
    return embedding if norm is None else norm * embedding / jnp.linalg.norm(embedding, axis=-1, keepdims=True)


def exact(x: Array) -> Array:
    """Returns x in float32, or in float64 if it is."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class EmbeddingDenoiser(nnx.Module):
    """Token embeddings, and a trunk that reads noisy ones (Li et al. 2022, §4).

    `embedding_matrix()` returns the embeddings and `embed(tokens)` looks them up. `__call__` returns the prediction for
    a noisy x_t: a vector, or logits over tokens, by `output`. `rounding_logits(x_0)` is the tied head from vectors to
    tokens. One dense layer connects embeddings and trunk on either side; two with a tanh between if `projections` is
    "deep". Without `learned`, no gradient reaches the embeddings.
    """

    def __init__(
        self,
        trunk: Transformer,
        *,
        vocab_size: int,
        embed_dim: int,
        embed_norm: float | None,
        learned: bool,
        output: str,
        projections: str,
        self_conditioned: bool,
        num_lengths: int,
        rngs: nnx.Rngs,
    ):
        width = trunk.width
        self.embed_norm, self.learned, self.self_conditioned = embed_norm, learned, self_conditioned
        linear = functools.partial(dense, init=trunk.init, rngs=rngs)
        bias = jnp.zeros(vocab_size)
        if trunk.init == "torch":
            bias = uniform(embed_dim)(rngs.params(), (vocab_size,))
        self.embedding = nnx.Param(jax.random.normal(rngs.params(), (vocab_size, embed_dim)))
        self.rounding_bias = nnx.Param(bias)
        self.read = linear(embed_dim * (2 if self_conditioned else 1), width)
        self.lift = linear(width, width) if projections == "deep" else None
        self.trunk = Trunk(trunk, timed=True, rngs=rngs)
        self.lower = linear(width, width) if projections == "deep" else None
        self.answer = linear(width, vocab_size if output == "logits" else embed_dim)
        self.length = embedding(num_lengths, width, init=trunk.init, rngs=rngs) if num_lengths else None

    def embedding_matrix(self) -> Float[Array, "v d"]:
        """Returns the token embeddings, each of norm `embed_norm` if one is set."""
        matrix = self.embedding[...] if self.learned else jax.lax.stop_gradient(self.embedding[...])
        return with_norm(matrix, self.embed_norm)

    def embed(self, tokens: Int[Array, "b l"]) -> Float[Array, "b l d"]:
        return look_up(self.embedding_matrix(), tokens)

    def rounding_logits(self, x_0: Float[Array, "b l d"]) -> Float[Array, "b l v"]:
        """Returns log p(token | x_0) up to normalisation: the tied dot product and a bias."""
        return shard_batch(x_0 @ self.embedding_matrix().T + self.rounding_bias[...])

    def __call__(
        self,
        x_t: Float[Array, "b l d"],
        t: Float[Array, "b #l"],
        previous: Float[Array, "b l d"] | None = None,
        *,
        valid: Bool[Array, "b l"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "b l k"]:
        """Returns the prediction for x_t at time t in [0, 1000].

        With `num_lengths` it also conditions on the length of the text, the number of `valid` positions.
        """
        if self.self_conditioned:
            previous = jnp.zeros_like(x_t) if previous is None else previous
            x_t = jnp.concatenate([x_t, previous], axis=-1)
        x = self.read(x_t)
        if self.lift is not None:
            x = self.lift(jnp.tanh(x))
        if self.length is not None and valid is not None:
            x = x + look_up(self.length.embedding[...], jnp.sum(valid, axis=-1))[:, None, :]
        x = self.trunk(x, t, valid=valid, key=key)
        if self.lower is not None:
            x = jnp.tanh(self.lower(x))
        return shard_batch(self.answer(x))


@dataclass(frozen=True, kw_only=True)
class Head:
    """Settings of the layer from hidden states to logits."""

    tied: bool = False  # its weights are the embeddings
    bias: bool = True
    transform: bool = False  # a dense layer, the trunk's activation and a norm come before it (BERT)
    shifted: bool = False  # logits are read from the position before, as in AR models; those of the first from its own


PLAIN_HEAD = Head()


class TokenDenoiser(nnx.Module):
    """Tokens in, logits over tokens out.

    With `num_times` it conditions on the time, by one learned embedding for each of the times 0 … num_times − 1; a
    `timed` one by the trunk, on any number. With `num_lengths` it conditions on the length of the text. A self-
    conditioned one adds its own last hidden states of an earlier pass to the embeddings, through a norm whose scale is
    zero at first (Jo et al. 2025, arXiv:2510.19304).
    """

    def __init__(
        self,
        trunk: Transformer,
        *,
        num_inputs: int,
        vocab_size: int,
        num_times: int = 0,
        timed: bool = False,
        num_lengths: int = 0,
        self_conditioned: bool = False,
        head: Head = PLAIN_HEAD,
        rngs: nnx.Rngs,
    ):
        self.vocab_size, self.shifted = vocab_size, head.shifted
        rows = functools.partial(embedding, init=trunk.init, rngs=rngs)
        self.embed = rows(num_inputs, trunk.width)
        self.trunk = Trunk(trunk, timed=timed, rngs=rngs)
        answer = functools.partial(dense, trunk.width, vocab_size, init=trunk.init, bias=head.bias, rngs=rngs)
        self.answer = None if head.tied else answer()
        self.answer_bias = nnx.Param(jnp.zeros(vocab_size)) if head.tied and head.bias else None
        self.activation = ACTIVATIONS[trunk.activation]
        lower = functools.partial(dense, trunk.width, trunk.width, init=trunk.init, bias=trunk.mlp_bias, rngs=rngs)
        self.lower = lower() if head.transform else None
        self.lower_norm = norm_layer(trunk.width, **trunk.norms, rngs=rngs) if head.transform else None
        self.time = rows(num_times, trunk.width) if num_times else None
        self.length = rows(num_lengths, trunk.width) if num_lengths else None
        norm = functools.partial(nnx.LayerNorm, trunk.width, scale_init=nnx.initializers.zeros, rngs=rngs)
        self.previous = norm() if self_conditioned else None

    def __call__(
        self,
        tokens: Int[Array, "b l"],
        t: Int[Array, "b"] | Float[Array, "b"] | None = None,
        *,
        valid: Bool[Array, "b l"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "b l v"]:
        """Returns the logits at each position."""
        return self.logits(self.hidden(tokens, t, valid=valid, key=key))

    def logits(self, hidden: Float[Array, "b l w"]) -> Float[Array, "b l v"]:
        """Returns the logits of last hidden states."""
        return shard_batch(self._answer(hidden))

    def _answer(self, hidden: Float[Array, "b l w"]) -> Float[Array, "b l v"]:
        if self.lower is not None and self.lower_norm is not None:
            hidden = self.lower_norm(self.activation(self.lower(hidden)))
        if self.answer is not None:
            return self.answer(hidden)
        logits = hidden @ self.embed.embedding[: self.vocab_size].T  # MASK may be a row after the tokens
        return logits if self.answer_bias is None else logits + self.answer_bias[...]

    def per_token(
        self,
        function: Callable[..., Any],
        arrays: tuple[Array, ...],
        tokens: Int[Array, "b l"],
        t: Int[Array, "b"] | Float[Array, "b"] | None = None,
        *,
        previous: Float[Array, "b l w"] | None = None,
        valid: Bool[Array, "b l"] | None = None,
        layout: Layout | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Any:
        """Returns function(logits, *arrays), a tree of [b, l], without storing the logits of all positions at once.

        `arrays` are [b, l, …]; see `map_chunks`. With a `layout` of more vectors, they belong to the first l of them.
        """

        def of_chunk(hidden: Array, *arrays: Array) -> Any:
            return function(self.logits(hidden), *arrays)

        hidden = self.hidden(tokens, t, previous=previous, valid=valid, layout=layout, key=key)
        return map_chunks(of_chunk, self.vocab_size, hidden[:, : arrays[0].shape[1]], *arrays)

    def hidden(
        self,
        tokens: Int[Array, "b l"],
        t: Int[Array, "b"] | Float[Array, "b"] | None = None,
        *,
        previous: Float[Array, "b l w"] | None = None,
        valid: Bool[Array, "b l"] | None = None,
        layout: Layout | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "b l w"]:
        """Returns the last hidden states, from which the logits are computed; `previous` are those of a pass before.

        With a `shifted` head, those of a position are the trunk's at the position before.
        """
        x = exact(look_up(self.embed.embedding[...], tokens))
        if self.time is not None and t is not None:
            x = x + look_up(self.time.embedding[...], t)[:, None, :]
        if self.length is not None and valid is not None:
            x = x + look_up(self.length.embedding[...], jnp.sum(valid, axis=-1))[:, None, :]
        if self.previous is not None:
            x = x + self.previous(jnp.zeros_like(x) if previous is None else previous)
        time = None if t is None or self.trunk.time is None else t[:, None]
        x = self.trunk(x, time, valid=valid, layout=layout, key=key)
        return jnp.concatenate([x[:, :1], x[:, :-1]], axis=1) if self.shifted else x

    def init_cache(self, num: int, length: int) -> list[KVCache]:
        """Returns the cache of `step` before the first token of `num` texts."""
        return self.trunk.init_cache(num, length)

    def step(
        self, tokens: Int[Array, "b"], position: Array, cache: list[KVCache]
    ) -> tuple[Float[Array, "b v"], list[KVCache]]:
        """Returns the logits at one position of a causal text, from its token and the cache of those before it."""
        logits, cache = self.block_step(tokens[:, None], position, cache)
        return logits[:, 0], cache

    def block_step(
        self, tokens: Int[Array, "b m"], position: Array, cache: list[KVCache]
    ) -> tuple[Float[Array, "b m v"], list[KVCache]]:
        """Returns the logits at m positions that attend to each other, from their tokens and the cache before them."""
        x, cache = self.trunk.step(self.embed(tokens), position, cache)
        return self._answer(x), cache
