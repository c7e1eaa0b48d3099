"""The automaton of a grammar, checked against the enumeration of a small one."""

import numpy as np
import pytest
from data.grammar.test_pcfg import RAW, SMALL_GRAMMAR

from jtextdiff.data.grammar.automaton import automaton_of, masked_word_distributions

AUTOMATON = automaton_of(SMALL_GRAMMAR)
PLACES = {word: place for place, word in enumerate(AUTOMATON.words)}


def by_enumeration(pattern: list[int | None]) -> np.ndarray:
    """Returns p(word at each position | the known words, the length), summed over all sentences."""
    table = np.zeros((len(pattern), len(PLACES)))
    for words, _, p in RAW:
        row = [PLACES[word] for word in words]
        if len(row) == len(pattern) and all(known in (None, word) for known, word in zip(pattern, row, strict=True)):
            table[np.arange(len(row)), row] += p
    return table / table.sum(-1, keepdims=True)


@pytest.mark.parametrize("share", [0.3, 0.7, 1.0])
def test_masked_words_have_the_distributions_of_the_sentences_that_agree(share: float) -> None:
    rng = np.random.default_rng(0)
    for index in rng.integers(len(RAW), size=40):
        pattern = [None if rng.random() < share else PLACES[word] for word in RAW[index][0]]
        table = masked_word_distributions(AUTOMATON, pattern)
        assert table is not None
        np.testing.assert_allclose(table, by_enumeration(pattern), atol=1e-12)


def test_a_text_with_which_no_sentence_agrees_has_no_distribution() -> None:
    assert masked_word_distributions(AUTOMATON, [None, PLACES["owl"], None, None, None]) is None
    assert masked_word_distributions(AUTOMATON, [None]) is None
    assert masked_word_distributions(AUTOMATON, [None] * 40) is None
