"""A grammar as an automaton, and its exact distributions of masked words.

A state is what may still follow. Its edges are the next words, each with its probability. No word comes back to an
earlier state, so two passes over the words of a sentence sum over all sentences that agree with it.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jtextdiff.data.grammar.feature_rules import Word
from jtextdiff.data.grammar.pcfg import Grammar

Alternatives = dict[tuple[int, int], float]
"""(word, next state) ↦ probability."""

END = 0
"""The state after the last word."""


class Automaton(NamedTuple):
    """The states are numbered; the edges of a state are `first[state]` to `first[state + 1]`."""

    words: tuple[str, ...]  # the vocabulary of the grammar
    start: int
    first: NDArray[np.int64]
    word: NDArray[np.int32]  # of each edge
    target: NDArray[np.int64]  # state after each edge
    probability: NDArray[np.float64]  # of each edge, given its state
    lengths: NDArray[np.uint64]  # of each state: bit n is set if n more words can end the sentence


class Edges(NamedTuple):
    """The edges between two positions of a sentence; `source` and `target` number the states that are reached there."""

    source: NDArray[np.int64]
    word: NDArray[np.int32]
    target: NDArray[np.int64]
    probability: NDArray[np.float64]


def automaton_of(grammar: Grammar) -> Automaton:
    """Returns the automaton of a grammar, built from the ends of sentences to their start."""
    words = {text: index for index, text in enumerate(grammar.vocabulary)}
    states: dict[tuple, int] = {(): END}
    known: dict[tuple[int, int], Alternatives] = {}

    def state_of(alternatives: Alternatives) -> int:
        return states.setdefault(tuple(sorted(alternatives.items())), len(states))

    def edges_of(symbol: int, after: int) -> Alternatives:
        """The first words of a symbol that is followed by the state `after`."""
        if (symbol, after) not in known:
            known[symbol, after] = alternatives = {}
            for rule in grammar.rules.alternatives[symbol]:
                for edge, probability in edges_of_body(rule.body, after).items():
                    alternatives[edge] = alternatives.get(edge, 0.0) + rule.probability * probability
        return known[symbol, after]

    def edges_of_body(body: Sequence[Word | int], after: int) -> Alternatives:
        item, *following = body
        state = state_of(edges_of_body(following, after)) if following else after
        return {(words[item.text], state): 1.0} if isinstance(item, Word) else edges_of(item, state)

    start = state_of(edges_of(len(grammar.rules.labels) - 1, END))
    edges = list(itertools.chain(*states))
    first = np.cumsum([0, *map(len, states)])
    target = np.array([state for (_, state), _ in edges])
    lengths = np.zeros(len(states), np.uint64)
    lengths[END] = 1
    for state in range(1, len(states)):  # a state has a higher number than those that follow it
        after = lengths[target[first[state] : first[state + 1]]]
        lengths[state] = np.bitwise_or.reduce(after) << np.uint64(1)
    word = np.array([word for (word, _), _ in edges], np.int32)
    probability = np.array([probability for _, probability in edges])
    return Automaton(grammar.vocabulary, start, first, word, target, probability, lengths)


def masked_word_distributions(automaton: Automaton, pattern: Sequence[int | None]) -> NDArray[np.float64] | None:
    """Returns p(word at each position | the words of a sentence that are not masked, its length): [length, words].

    `pattern` holds the number of each word in `automaton.words`, None where it is masked. None if no sentence agrees
    with it.
    """
    states, steps = np.array([automaton.start]), list[Edges]()
    for position, known in enumerate(pattern):
        states, edges = _follow(automaton, states, known, len(pattern) - position - 1)
        steps.append(edges)
        if not len(states):
            return None
    forward: list[NDArray] = [np.ones(1)]
    for edges in steps[:-1]:
        forward.append(np.bincount(edges.target, forward[-1][edges.source] * edges.probability))
    backward: NDArray = np.ones(1)
    rows = list[NDArray]()
    for before, edges in zip(reversed(forward), reversed(steps), strict=True):
        weight = edges.probability * backward[edges.target]
        rows.append(np.bincount(edges.word, before[edges.source] * weight, minlength=len(automaton.words)))
        backward = np.bincount(edges.source, weight, minlength=len(before))
    table = np.stack(rows[::-1])
    return table / table.sum(-1, keepdims=True)


def _follow(
    automaton: Automaton, states: NDArray[np.int64], known: int | None, remaining: int
) -> tuple[NDArray[np.int64], Edges]:
    """Returns the states after one word from which `remaining` words can end the sentence, and the edges to them."""
    first, number = automaton.first[states], automaton.first[states + 1] - automaton.first[states]
    source = np.repeat(np.arange(len(states)), number)
    edge = np.arange(len(source)) - np.repeat(np.cumsum(number) - number, number) + np.repeat(first, number)
    possible = (automaton.lengths[automaton.target[edge]] >> np.uint64(remaining)) & np.uint64(1) > 0
    if known is not None:
        possible &= automaton.word[edge] == known
    source, edge = source[possible], edge[possible]
    after, target = np.unique(automaton.target[edge], return_inverse=True)
    return after, Edges(source, automaton.word[edge], target, automaton.probability[edge])
