"""Writing: word after word from left to right until the end, by a network that reads what is written so far."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.diffusion.distributions import Categorical, check_narrowing, narrowed
from jtextdiff.diffusion.randomness import Keys
from jtextdiff.methods.components.types import Given, Language, Sample, check_settings, possible_words, span
from jtextdiff.sampling.decoding import Writing, autoregress, beam_search, start_beams
from jtextdiff.sampling.loop import unroll

UNWRITTEN = -1
"""Where nothing has been written yet: no token, for PAD may be the same as EOS."""

Read = Callable[[Int[Array, "b"], Array, Any], tuple[Float[Array, "b v"], Any]]
"""(the token before, its position, what is kept of those before it) ↦ logits of the next, and what is kept then."""


@dataclass(frozen=True, kw_only=True)
class Writer:
    """How texts are written."""

    name: str = "sample"  # or greedy; or beam: the likeliest text that `beams` at a time can find
    temperature: float = 1.0
    top_p: float = 1.0  # words outside the likeliest that make up this share are not drawn
    beams: int = 1

    def __post_init__(self) -> None:
        check_settings(self, positive=("beams",), choices={"name": ("sample", "greedy", "beam")})
        if (self.beams > 1) != (self.name == "beam"):
            raise ValueError(f"sampler.beams of 2 or more belong to name='beam', got {self.beams} and {self.name!r}.")
        check_narrowing(self.temperature, self.top_p)


def write(
    how: Writer, language: Language, given: Given, keys: Keys, read: Read, kept: Any, *, keep_path: bool = False
) -> Sample:
    """Draws word after word until EOS, which comes where a length is given there, else at the last position at the
    latest; a fixed prefix is kept. `kept`, before the first token, has `how.beams` rows for each text."""
    possible, width = possible_next(language, given), how.beams

    def law(tokens: Int[Array, "b l"], position: Array, memory: Any) -> tuple[Float[Array, "b v"], Any]:
        last = jnp.where(position > 0, tokens[:, position - 1], language.eos)
        logits, memory = read(last, position, memory)
        may = jnp.repeat(possible[:, position], len(tokens) // len(possible), axis=0)
        return narrowed(jnp.where(may, logits, -jnp.inf), how.temperature, how.top_p), memory

    num, length = given.tokens.shape
    state = Writing(jnp.full((num * width, length), UNWRITTEN, given.tokens.dtype), kept)
    if how.name == "beam":
        step, state = beam_search(law, width, language.eos, language.pad), start_beams(state, width)
    else:
        greedy = lambda law, keys: law.mode()
        step = autoregress(law, greedy if how.name == "greedy" else Categorical.sample)
    keep = (lambda state: _until_end(state.tokens[::width], language)) if keep_path else (lambda state: None)
    ended = lambda state: jnp.all(jnp.any(state.tokens == language.eos, axis=-1))
    state, path = unroll(step, state, keys, jnp.arange(length), keep=keep, done=ended)
    calls = jnp.argmax(state.tokens[::width] == language.eos, axis=-1) + 1
    return Sample(_until_end(state.tokens[::width], language), path, calls)


def possible_next(language: Language, given: Given) -> Bool[Array, "b l v"]:
    """The words that each position may take: EOS at the length that is given and nowhere before; without one
    anywhere, and at the last position in any case."""
    known, length = given.length[:, None] > 0, given.tokens.shape[1]
    _, ends = span(given, jnp.where(given.length > 0, given.length, length))
    is_eos = jnp.arange(language.vocab_size) == language.eos
    may_end = ends[..., None] == is_eos
    free = possible_words(language, given, None, with_pad=False)
    return free & jnp.where((known | ends)[..., None] & ~given.fixed[..., None], may_end, True)


def token_before(language: Language, tokens: Int[Array, "b l"]) -> Int[Array, "b l"]:
    """The token before each position; before the first, EOS."""
    return jnp.concatenate([jnp.full_like(tokens[:, :1], language.eos), tokens[:, :-1]], axis=1)


def hidden(tokens: Int[Array, "b l"], mask: int, share: float, key: Key[Array, ""]) -> Int[Array, "b l"]:
    """The tokens with a share of them, EOS among them, under MASK."""
    return jnp.where(jax.random.bernoulli(key, share, tokens.shape), mask, tokens) if share else tokens


def losses_by_word(language: Language, tokens: Int[Array, "b l"], read: Read, kept: Any) -> Float[Array, "b l"]:
    """−log p of each token, nats, one after another from what is kept of those before, as `write` finds it."""

    def step(kept: Any, position: Array) -> tuple[Any, Array]:
        logits, kept = read(token_before(language, tokens)[:, position], position, kept)
        return kept, -Categorical(logits=logits).log_prob(tokens[:, position])

    return jax.lax.scan(step, kept, jnp.arange(tokens.shape[1]))[1].T


def _until_end(tokens: Int[Array, "b l"], language: Language) -> Int[Array, "b l"]:
    """PAD after the first EOS."""
    ended = jnp.cumsum(tokens == language.eos, axis=-1) - (tokens == language.eos) > 0
    return jnp.where(ended | (tokens == UNWRITTEN), language.pad, tokens)
