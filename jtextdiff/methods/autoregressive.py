"""Autoregressive language model: one word after another, p(w) = Π p(w_i | w_<i). The baseline, and the judge."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.core import objectives
from jtextdiff.core.beams import beam_search, start_beams
from jtextdiff.core.distributions import Categorical, check_narrowing, narrowed
from jtextdiff.core.randomness import Keys
from jtextdiff.core.sampling import Writing, autoregress, unroll
from jtextdiff.methods.method import Given, Language, Metrics, Sample, check_settings, possible_words, span
from jtextdiff.nets.denoisers import TokenDenoiser
from jtextdiff.nets.functional import Net, Params
from jtextdiff.nets.transformer import Transformer
from jtextdiff.text.batches import Batch

UNWRITTEN = -1
"""Where nothing has been written yet: no token, for PAD may be the same as EOS."""


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


@dataclass(frozen=True, kw_only=True)
class Autoregressive:
    """A causal transformer; a text starts after EOS and ends with EOS, so its length needs no law."""

    language: Language = Language()
    trunk: Transformer = Transformer(causal=True)
    sampler: Writer = Writer()

    def __post_init__(self) -> None:
        if not self.trunk.causal:
            raise ValueError("Autoregressive needs trunk.causal=True: each word may see only those before it.")

    @functools.cached_property
    def net(self) -> Net:
        make = functools.partial(_make_net, trunk=self.trunk, vocab_size=self.language.vocab_size)
        return Net(make)

    @property
    def bound(self) -> str:
        return "exact"

    @property
    def prefix_only(self) -> bool:
        return True

    def init(self, key: Key[Array, ""]) -> Params:
        return self.net.init(key)

    def loss(self, params: Params, key: Key[Array, ""], batch: Batch) -> tuple[Float[Array, "b"], Metrics]:
        """−log p(text, EOS) by the mean length of a text, nats a token.

        By its own length, short texts would weigh more and EOS would come too soon.
        """
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        losses = self._losses(params, tokens, key)
        total = objectives.sum_over(losses, valid)
        return total / self.language.mean_length, {"cross_entropy": objectives.mean_over(losses, valid)}

    def nll(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """−log p(text, EOS), exact, nats a sequence; `key` is not used."""
        tokens = jnp.asarray(batch.tokens)
        losses = self._losses(params, tokens, None)
        return objectives.sum_over(losses, jnp.asarray(batch.valid))

    @property
    def bound_again(self) -> str:
        return "exact, word by word from what is kept of those before"

    def nll_again(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """The same number as the sampler would have it; `key` is not used."""
        tokens, net = jnp.asarray(batch.tokens), self.net.bind(params)

        def read(kept: Any, position: Array) -> tuple[Any, Array]:
            logits, kept = net.step(self._before(tokens)[:, position], position, kept)
            return kept, Categorical(logits=logits).log_prob(tokens[:, position])

        _, log_p = jax.lax.scan(read, net.empty(*tokens.shape), jnp.arange(tokens.shape[1]))
        return objectives.sum_over(-log_p.T, jnp.asarray(batch.valid))

    def law(self, params: Params, given: Given) -> Float[Array, "b v"] | None:
        """log p of the word after the given ones, in one reading of them; None where words are not drawn."""
        if self.sampler.name != "sample":
            return None
        position = jnp.argmin(given.fixed, axis=-1)[:, None, None]
        logits = self.net.bind(params)(self._before(given.tokens))
        possible = jnp.where(self._possible(given), logits, -jnp.inf)
        law = jnp.take_along_axis(possible, position, axis=1)[:, 0]
        return narrowed(law, self.sampler.temperature, self.sampler.top_p)

    def sample(self, params: Params, keys: Keys, given: Given, *, keep_path: bool = False) -> Sample:
        """Draws word after word until EOS, which comes where a length is given there, else at the last position at
        the latest; a fixed prefix is kept."""
        possible = self._possible(given)
        net, width = self.net.bind(params), self.sampler.beams

        def read(tokens: Int[Array, "b l"], position: Array, memory: Any) -> tuple[Float[Array, "b v"], Any]:
            last = jnp.where(position > 0, tokens[:, position - 1], self.language.eos)
            logits, memory = net.step(last, position, memory)
            may = jnp.repeat(possible[:, position], len(tokens) // len(possible), axis=0)
            return narrowed(jnp.where(may, logits, -jnp.inf), self.sampler.temperature, self.sampler.top_p), memory

        num, length = given.tokens.shape
        blank = jnp.full((num * width, length), UNWRITTEN, given.tokens.dtype)
        state = Writing(blank, net.empty(num * width, length))
        if self.sampler.name == "beam":
            step, state = beam_search(read, width, self.language.eos, self.language.pad), start_beams(state, width)
        else:
            greedy = lambda law, keys: law.mode()
            step = autoregress(read, greedy if self.sampler.name == "greedy" else Categorical.sample)
        keep = (lambda state: self._until_end(state.tokens[::width])) if keep_path else (lambda state: None)
        ended = lambda state: jnp.all(jnp.any(state.tokens == self.language.eos, axis=-1))
        state, path = unroll(step, state, keys, jnp.arange(length), keep=keep, done=ended)
        calls = jnp.argmax(state.tokens[::width] == self.language.eos, axis=-1) + 1
        return Sample(self._until_end(state.tokens[::width]), path, calls)

    def features(self, params: Params, batch: Batch) -> Float[Array, "b w"]:
        """The last hidden states, in the mean over the text."""
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        hidden = self.net.bind(params).hidden(self._before(tokens))
        return jnp.sum(jnp.where(valid[..., None], hidden, 0.0), axis=1) / jnp.sum(valid, axis=-1, keepdims=True)

    def _losses(self, params: Params, tokens: Int[Array, "b l"], key: Any) -> Float[Array, "b l"]:
        """−log p of each token given those before it, nats; the first is given EOS."""
        return self.net.bind(params).per_word(objectives.cross_entropy, (tokens,), self._before(tokens), key=key)

    def _before(self, tokens: Int[Array, "b l"]) -> Int[Array, "b l"]:
        """The token before each; EOS before the first."""
        return jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)), constant_values=self.language.eos)

    def _until_end(self, tokens: Int[Array, "b l"]) -> Int[Array, "b l"]:
        """PAD after the first EOS."""
        ended = jnp.cumsum(tokens == self.language.eos, axis=-1) - (tokens == self.language.eos) > 0
        return jnp.where(ended | (tokens == UNWRITTEN), self.language.pad, tokens)

    def _possible(self, given: Given) -> Bool[Array, "b l v"]:
        """The words that each position may take: EOS at the length that is given and nowhere before; without one
        anywhere, and at the last position in any case."""
        known, length = given.length[:, None] > 0, given.tokens.shape[1]
        _, ends = span(given, jnp.where(given.length > 0, given.length, length))
        is_eos = jnp.arange(self.language.vocab_size) == self.language.eos
        may_end = ends[..., None] == is_eos
        free = possible_words(self.language, given, None, with_pad=False)
        return free & jnp.where((known | ends)[..., None] & ~given.fixed[..., None], may_end, True)


def _make_net(rngs: Any, *, trunk: Transformer, vocab_size: int) -> TokenDenoiser:
    return TokenDenoiser(trunk, num_inputs=vocab_size, vocab_size=vocab_size, rngs=rngs)
