"""Kinds of errors in sentences that a grammar does not generate."""

from collections.abc import Sequence

from jtextdiff.data.grammar.chart_parser import first_error
from jtextdiff.data.grammar.pcfg import Grammar

ERRORS = ("word_choice", "slot", "repeated", "truncated", "too_long")


def error_of(grammar: Grammar, words: Sequence[str]) -> str | None:
    """Returns the kind of a sentence's first error, one of ERRORS, or None for a sentence of the grammar.

    The first error is the first word with which no sentence goes on. "repeated": it is the word before it.
    "word_choice": another word of the same part of speech could stand there. "slot": none could. "truncated": the
    sentence ends too early. "too_long": it is whole and goes on, or has more words than the grammar's limit.
    """
    if words in grammar:
        return None
    position, expected = first_error(grammar.rules_by_first_word, words)
    if position == len(words):
        return "truncated" if expected and len(words) < grammar.longest else "too_long"
    if not expected:
        return "too_long"
    word = words[position]
    if position and word == words[position - 1]:
        return "repeated"
    possible = set[str]().union(*(grammar.tags.get(other, frozenset()) for other in expected))
    return "word_choice" if possible & grammar.tags.get(word, frozenset()) else "slot"
