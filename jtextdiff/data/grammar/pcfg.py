"""A probabilistic grammar: sampling, parsing, exact log-probability and entropy.

The unconditional distribution multiplies the probabilities of the rules of a derivation. The distribution of the
grammar conditions it on a number of words within limits. A sentence has one derivation, so
p(sentence) = p(derivation).
"""

import functools
import itertools
import math
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jtextdiff.data.grammar.chart_parser import RulesByFirstWord, Steps, derivations, rules_by_first_word
from jtextdiff.data.grammar.feature_rules import Rule, Rules, Word, attribute_values, expand, read_rules
from jtextdiff.data.grammar.inside_algorithm import inside

Tree = tuple["str | Tree", ...]
"""A label and its children: trees, or words as leaves."""


class Derivation(NamedTuple):
    """A sentence with its part-of-speech tags, its attributes (`fields`) and its parse tree."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    fields: dict[str, str]
    tree: Tree

    @property
    def text(self) -> str:
        return " ".join(self.words)


@dataclass(frozen=True, kw_only=True, eq=False)
class Grammar:
    """The distribution over the sentences of `rules` that have `shortest` to `longest` words.

    Raises:
      ValueError: from any method, if no sentence lies within the limits.
    """

    rules: Rules
    shortest: int = 4
    longest: int = 30

    def sample(self, rng: np.random.Generator) -> Derivation:
        """Draws one sentence. Rejects sentences that are too short or too long and draws again."""
        if not self._unnormalized(()) > 0:
            raise ValueError(f"no sentence has {self.shortest} to {self.longest} words")

        def draw(symbol: int) -> Rule:
            alternatives = self.rules.alternatives[symbol]
            if len(alternatives) == 1:
                return alternatives[0]
            return alternatives[bisect(self._thresholds[symbol], rng.random())]

        while True:
            derivation = self._derive(draw)
            if self.shortest <= len(derivation.words) <= self.longest:
                return derivation

    def parse(self, words: Sequence[str]) -> Derivation | None:
        """Returns the derivation of a sentence, or None if the grammar does not generate it.

        Raises:
          ValueError: if the sentence has several derivations, since p(sentence) would not be p(derivation).
        """
        steps = self._steps(tuple(words))
        if steps is None:
            return None
        remaining = iter(steps)
        return self._derive(lambda _: next(remaining))

    def __contains__(self, words: Sequence[str]) -> bool:
        return self._steps(tuple(words)) is not None

    def log_prob(self, words: Sequence[str], given: Mapping[str, str] | None = None) -> float:
        """Returns log p(sentence), or log p(sentence | attributes), in nats; -inf where the probability is 0.

        Raises:
          ValueError: if no sentence has the attributes `given`.
        """
        condition = dict(given or {})
        log_condition = self.log_marginal(condition)
        steps = self._steps(tuple(words))
        if steps is None or not all(_is_consistent(rule, condition) for rule in steps):
            return -math.inf
        return sum(math.log(rule.probability) for rule in steps) - math.log(self._unnormalized(())) - log_condition

    def log_marginal(self, given: Mapping[str, str]) -> float:
        """Returns log p(attributes) in nats; attributes that are not given are summed over.

        Raises:
          ValueError: for an unknown attribute, or if no sentence has them all.
        """
        for name in given:
            if name not in self.attributes:
                raise ValueError(f"unknown attribute {name!r}; the grammar has {', '.join(self.attributes)}")
        mass = self._unnormalized(tuple(sorted(given.items())))
        if not mass > 0:
            known = {name: self.attributes[name] for name in given}
            raise ValueError(f"no sentence has {dict(given)}; values: {known}")
        return math.log(mass) - math.log(self._unnormalized(()))

    def entropy(self) -> float:
        """Returns the exact entropy of a sentence, in nats."""
        plain, weighted = inside(self.rules, _with_log_probability, self.longest)[:, self.shortest :].sum(axis=1)
        return float(np.log(plain) - weighted / plain)

    def num_sentences(self) -> int:
        """Returns the exact number of different sentences."""
        return int(inside(self.rules, lambda _: (1,), self.longest)[0, self.shortest :].sum())

    def length_distribution(self) -> NDArray[np.float64]:
        """Returns p(number of words = n) for n = 0 ... longest."""
        (by_length,) = inside(self.rules, lambda rule: (rule.probability,), self.longest)
        by_length[: self.shortest] = 0.0
        return by_length / by_length.sum()

    @cached_property
    def attributes(self) -> dict[str, tuple[str, ...]]:
        """Every attribute with all its values."""
        return attribute_values(self.rules)

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """Every word of the rules, sorted."""
        return tuple(sorted(self.tags))

    @cached_property
    def tags(self) -> dict[str, frozenset[str]]:
        """The parts of speech of every word."""
        tags: dict[str, set[str]] = {}
        for word in itertools.chain(*map(_words_of, itertools.chain(*self.rules.alternatives))):
            tags.setdefault(word.text, set()).add(word.tag)
        return {text: frozenset(of_word) for text, of_word in tags.items()}

    @cached_property
    def rules_by_first_word(self) -> RulesByFirstWord:
        """The rules of each symbol by the words that they can begin with."""
        return rules_by_first_word(self.rules)

    def _steps(self, words: tuple[str, ...]) -> Steps | None:
        if not self.shortest <= len(words) <= self.longest:
            return None
        parses = derivations(self.rules_by_first_word, words)
        if len(parses) > 1:
            raise ValueError(f"{' '.join(words)!r} has {len(parses)} derivations; a sentence must have one")
        return parses[0] if parses else None

    def _derive(self, choose: Callable[[int], Rule]) -> Derivation:
        """Returns the leftmost derivation whose rule for each symbol is `choose(symbol)`, called in that order."""
        words: list[str] = []
        tags: list[str] = []
        fields: dict[str, str] = {}

        def expand_symbol(symbol: int) -> Tree:
            rule = choose(symbol)
            fields.update(rule.attributes)
            branches: list[str | Tree] = [self.rules.labels[symbol]]
            for item in rule.body:
                if isinstance(item, int):
                    branches.append(expand_symbol(item))
                else:
                    words.append(item.text)
                    tags.append(item.tag)
                    branches.append(item.text)
            return tuple(branches)

        tree = expand_symbol(len(self.rules.labels) - 1)
        return Derivation(tuple(words), tuple(tags), dict(sorted(fields.items())), tree)

    @cached_property
    def _thresholds(self) -> tuple[list[float], ...]:
        """The upper ends of the alternatives in [0, 1). The last end is left out because rounding could miss 1."""
        return tuple(
            list(itertools.accumulate(rule.probability for rule in rules[:-1])) for rules in self.rules.alternatives
        )

    @cached_property
    def _unnormalized(self) -> Callable[[tuple[tuple[str, str], ...]], float]:
        """The unconditional probability that the length lies within limits and the given attributes hold; cached."""

        def probability(given: tuple[tuple[str, str], ...]) -> float:
            condition = dict(given)

            def weigh(rule: Rule) -> tuple[float]:
                return (rule.probability * _is_consistent(rule, condition),)

            by_length = inside(self.rules, weigh, self.longest)
            return float(by_length[0, self.shortest :].sum())

        return functools.cache(probability)


def grammar_from_text(
    text: str, *, start: str, groups: Sequence[str] = (), tags: Mapping[str, str], shortest: int, longest: int
) -> Grammar:
    """Returns the grammar written in `text`, in the notation of `feature_rules`.

    Raises:
      ValueError: for rules that cannot be read or do not set each attribute exactly once.
    """
    return Grammar(rules=expand(read_rules(text, tags), start, groups), shortest=shortest, longest=longest)


def _is_consistent(rule: Rule, condition: Mapping[str, str]) -> bool:
    return all(condition.get(name, value) == value for name, value in rule.attributes)


def _with_log_probability(rule: Rule) -> tuple[float, float]:
    return rule.probability, rule.probability * math.log(rule.probability)


def _words_of(rule: Rule) -> list[Word]:
    return [item for item in rule.body if isinstance(item, Word)]
