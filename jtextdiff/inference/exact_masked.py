"""Masked diffusion with the exact predictions of a grammar in place of a network's.

What its samples get wrong is the sampler's error, not the network's.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jtextdiff.data.grammar.automaton import Automaton, masked_word_distributions
from jtextdiff.diffusion.lengths import sample_length
from jtextdiff.diffusion.randomness import Keys, fold_in
from jtextdiff.diffusion.schedules import TOKEN_SCHEDULES
from jtextdiff.methods.components.masked_denoiser import MaskedDenoiser, unmask
from jtextdiff.methods.components.types import Given, Sample, TextSpec
from jtextdiff.nets.functional import Params
from jtextdiff.sampling.masked_samplers import Unmasking
from jtextdiff.sampling.masked_state import MaskedState

MAX_PATTERNS = 4096
"""Masked texts whose predictions are held in memory."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ExactMasked:
    """Samples as `Masked` does; the automaton of a grammar predicts the masked words. There is nothing to train.

    `words` are the tokens of the vocabulary as text, by id. A text with which no sentence of the grammar agrees has
    uniform predictions.
    """

    text_spec: TextSpec
    sampler: Unmasking
    schedule: str
    words: tuple[str, ...]
    automaton: Automaton = field(repr=False)

    def sample_lengths(self, params: Params, keys: Keys, given: Given) -> Int[Array, "b"]:
        """Returns the given lengths; the others are drawn from the length distribution of the training text."""
        return sample_length(jnp.asarray(self.text_spec.length_counts), fold_in(keys, 1), given.length)

    def sample(self, params: Params, keys: Keys, given: Given, *, keep_path: bool = False) -> Sample:
        """Unmasks tokens until none is masked; fixed tokens are unmasked from the start. `params` are not used."""
        start, predict = MaskedDenoiser(self._logits, self.text_spec).start(
            given, self.sample_lengths(params, keys, given), self.sampler.shaping
        )
        schedule = TOKEN_SCHEDULES[self.schedule](1000)
        return unmask(
            self.sampler, schedule, predict, keys, MaskedState.start(start.tokens, start.masked), keep_path=keep_path
        )

    def _logits(self, x_t: Int[Array, "b l"], *, valid: Array) -> Float[Array, "b l v"]:
        """Returns log p of each word, computed on the host."""
        shape = jax.ShapeDtypeStruct((*x_t.shape, self.text_spec.vocab_size), jnp.float32)
        return jax.pure_callback(self._predict, shape, x_t, jnp.sum(valid, axis=-1))

    def _predict(self, x_t: Array, lengths: Array) -> np.ndarray:
        logits = np.zeros((*x_t.shape, self.text_spec.vocab_size), np.float32)
        for row, num_tokens in enumerate(np.asarray(lengths)):
            num_words = max(int(num_tokens) - 1, 0)  # the last token is EOS
            if num_words:
                logits[row, :num_words] = self._log_p(tuple(np.asarray(x_t)[row, :num_words].tolist()))
        return logits

    @functools.cached_property
    def _log_p(self) -> Callable[[tuple[int, ...]], np.ndarray]:
        """(tokens without EOS) ↦ log p of each word, of the vocabulary's size. It is cached."""
        places = {word: index for index, word in enumerate(self.automaton.words)}
        of_token = [places.get(word) for word in self.words]
        columns = np.array([-1 if place is None else place for place in of_token])

        @functools.lru_cache(MAX_PATTERNS)
        def log_p(tokens: tuple[int, ...]) -> np.ndarray:
            pattern = [None if token == self.text_spec.mask else of_token[token] for token in tokens]
            table = masked_word_distributions(self.automaton, pattern)
            if table is None:
                return np.zeros(())
            with np.errstate(divide="ignore"):
                return np.where(columns >= 0, np.log(table)[:, columns], -np.inf)

        return log_p
