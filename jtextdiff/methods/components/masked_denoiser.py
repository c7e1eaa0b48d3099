"""Masked token prediction: the masked text, the network and its per-token losses."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from jtextdiff.diffusion.elbo import MaskedLosses
from jtextdiff.diffusion.losses import cross_entropy
from jtextdiff.diffusion.randomness import Keys, fold_in
from jtextdiff.diffusion.schedules import Schedule, Time, sigma
from jtextdiff.methods.components.types import Given, Sample, TextSpec, allowed_tokens, valid_and_last, words_only
from jtextdiff.nets.denoisers import PLAIN_HEAD, Head, TokenDenoiser
from jtextdiff.nets.functional import Net
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.denoiser_transforms import LogitShaping, self_condition
from jtextdiff.sampling.energies import Energy
from jtextdiff.sampling.loop import unroll
from jtextdiff.sampling.masked_samplers import Unmasking
from jtextdiff.sampling.masked_state import Hidden, MaskedState, Predict
from jtextdiff.sampling.phrases import occurring, token_bias

RANDOM_ORDER = ("ancestral", "first_hitting")
"""Samplers that unmask in an order that does not depend on the text, one by one in the limit of many steps."""


class MaskedText(NamedTuple):
    """The text from which a sampler starts."""

    tokens: Int[Array, "b l"]  # the fixed tokens, MASK for each token to be sampled, PAD after the end
    masked: Bool[Array, "b l"]
    valid: Bool[Array, "b l"]
    allowed: Bool[Array, "b l v"]  # the tokens that each position may take

    def first_masked(self, of_tokens: Shaped[Array, "b l v"]) -> Shaped[Array, "b v"]:
        """Returns what is given for each token at the first masked position: its log p, or whether it is allowed."""
        return jnp.take_along_axis(of_tokens, jnp.argmax(self.masked, axis=-1)[:, None, None], axis=1)[:, 0]


def masked_text(text_spec: TextSpec, given: Given, length: Int[Array, "b"]) -> MaskedText:
    """Returns texts of these lengths with the given tokens in them, whose last token must be EOS."""
    valid, last = valid_and_last(given, length)
    masked = valid & ~given.fixed
    tokens = jnp.where(valid, jnp.where(masked, text_spec.mask, given.tokens), text_spec.pad)
    return MaskedText(tokens, masked, valid, allowed_tokens(text_spec, given, last, with_pad=False))


def token_predictor(
    text_spec: TextSpec,
    logits: Predict,
    start: MaskedText,
    shaping: LogitShaping,
    noise_share: Callable[[Array, Time], Array | float],
    energy: Energy | None = None,
) -> Predict:
    """Returns log p of the sampled tokens: the network's `logits`, guided, restricted and shaped.

    `noise_share`: (x_t, t) ↦ the share of noise by which the temperature anneals. `energy`: see `phrases.token_bias`.
    """

    def predict(x_t: Int[Array, "b l"], t: Time, hidden: Hidden) -> tuple[Float[Array, "b l v"], Hidden]:
        unrestricted, hidden = logits(x_t, t, hidden)
        words = words_only(text_spec, x_t)
        if energy is not None:
            unrestricted = unrestricted + token_bias(energy, occurring(words, None, text_spec.vocab_size))
        restricted = jnp.where(start.allowed, unrestricted, -jnp.inf)
        return shaping(restricted, words, noise_share(x_t, t)), hidden

    return predict


def logits_and_hidden(net: Any, hidden: Hidden, *inputs: Array, valid: Array) -> tuple[Float[Array, "b l v"], Hidden]:
    """Returns the logits of a TokenDenoiser and, if it is self-conditioned, its last hidden states."""
    if hidden is None:
        return net(*inputs, valid=valid), None
    hidden = net.hidden(*inputs, previous=hidden, valid=valid)
    return net.logits(hidden), hidden


def first_hidden(trunk: Transformer, tokens: Int[Array, "b l"], self_conditioned: bool) -> Hidden:
    """Returns the hidden states that a self-conditioned network reads at the first step; None for any other."""
    return jnp.zeros((*tokens.shape, trunk.width)) if self_conditioned else None


def masked_denoiser_net(
    text_spec: TextSpec,
    trunk: Transformer,
    *,
    num_times: int = 0,
    timed: bool = False,
    reads_length: bool = True,
    self_conditioned: bool = False,
    head: Head = PLAIN_HEAD,
    param_dtype: str = "float32",
    lora_rank: int = 0,
) -> Net:
    """Returns a network from masked tokens, and the text's length if it `reads_length`, to logits over tokens."""
    return Net(
        lambda rngs: TokenDenoiser(
            trunk,
            num_inputs=max(text_spec.vocab_size, text_spec.mask) + 1,
            vocab_size=text_spec.vocab_size,
            num_times=num_times,
            timed=timed,
            num_lengths=text_spec.length + 1 if reads_length else 0,
            self_conditioned=self_conditioned,
            head=head,
            rngs=rngs,
        ),
        param_dtype,
        lora_rank,
    )


