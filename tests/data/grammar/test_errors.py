"""The first error of a sentence: where it stands, by enumeration, and its kind."""

import pytest
from data.grammar.test_pcfg import RAW, SMALL_GRAMMAR

from jtextdiff.data.grammar.chart_parser import first_error
from jtextdiff.data.grammar.errors import error_of
from jtextdiff.data.grammar.restaurants import grammar, sentences

PREFIXES = {words[:n] for words, _, _ in RAW for n in range(len(words) + 1)}


def test_the_first_error_ends_the_longest_beginning_of_a_sentence_by_enumeration() -> None:
    """Every sentence with one word replaced, left out or added at the end."""
    vocabulary = SMALL_GRAMMAR.vocabulary
    for words in sorted({words for words, _, _ in RAW})[:8]:
        changed = [words[:i] + (word,) + words[i + 1 :] for i in range(len(words)) for word in vocabulary]
        changed += [words[:i] for i in range(len(words))] + [(*words, "cat")]
        for other in changed:
            position, expected = first_error(SMALL_GRAMMAR.rules_by_first_word, other)
            longest = max(n for n in range(len(other) + 1) if other[:n] in PREFIXES)
            assert position == longest, other
            assert expected == {word for word in vocabulary if (*other[:longest], word) in PREFIXES}, other


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("Ann is very kind .", None),
        ("Ann are very kind .", "word_choice"),
        ("Ann cat very kind .", "slot"),
        ("Ann Ann is very kind .", "repeated"),
        ("Ann is very kind and has", "truncated"),
        ("Ann is very kind . Ann is kind .", "too_long"),
        ("", "truncated"),
        ("zebra is kind .", "slot"),
    ],
)
def test_kinds(text: str, error: str | None) -> None:
    assert error_of(SMALL_GRAMMAR, text.split()) == error


def test_sentences_of_the_grammar_have_no_error_and_their_beginnings_are_truncated() -> None:
    for derivation in sentences(20, 5):
        assert error_of(grammar(), derivation.words) is None
        assert error_of(grammar(), derivation.words[:3]) == "truncated"
