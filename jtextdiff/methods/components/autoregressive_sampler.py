"""Sampling, greedy decoding and beam search of left-to-right models."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.diffusion.distributions import Categorical, check_temperature_and_top_p, temper_and_top_p
from jtextdiff.diffusion.randomness import Keys
from jtextdiff.methods.components.types import Given, Sample, TextSpec, allowed_tokens, check_settings, valid_and_last
from jtextdiff.sampling.decoding import DecodingState, autoregress, beam_search, initial_beams
from jtextdiff.sampling.loop import Step, unroll
from jtextdiff.sampling.phrases import WordGuide

UNDECODED = -1
"""Id of positions that are not decoded yet. It is no token, because PAD may be the same as EOS."""

NextLogits = Callable[[Int[Array, "b"], Array, Any], tuple[Float[Array, "b v"], Any]]
"""(previous token, position, cache) ↦ (logits of the token at the position, cache): one step of a causal network."""


@dataclass(frozen=True, kw_only=True)
class DecodingSettings:
    """Settings of left-to-right decoding."""

    name: str = "sample"  # or greedy; or beam: the most likely text found by a search with `beams` beams
    temperature: float = 1.0
    top_p: float = 1.0  # tokens outside the most likely ones that make up this share are never sampled
    beams: int = 1

    def __post_init__(self) -> None:
        check_settings(self, positive=("beams",), choices={"name": ("sample", "greedy", "beam")})
        if (self.beams > 1) != (self.name == "beam"):
            raise ValueError(f"sampler.beams of 2 or more belong to name='beam', got {self.beams} and {self.name!r}.")
        check_temperature_and_top_p(self.temperature, self.top_p)


def decode(
    settings: DecodingSettings,
    text_spec: TextSpec,
    given: Given,
    keys: Keys,
    next_logits: NextLogits,
    cache: Any,
    *,
    keep_path: bool = False,
) -> Sample:
    """Decodes tokens left to right until EOS, which a given length forces there and the last position in any case.

    Keeps a fixed prefix. `cache` is the one before the first token, with `settings.beams` rows per text.
    """
    num, length = given.tokens.shape
    tokens = jnp.full((num * settings.beams, length), UNDECODED, given.tokens.dtype)
    step, state = _step_and_state(settings, text_spec, given, next_logits, DecodingState(tokens, cache))

    def best(state: Any) -> Int[Array, "b l"]:
        return state.tokens[:: settings.beams]

    def record(state: Any) -> Int[Array, "b l"] | None:
        return _until_end(best(state), text_spec) if keep_path else None

    def done(state: Any) -> Bool[Array, ""]:
        return jnp.all(jnp.any(state.tokens == text_spec.eos, axis=-1))

    state, path = unroll(step, state, keys, jnp.arange(length), record=record, done=done)
    calls = jnp.argmax(best(state) == text_spec.eos, axis=-1) + 1
    return Sample(_until_end(best(state), text_spec), path, calls)


def _step_and_state(
    settings: DecodingSettings, text_spec: TextSpec, given: Given, next_logits: NextLogits, state: DecodingState
) -> tuple[Step, Any]:
    """Returns the decoding step and the state before the first one."""

    def next_token(tokens: Int[Array, "n l"], position: Array, cache: Any) -> tuple[Float[Array, "n v"], Any]:
        previous = jnp.where(position > 0, tokens[:, position - 1], text_spec.eos)
        logits, cache = next_logits(previous, position, cache)
        allowed = allowed_next(text_spec, given, position)[:, 0]
        logits = jnp.where(jnp.repeat(allowed, len(tokens) // len(allowed), axis=0), logits, -jnp.inf)
        return temper_and_top_p(logits, settings.temperature, settings.top_p), cache

    def most_likely(distribution: Categorical, keys: Keys) -> Int[Array, "n"]:
        return distribution.mode()

    if settings.name == "beam":
        return (
            beam_search(next_token, settings.beams, text_spec.eos, text_spec.pad),
            initial_beams(state, settings.beams),
        )
    return autoregress(next_token, most_likely if settings.name == "greedy" else Categorical.sample), state


def allowed_next(text_spec: TextSpec, given: Given, position: Array | None = None) -> Bool[Array, "b l v"]:
    """Returns the allowed tokens of each position, or of one: with a given length, EOS there and nowhere before.

    Without one EOS is allowed anywhere, and at the last position nothing else is.
    """
    has_length, max_length = given.length[:, None] > 0, given.tokens.shape[1]
    _, last = valid_and_last(given, jnp.where(given.length > 0, given.length, max_length))
    if position is not None:
        here = lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, position, 1, axis=1)
        last, given = here(last), given._replace(tokens=here(given.tokens), fixed=here(given.fixed))
    is_eos = jnp.arange(text_spec.vocab_size) == text_spec.eos
    eos_only_at_last = last[..., None] == is_eos
    decided = (has_length | last)[..., None] & ~given.fixed[..., None]
    return allowed_tokens(text_spec, given, None, with_pad=False) & jnp.where(decided, eos_only_at_last, True)


def guided_by_words(next_logits: NextLogits, guide: WordGuide) -> NextLogits:
    """Adds to the logits what a guide adds for the tokens so far.

    The cache is a pair: which tokens occur so far [n, v], zeros before the first token, and the cache of `next_logits`.
    Rows are those of the guide, each `beams` times.
    """

    def guided(previous: Int[Array, "n"], position: Array, cache: Any) -> tuple[Float[Array, "n v"], Any]:
        occurs, cache = cache
        logits, cache = next_logits(previous, position, cache)
        with_previous = occurs.at[jnp.arange(len(occurs)), previous].set(1.0)
        occurs = jnp.where(position > 0, with_previous, occurs)
        by_beam = occurs.reshape(len(guide.source), -1, occurs.shape[-1])
        bias = jax.vmap(guide, in_axes=1, out_axes=1)(by_beam)
        return logits + bias.reshape(logits.shape), (occurs, cache)

    return guided


def previous_tokens(text_spec: TextSpec, tokens: Int[Array, "b l"]) -> Int[Array, "b l"]:
    """Returns the token before each position; before the first, EOS."""
    return jnp.concatenate([jnp.full_like(tokens[:, :1], text_spec.eos), tokens[:, :-1]], axis=1)


def word_dropout(tokens: Int[Array, "b l"], mask: int, rate: float, key: Key[Array, ""]) -> Int[Array, "b l"]:
    """Replaces a share of the tokens, EOS included, by MASK."""
    return jnp.where(jax.random.bernoulli(key, rate, tokens.shape), mask, tokens) if rate else tokens


def stepwise_losses(
    text_spec: TextSpec, tokens: Int[Array, "b l"], next_logits: NextLogits, cache: Any
) -> Float[Array, "b l"]:
    """Returns −log p of each token, nats, computed position by position with the cache, as `decode` computes it."""
    previous = previous_tokens(text_spec, tokens)

    def step(cache: Any, position: Array) -> tuple[Any, Array]:
        logits, cache = next_logits(previous[:, position], position, cache)
        return cache, -Categorical(logits=logits).log_prob(tokens[:, position])

    return jax.lax.scan(step, cache, jnp.arange(tokens.shape[1]))[1].T


def _until_end(tokens: Int[Array, "b l"], text_spec: TextSpec) -> Int[Array, "b l"]:
    """Puts PAD after the first EOS."""
    is_eos = tokens == text_spec.eos
    after_end = jnp.cumsum(is_eos, axis=-1) - is_eos > 0
    return jnp.where(after_end | (tokens == UNDECODED), text_spec.pad, tokens)