def unmasked_nll(text_spec: TextSpec, logits: Float[Array, "b m v"], tokens: Int[Array, "b m"]) -> Float[Array, "b m"]:
    """Returns −log p of tokens, nats, where MASK has probability 0 (Sahoo et al. 2024, §3.2.3)."""
    is_mask = jnp.arange(text_spec.vocab_size) == text_spec.mask
    return cross_entropy(jnp.where(is_mask, -jnp.inf, logits), tokens)


class MaskedDenoiser(NamedTuple):
    """A network of x_t, which implies the time, bound to its parameters."""

    net: Any  # a TokenDenoiser
    text_spec: TextSpec
    self_conditioned: bool = False
    time_input: str = "none"  # see `Masked.time_input`

    def start(
        self, given: Given, length: Int[Array, "b"], shaping: LogitShaping, energy: Energy | None = None
    ) -> tuple[MaskedText, Predict]:
        """Returns the text before the first network call, and the distribution from which its tokens are sampled."""
        start = masked_text(self.text_spec, given, length)

        def logits(x_t: Int[Array, "b l"], t: Time, hidden: Hidden) -> tuple[Float[Array, "b l v"], Hidden]:
            return logits_and_hidden(self.net, hidden, *self._inputs(x_t, start.valid), valid=start.valid)

        def masked_share(x_t: Int[Array, "b l"], t: Time) -> Float[Array, "b"]:
            return self._masked_share(x_t, start.valid)

        return start, token_predictor(self.text_spec, logits, start, shaping, masked_share, energy)

    def losses(
        self,
        tokens: Int[Array, "b l"],
        valid: Bool[Array, "b l"],
        key: Key[Array, ""] | None = None,
        *,
        two_passes: Bool[Array, ""] | bool = True,
    ) -> MaskedLosses:
        """Returns masked ↦ −log p of each token given the unmasked ones, nats. With a `key` there is dropout.

        With `two_passes`, a self-conditioned network reads its hidden states of a first pass over the same x_t.
        """
        token_nll = functools.partial(unmasked_nll, self.text_spec)

        def losses(masked: Bool[Array, "b l"]) -> Float[Array, "b l"]:
            x_t = jnp.where(masked, self.text_spec.mask, tokens)
            inputs = self._inputs(x_t, valid)
            if not self.self_conditioned:
                return self.net.per_token(token_nll, (tokens,), *inputs, valid=valid, key=key)
            previous = self_condition(lambda: self.net.hidden(*inputs, valid=valid), jnp.asarray(two_passes))
            return self.net.per_token(token_nll, (tokens,), *inputs, previous=previous, valid=valid, key=key)

        return losses

    def _inputs(self, x_t: Int[Array, "b l"], valid: Bool[Array, "b l"]) -> tuple[Array, ...]:
        """Returns x_t and, if the network reads it, the time at which this share of the tokens is masked."""
        if self.time_input == "none":
            return (x_t,)
        share = self._masked_share(x_t, valid)
        return x_t, sigma(jnp.log1p(-share)) if self.time_input == "sigma" else share

    def _masked_share(self, x_t: Int[Array, "b l"], valid: Bool[Array, "b l"]) -> Float[Array, "b"]:
        masked = valid & (x_t == self.text_spec.mask)
        return jnp.sum(masked, axis=-1) / jnp.maximum(jnp.sum(valid, axis=-1), 1)


def unmask(
    sampler: Unmasking, log_alpha_bar: Schedule, predict: Predict, keys: Keys, start: MaskedState, *, keep_path: bool
) -> Sample:
    """Runs a sampler until no token is masked, or to its end if it revises tokens."""

    def record(state: MaskedState) -> Int[Array, "b l"] | None:
        return state.tokens if keep_path else None

    def done(state: MaskedState) -> Bool[Array, ""]:
        return ~jnp.any(state.masked)

    step, grid = sampler.step_and_grid(log_alpha_bar, predict, fold_in(keys, 2), start)
    stop = None if sampler.revises else done
    state, path = unroll(step, start, fold_in(keys, 0), grid, record=record, done=stop)
    return Sample(state.tokens, path, state.calls)


def any_order_bound_name(num_points: int, sampler: str, self_conditioned: bool = False) -> str:
    """The `bound` of methods whose `nll` is `elbo.any_order_bound`, and what it bounds if not the sampler's texts."""
    name = f"exact-k bound, {num_points} numbers of masked tokens a text"
    if self_conditioned:
        name += ", with two passes a call, where samplers reuse the call before"
    return of_random_order(name, sampler)


def of_random_order(bound: str, sampler: str) -> str:
    """Returns the name of a bound, and that it is not one of this sampler's texts unless the order is random."""
    return bound if sampler in RANDOM_ORDER else f"{bound}; of unmasking in random order, which {sampler} does not do"
