"""Block diffusion: blocks from left to right, the tokens of a block by masked diffusion (BD3-LM).

Arriola et al. (2025). p(text) = Π p(block | the blocks before it), each factor that of masked diffusion. Blocks of one
token are an autoregressive model, with an exact likelihood; one block as long as the longest text is masked diffusion
that models the end of the text as well. Finished blocks are read from a KV cache, and a text ends in the first block
that contains EOS, which PAD fills up.
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion.elbo import MaskedLosses, any_order_bound, any_order_loss, one_order_bound
from jtextdiff.diffusion.randomness import Keys, fold_in, stratified
from jtextdiff.diffusion.schedules import TOKEN_SCHEDULES, Time
from jtextdiff.methods.components.masked_denoiser import masked_denoiser_net, of_random_order, unmasked_nll
from jtextdiff.methods.components.types import (
    Given,
    Metrics,
    Sample,
    TextSpec,
    allowed_tokens,
    check_settings,
    has_end,
    of_kinds,
    possible_kinds,
    until_end,
    words_only,
)
from jtextdiff.nets.attention import noisy_and_clean
from jtextdiff.nets.functional import Net, Params
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.loop import unroll
from jtextdiff.sampling.masked_samplers import Unmasking, nll_in_order
from jtextdiff.sampling.masked_state import Hidden, MaskedState

POSITIONS = ("learned", "rotary", "learned+rotary")


class BlockState(NamedTuple):
    """State between blocks."""

    tokens: Int[Array, "b l"]  # MASK where they are not drawn yet
    calls: Int[Array, "b"]  # network calls that each row has needed
    cache: Any  # of the finished blocks


@dataclass(frozen=True, kw_only=True)
class BlockDiffusion:
    """A transformer that predicts the masked tokens of a block, given the finished blocks before it."""

    text_spec: TextSpec = TextSpec()
    trunk: Transformer = Transformer()
    block_size: int = 4  # tokens a block: 1 is autoregressive, the longest text's length is masked diffusion
    bound_points: int = 16  # numbers of masked tokens per block at which the bound is estimated, at most all
    sampler: Unmasking = Unmasking()

    def __post_init__(self) -> None:
        check_settings(self, positive=("block_size", "bound_points"), choices={})
        if self.trunk.causal or self.trunk.positions not in POSITIONS:
            raise ValueError(
                f"block diffusion needs trunk.causal=False and trunk.positions in {POSITIONS}, got "
                f"causal={self.trunk.causal} and positions={self.trunk.positions!r}."
            )
        padded = -(-self.text_spec.length // self.block_size) * self.block_size
        if "learned" in self.trunk.positions and padded > self.trunk.max_length:
            raise ValueError(
                f"blocks of {self.block_size} fill texts of {self.text_spec.length} tokens up to {padded}: "
                f"trunk.max_length must be at least {padded}, got {self.trunk.max_length}."
            )

    @functools.cached_property
    def net(self) -> Net:
        return masked_denoiser_net(self.text_spec, self.trunk, reads_length=False)

    @property
    def prefix_only(self) -> bool:
        return self.block_size < self.text_spec.length

    @property
    def bound(self) -> str:
        if self.block_size == 1:
            return "exact"
        num_points = min(self.bound_points, self.block_size)
        name = f"exact-k bound in blocks of {self.block_size}, {num_points} numbers of masked tokens a block"
        return of_random_order(name, self.sampler.description)

    @property
    def _block_sampler(self) -> Unmasking:
        """The sampler of one block, with its share of the steps."""
        steps = max(1, self.sampler.steps * self.block_size // max(self.text_spec.length, 1))
        return dataclasses.replace(self.sampler, steps=steps)

    def init(self, key: Key[Array, ""]) -> Params:
        return self.net.init(key)

    def loss(self, params: Params, key: Key[Array, ""], batch: Batch) -> tuple[Float[Array, "b"], Metrics]:
        """Estimates the bound on −log p(text), divided by the mean length, at one number of masked tokens a block.

        All blocks are predicted in one pass, of a text that is noisy and clean at once (Arriola et al. 2025).
        """
        time_key, mask_key, dropout_key = (jax.random.fold_in(key, purpose) for purpose in range(3))
        blocks, valid = self._blocks(batch)
        nats = any_order_loss(
            self._losses(params, blocks, dropout_key), mask_key, _rows(valid), stratified(time_key, valid[..., 0].size)
        )
        nats = _of_texts(nats, blocks) / self.text_spec.mean_length
        return nats, {"bound": nats}

    def nll(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """Returns an upper bound on −log p(text), nats per sequence: the sum of `any_order_bound` of its blocks.

        With blocks of one token it is exact. Otherwise it bounds texts whose blocks are unmasked one by one in random
        order, see also `nll_in_order`. PAD between EOS and the end of its block counts as text.
        """
        blocks, valid = self._blocks(batch)
        losses, num_points = self._losses(params, blocks, None), min(self.bound_points, self.block_size)
        return _of_texts(any_order_bound(losses, key, _rows(valid), num_points), blocks)

    @property
    def bound_check(self) -> str:
        return "token by token in one random order within each block, with the cache"

    def nll_check(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """Estimates the same bound by the chain rule in one random order a block, block by block with the cache."""
        blocks, valid = self._blocks(batch)
        return _of_texts(one_order_bound(self._cached_losses(params, blocks), key, _rows(valid)), blocks)

    def nll_in_order(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """Returns −log p(text), nats per sequence, of drawing each block in the order of a sampler that `has_order`.

        At temperature 1 without top-p and corrections. Exact, but for blocks that are no text and ends at the longest
        length, both of which `sample` forces. All blocks are predicted at once.
        """
        (blocks, valid), net = self._blocks(batch), self.net.bind(params)
        clean, masked = rearrange(blocks, "b n k -> b (n k)"), _rows(valid)

        def predict(x_t: Int[Array, "r k"], t: Time, hidden: Hidden) -> tuple[Float[Array, "r k v"], Hidden]:
            both = jnp.concatenate([x_t.reshape(clean.shape), clean], axis=1)
            hidden = net.hidden(both, layout=noisy_and_clean(clean.shape[1], self.block_size))[:, : clean.shape[1]]
            logits, possible = net.logits(hidden).reshape(*x_t.shape, -1), possible_kinds(self.text_spec, x_t)
            logits = of_kinds(self.text_spec, logits, possible)
            return jax.nn.log_softmax(logits.at[..., self.text_spec.mask].set(-jnp.inf, mode="drop")), None

        start = MaskedState.start(jnp.where(masked, self.text_spec.mask, _rows(blocks)), masked)
        nats = nll_in_order(self._block_sampler, TOKEN_SCHEDULES["reciprocal"](1000), predict, start, _rows(blocks))
        return _of_texts(nats, blocks)

    def sample(self, params: Params, keys: Keys, given: Given, *, keep_path: bool = False) -> Sample:
        """Draws block after block until every text has its EOS; keeps fixed tokens.

        The sampler's `steps` are shared by the blocks of the longest text, with one a block at least. Every finished
        block but the last costs one more call, which fills the cache, so that there may be more calls than `steps`.
        """
        net, allowed, length = self.net.bind(params), self._allowed(given), given.tokens.shape[1]
        padded_length = allowed.shape[1]
        known = jnp.sum(allowed, axis=-1) == 1
        tokens = jnp.where(known, jnp.argmax(allowed, axis=-1), self.text_spec.mask)
        start = BlockState(tokens, jnp.zeros(len(tokens), int), net.init_cache(len(tokens), padded_length))

        def draw(keys: Keys, state: tuple[BlockState, Any], first: Array) -> tuple[BlockState, Any]:
            return self._draw_block(net, allowed, keys, state[0], first, keep_path)

        def finished(state: tuple[BlockState, Any]) -> Bool[Array, ""]:
            return ~jnp.any(until_end(self.text_spec, state[0].tokens) == self.text_spec.mask)

        path = jnp.zeros_like(jax.eval_shape(draw, keys, (start, None), jnp.array(0))[1]) if keep_path else None
        (state, _), path = unroll(
            draw,
            (start, path),
            keys,
            jnp.arange(0, padded_length, self.block_size),
            record=lambda state: state[1],
            done=None if keep_path else finished,
        )
        tokens = until_end(self.text_spec, state.tokens)[:, :length]
        if keep_path:
            path = jnp.concatenate([rearrange(path[1:], "n s b l -> (n s) b l")[..., :length], tokens[None]])
        return Sample(tokens, path if keep_path else None, state.calls)

    def _draw_block(
        self, net: Any, allowed: Bool[Array, "b l v"], keys: Keys, state: BlockState, first: Array, keep_path: bool
    ) -> tuple[BlockState, Int[Array, "s b l"] | None]:
        """Returns the state after the block at position `first`, and on request the text after each of its steps."""

        def of_block(array: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(array, first, self.block_size, axis=1)

        def in_text(tokens: Int[Array, "b k"]) -> Int[Array, "b l"]:
            return jax.lax.dynamic_update_slice_in_dim(state.tokens, tokens, first, axis=1)

        def predict(x_t: Int[Array, "b k"], t: Time, hidden: Hidden) -> tuple[Float[Array, "b k v"], Hidden]:
            logits, _ = net.block_step(x_t, first, state.cache)
            logits = jnp.where(of_block(allowed), logits, -jnp.inf)
            possible = possible_kinds(self.text_spec, x_t) | (x_t != self.text_spec.mask)[..., None]
            consistent = of_kinds(self.text_spec, logits, possible)
            # Tokens that were drawn together may leave no consistent one; the text then ends at its first end.
            logits = jnp.where(jnp.any(jnp.isfinite(consistent), axis=-1, keepdims=True), consistent, logits)
            masked_share = jnp.mean(x_t == self.text_spec.mask, axis=-1)
            return self.sampler.shaping(logits, words_only(self.text_spec, in_text(x_t)), masked_share), None

        ended = has_end(self.text_spec, state.tokens, first)
        tokens = jnp.where(ended[:, None], self.text_spec.pad, of_block(state.tokens))
        block = MaskedState.start(tokens, tokens == self.text_spec.mask)._replace(calls=state.calls)
        sampler = self._block_sampler
        step, grid = sampler.step_and_grid(TOKEN_SCHEDULES["reciprocal"](1000), predict, fold_in(keys, 1), block)
        block, path = unroll(
            step,
            block,
            fold_in(keys, 0),
            grid,
            record=lambda state: in_text(state.tokens) if keep_path else None,
            done=None if sampler.revises else lambda state: ~jnp.any(state.masked),
        )
        tokens = in_text(block.tokens)
        _, cache = net.block_step(block.tokens, first, state.cache)
        goes_on = ~has_end(self.text_spec, tokens, first + self.block_size)
        return BlockState(tokens, block.calls + goes_on, cache), path

    def _blocks(self, batch: Batch) -> tuple[Int[Array, "b n k"], Bool[Array, "b n k"]]:
        """Returns the tokens in blocks, and whether each block holds a part of the text."""
        fill = ((0, 0), (0, -batch.tokens.shape[1] % self.block_size))
        tokens = jnp.pad(jnp.asarray(batch.tokens), fill, constant_values=self.text_spec.pad)
        valid = jnp.pad(jnp.asarray(batch.valid), fill)
        tokens, valid = (rearrange(array, "b (n k) -> b n k", k=self.block_size) for array in (tokens, valid))
        return tokens, jnp.broadcast_to(jnp.any(valid, axis=-1, keepdims=True), valid.shape)

    def _losses(self, params: Params, blocks: Int[Array, "b n k"], key: Key[Array, ""] | None) -> MaskedLosses:
        """Returns masked ↦ −log p of each token given the unmasked ones of its block and the blocks before, [b n, k].

        Nats; all blocks in one pass. With a `key` there is dropout.
        """
        net, size, clean = self.net.bind(params), self.block_size, rearrange(blocks, "b n k -> b (n k)")

        def losses(masked: Bool[Array, "r k"]) -> Float[Array, "r k"]:
            x_t = jnp.where(masked, self.text_spec.mask, _rows(blocks))
            possible = possible_kinds(self.text_spec, x_t).reshape(*clean.shape, 3)
            both, layout = jnp.concatenate([x_t.reshape(clean.shape), clean], 1), noisy_and_clean(clean.shape[1], size)
            nats = net.per_token(self._token_nll, (clean, possible), both, layout=layout, key=key)
            return nats.reshape(-1, size)

        return losses

    def _cached_losses(self, params: Params, blocks: Int[Array, "b n k"]) -> MaskedLosses:
        """Returns the same as `_losses`, computed block by block with the cache, as `sample` does."""
        net, (num, num_blocks, size) = self.net.bind(params), blocks.shape

        def losses(masked: Bool[Array, "r k"]) -> Float[Array, "r k"]:
            noisy = jnp.where(rearrange(masked, "(b n) k -> b n k", b=num), self.text_spec.mask, blocks)

            def of_block(cache: Any, index: Array) -> tuple[Any, Float[Array, "b k"]]:
                x_t, tokens = noisy[:, index], blocks[:, index]
                logits, _ = net.block_step(x_t, index * size, cache)
                _, cache = net.block_step(tokens, index * size, cache)
                return cache, self._token_nll(logits, tokens, possible_kinds(self.text_spec, x_t))

            cache = net.init_cache(num, num_blocks * size)
            return rearrange(jax.lax.scan(of_block, cache, jnp.arange(num_blocks))[1], "n b k -> (b n) k")

        return losses

    def _allowed(self, given: Given) -> Bool[Array, "b l v"]:
        """Returns the allowed tokens of each position, up to the end of its block, by what is given alone."""
        length, ids = given.tokens.shape[1], jnp.arange(self.text_spec.vocab_size)
        positions, size = jnp.arange(length + -length % self.block_size), given.length[:, None]
        fill = ((0, 0), (0, len(positions) - length))
        given = given._replace(tokens=jnp.pad(given.tokens, fill), fixed=jnp.pad(given.fixed, fill))
        is_eos, is_end = ids == self.text_spec.eos, (ids == self.text_spec.eos) | (ids == self.text_spec.pad)
        rules = (
            (positions < size - 1, ~is_end),
            ((positions == size - 1) & (size > 0), is_eos),
            ((positions >= size) & (size > 0) | (positions >= length), ids == self.text_spec.pad),
            (jnp.broadcast_to(positions == length - 1, given.fixed.shape), is_end),
        )
        allowed = jnp.broadcast_to(True, (*given.fixed.shape, len(ids)))
        for where, tokens in rules:
            allowed = allowed & (~where[..., None] | tokens)
        return (allowed | given.fixed[..., None]) & allowed_tokens(self.text_spec, given, None, with_pad=True)

    def _token_nll(
        self, logits: Float[Array, "b k v"], tokens: Int[Array, "b k"], possible: Bool[Array, "b k 3"]
    ) -> Float[Array, "b k"]:
        return unmasked_nll(self.text_spec, of_kinds(self.text_spec, logits, possible), tokens)


def _rows(blocks: Array) -> Array:
    return rearrange(blocks, "b n k -> (b n) k")


def _of_texts(nats: Float[Array, "r"], blocks: Int[Array, "b n k"]) -> Float[Array, "b"]:
    """Returns the sum over the blocks of each text."""
    return jnp.sum(nats.reshape(blocks.shape[:2]), axis=-1)
