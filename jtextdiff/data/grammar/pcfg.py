"""A finite probabilistic grammar as an exact law over sentences: sample, parse, log-probability, entropy, counts.

The raw law multiplies the probabilities of the rules of a derivation; the law of the grammar is the raw law given
that the number of words lies within limits. Sentences have one derivation each, so p(sentence) = p(derivation).
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

from jtextdiff.data.grammar import chart_parser as parsing
from jtextdiff.data.grammar.feature_rules import Rule, Rules, Word, attributes, expand, read
from jtextdiff.data.grammar.inside_algorithm import inside

Tree = tuple["str | Tree", ...]
"""A label and its children: trees, or words as leaves."""


class Derivation(NamedTuple):
    """A sentence with all that its one derivation says of it."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    fields: dict[str, str]
    tree: Tree

    @property
    def text(self) -> str:
        return " ".join(self.words)


@dataclass(frozen=True, kw_only=True, eq=False)
class Grammar:
    """The law of the sentences of `rules` that have `shortest` to `longest` words.

    Raises:
      ValueError: from any method, if no sentence lies within the limits.
    """

    rules: Rules
    shortest: int = 4
    longest: int = 30

    def sample(self, rng: np.random.Generator) -> Derivation:
        """Draws one sentence; too short and too long ones are drawn anew."""
        if not self._mass(()) > 0:
            raise ValueError(f"no sentence has {self.shortest} to {self.longest} words")

        def draw(symbol: int) -> Rule:
            alternatives = self.rules.alternatives[symbol]
            if len(alternatives) == 1:
                return alternatives[0]
            return alternatives[bisect(self._thresholds[symbol], rng.random())]

        while True:
            derivation = self._grow(draw)
            if self.shortest <= len(derivation.words) <= self.longest:
                return derivation

    def parse(self, words: Sequence[str]) -> Derivation | None:
        """The derivation of a sentence, None for a non-member.

        Raises:
          ValueError: if the sentence has several derivations: the grammar is then no law over sentences.
        """
        steps = self._steps(tuple(words))
        if steps is None:
            return None
        chosen = iter(steps)
        return self._grow(lambda _: next(chosen))

    def __contains__(self, words: Sequence[str]) -> bool:
        return self._steps(tuple(words)) is not None

    def log_prob(self, words: Sequence[str], given: Mapping[str, str] | None = None) -> float:
        """log p(sentence), or log p(sentence | attributes), in nats; -inf for what cannot be.

        Raises:
          ValueError: if no sentence has the attributes `given`.
        """
        wanted = dict(given or {})
        log_given = self.log_marginal(wanted)
        steps = self._steps(tuple(words))
        if steps is None or not all(_agrees(rule, wanted) for rule in steps):
            return -math.inf
        return sum(math.log(rule.probability) for rule in steps) - math.log(self._mass(())) - log_given

    def log_marginal(self, given: Mapping[str, str]) -> float:
        """log p(attributes) in nats; those that are not given are summed over.

        Raises:
          ValueError: for an unknown attribute, or if no sentence has them all.
        """
        for name in given:
            if name not in self.attributes:
                raise ValueError(f"unknown attribute {name!r}; the grammar has {', '.join(self.attributes)}")
        mass = self._mass(tuple(sorted(given.items())))
        if not mass > 0:
            known = {name: self.attributes[name] for name in given}
            raise ValueError(f"no sentence has {dict(given)}; values: {known}")
        return math.log(mass) - math.log(self._mass(()))

    def entropy(self) -> float:
        """The entropy of a sentence, in nats, exact."""
        plain, weighted = inside(self.rules, _with_logarithm, self.longest)[:, self.shortest :].sum(axis=1)
        return float(np.log(plain) - weighted / plain)

    def num_sentences(self) -> int:
        """The number of different sentences, exact."""
        return int(inside(self.rules, lambda _: (1,), self.longest)[0, self.shortest :].sum())

    def length_law(self) -> NDArray[np.float64]:
        """p(number of words = n) for n = 0 ... longest."""
        (law,) = inside(self.rules, lambda rule: (rule.probability,), self.longest)
        law[: self.shortest] = 0.0
        return law / law.sum()

    @cached_property
    def attributes(self) -> dict[str, tuple[str, ...]]:
        """Every attribute with all its values."""
        return attributes(self.rules)

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """Every word of the rules, sorted."""
        return tuple(sorted({w.text for r in itertools.chain(*self.rules.alternatives) for w in _own_words(r)}))

    def _steps(self, words: tuple[str, ...]) -> parsing.Steps | None:
        if not self.shortest <= len(words) <= self.longest:
            return None
        found = parsing.derivations(self._openings, words)
        if len(found) > 1:
            raise ValueError(f"{' '.join(words)!r} has {len(found)} derivations; a sentence must have one")
        return found[0] if found else None

    def _grow(self, choose: Callable[[int], Rule]) -> Derivation:
        """The derivation that follows from a choice of rule for each symbol, asked for from left to right."""
        words: list[str] = []
        tags: list[str] = []
        fields: dict[str, str] = {}

        def grow(symbol: int) -> Tree:
            rule = choose(symbol)
            fields.update(rule.sets)
            branches: list[str | Tree] = [self.rules.labels[symbol]]
            for item in rule.body:
                if isinstance(item, int):
                    branches.append(grow(item))
                else:
                    words.append(item.text)
                    tags.append(item.tag)
                    branches.append(item.text)
            return tuple(branches)

        tree = grow(len(self.rules.labels) - 1)
        return Derivation(tuple(words), tuple(tags), dict(sorted(fields.items())), tree)

    @cached_property
    def _openings(self) -> parsing.Openings:
        return parsing.openings(self.rules)

    @cached_property
    def _thresholds(self) -> tuple[list[float], ...]:
        """The upper ends of the alternatives in [0, 1), the last left open against rounding."""
        return tuple(
            list(itertools.accumulate(rule.probability for rule in rules[:-1])) for rules in self.rules.alternatives
        )

    @cached_property
    def _mass(self) -> Callable[[tuple[tuple[str, str], ...]], float]:
        """The raw probability of the length limits and of the given attributes, remembered."""

        def mass(given: tuple[tuple[str, str], ...]) -> float:
            wanted = dict(given)
            by_length = inside(self.rules, lambda rule: (rule.probability * _agrees(rule, wanted),), self.longest)
            return float(by_length[0, self.shortest :].sum())

        return functools.cache(mass)


def build(
    text: str, *, start: str, groups: Sequence[str] = (), tags: Mapping[str, str], shortest: int, longest: int
) -> Grammar:
    """The grammar written in `text` (see `rules` for the notation).

    Raises:
      ValueError: for rules that cannot be read or do not tell each attribute exactly once.
    """
    return Grammar(rules=expand(read(text, tags), start, groups), shortest=shortest, longest=longest)


def _agrees(rule: Rule, wanted: Mapping[str, str]) -> bool:
    return all(wanted.get(name, value) == value for name, value in rule.sets)


def _with_logarithm(rule: Rule) -> tuple[float, float]:
    return rule.probability, rule.probability * math.log(rule.probability)


def _own_words(rule: Rule) -> list[Word]:
    return [item for item in rule.body if isinstance(item, Word)]
