"""Denoisers: the trunk with doors for words. One reads noisy vectors, the other tokens."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.nets.batch_sharding import by_rows, look_up
from jtextdiff.nets.chunking import by_pieces
from jtextdiff.nets.layers import Kept, dense, table, uniform
from jtextdiff.nets.transformer import Transformer, Trunk


def of_norm(table: Float[Array, "v d"], norm: float | None) -> Float[Array, "v d"]:
    """The rows of a table, each of this norm, if one is set."""
    return table if norm is None else norm * table / jnp.linalg.norm(table, axis=-1, keepdims=True)


class EmbeddingDenoiser(nnx.Module):
    """Word vectors, and a trunk that reads noisy ones (Li et al. 2022, §4).

    Doors: `table()` the vectors; `embed(tokens)`; `__call__` what the trunk answers for a noisy x_t, as a vector
    or as logits over words; `rounding_logits(x_0)` the tied head that turns a vector into words. Vectors go into
    the trunk and come out of it by one dense layer; by two with a tanh between, if `doors` is "deep". No gradient
    reaches the vectors unless they are `learned`.
    """

    def __init__(
        self,
        trunk: Transformer,
        *,
        vocab_size: int,
        embed_dim: int,
        embed_norm: float | None,
        learned: bool,
        answers: str,
        doors: str,
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
        self.lift = linear(width, width) if doors == "deep" else None
        self.trunk = Trunk(trunk, timed=True, rngs=rngs)
        self.lower = linear(width, width) if doors == "deep" else None
        self.answer = linear(width, vocab_size if answers == "logits" else embed_dim)
        self.length = table(num_lengths, width, init=trunk.init, rngs=rngs) if num_lengths else None

    def table(self) -> Float[Array, "v d"]:
        """The word vectors; each of norm `embed_norm`, if one is set."""
        table = self.embedding[...] if self.learned else jax.lax.stop_gradient(self.embedding[...])
        return of_norm(table, self.embed_norm)

    def embed(self, tokens: Int[Array, "b l"]) -> Float[Array, "b l d"]:
        return look_up(self.table(), tokens)

    def rounding_logits(self, x_0: Float[Array, "b l d"]) -> Float[Array, "b l v"]:
        """Tied dot product and bias: log p(w | x_0) up to normalisation."""
        return by_rows(x_0 @ self.table().T + self.rounding_bias[...])

    def __call__(
        self,
        x_t: Float[Array, "b l d"],
        t: Float[Array, "b #l"],
        previous: Float[Array, "b l d"] | None = None,
        *,
        valid: Bool[Array, "b l"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "b l k"]:
        """The answer for x_t at time t in [0, 1000]; with known lengths, `valid` also tells how long the text is."""
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
        return by_rows(self.answer(x))


class TokenDenoiser(nnx.Module):
    """Tokens in, logits over words out.

    Tells the trunk the time, if `num_times`: one learned row for each of the times 0 … num_times − 1; and how long
    the text is, if `num_lengths`.
    """

    def __init__(
        self,
        trunk: Transformer,
        *,
        num_inputs: int,
        vocab_size: int,
        num_times: int = 0,
        num_lengths: int = 0,
        rngs: nnx.Rngs,
    ):
        rows = functools.partial(table, init=trunk.init, rngs=rngs)
        self.embed = rows(num_inputs, trunk.width)
        self.trunk = Trunk(trunk, timed=False, rngs=rngs)
        self.answer = dense(trunk.width, vocab_size, init=trunk.init, rngs=rngs)
        self.time = rows(num_times, trunk.width) if num_times else None
        self.length = rows(num_lengths, trunk.width) if num_lengths else None

    def __call__(
        self,
        tokens: Int[Array, "b l"],
        t: Int[Array, "b"] | None = None,
        *,
        valid: Bool[Array, "b l"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "b l v"]:
        return by_rows(self.answer(self.hidden(tokens, t, valid=valid, key=key)))

    def per_word(
        self,
        values: Callable[..., Any],
        others: tuple[Array, ...],
        tokens: Int[Array, "b l"],
        t: Int[Array, "b"] | None = None,
        *,
        valid: Bool[Array, "b l"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Any:
        """values(logits, *others), a tree of [b, l]; logits of a large vocabulary are never there all at once."""
        x = self.hidden(tokens, t, valid=valid, key=key)
        of_piece = lambda x, *others: values(by_rows(self.answer(x)), *others)
        return by_pieces(of_piece, self.answer.out_features, x, *others)

    def hidden(
        self,
        tokens: Int[Array, "b l"],
        t: Int[Array, "b"] | None = None,
        *,
        valid: Bool[Array, "b l"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "b l w"]:
        """What the answer is read off."""
        x = look_up(self.embed.embedding[...], tokens)
        if self.time is not None and t is not None:
            x = x + look_up(self.time.embedding[...], t)[:, None, :]
        if self.length is not None and valid is not None:
            x = x + look_up(self.length.embedding[...], jnp.sum(valid, axis=-1))[:, None, :]
        return self.trunk(x, valid=valid, key=key)

    def empty(self, num: int, length: int) -> list[Kept]:
        """What `step` keeps, before the first token of `num` texts."""
        return self.trunk.empty(num, length)

    def step(
        self, tokens: Int[Array, "b"], position: Array, kept: list[Kept]
    ) -> tuple[Float[Array, "b v"], list[Kept]]:
        """The logits at one position of a causal text, from its token and what is kept of those before it."""
        x, kept = self.trunk.step(self.embed(tokens)[:, None], position, kept)
        return self.answer(x)[:, 0], kept
