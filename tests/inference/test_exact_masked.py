"""Masked diffusion with the exact predictions of a small grammar."""

import collections
import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data.grammar.test_pcfg import SMALL_GRAMMAR, WITHIN

from jtextdiff.data.grammar.automaton import automaton_of
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.inference.exact_masked import ExactMasked
from jtextdiff.methods.components.types import TextSpec, nothing_given
from jtextdiff.sampling.masked_samplers import Unmasking

WORDS = ("", "[EOS]", *SMALL_GRAMMAR.vocabulary)
PAD, EOS, MASK, LENGTH, NUM = 0, 1, len(WORDS), 11, 2_000
NUM_WORDS = 10
SPEC = TextSpec(vocab_size=len(WORDS), mask=MASK, pad=PAD, eos=EOS, length=LENGTH, length_counts=(1,) * (LENGTH + 1))
ONE_BY_ONE = Unmasking(name="ordered", order="entropy", steps=LENGTH, top_p=1.0, correct="off")


def samples(sampler: Unmasking) -> list[tuple[str, ...]]:
    automaton = automaton_of(SMALL_GRAMMAR)
    method = ExactMasked(text_spec=SPEC, sampler=sampler, schedule="reciprocal", words=WORDS, automaton=automaton)
    draw = jax.jit(method.sample)
    given = nothing_given(NUM, LENGTH)._replace(length=jnp.full(NUM, NUM_WORDS + 1))
    tokens = draw({}, keys_for(jax.random.key(0), jnp.arange(NUM)), given).tokens
    return [tuple(WORDS[token] for token in itertools.takewhile(lambda token: token != EOS, row)) for row in tokens]


def test_words_that_are_drawn_one_by_one_have_the_distribution_of_the_grammar() -> None:
    counts = collections.Counter(texts := samples(ONE_BY_ONE))
    assert all(text in SMALL_GRAMMAR for text in texts)
    of_length = {words: p for words, _, p in WITHIN if len(words) == NUM_WORDS}
    expected = NUM * np.asarray(list(of_length.values())) / sum(of_length.values())
    observed = np.asarray([counts[words] for words in of_length])
    assert len(of_length) > 5
    chi_square = np.sum((observed - expected)[expected > 2] ** 2 / expected[expected > 2])
    assert chi_square < len(of_length) + 5 * np.sqrt(2 * len(of_length))


@pytest.mark.slow
def test_words_that_are_drawn_at_once_do_not_agree() -> None:
    at_once = dataclasses.replace(ONE_BY_ONE, name="ancestral", steps=1)
    shares = [text in SMALL_GRAMMAR for text in samples(at_once)]
    assert np.mean(shares) < 0.9
