"""Top-down chart parser: every derivation of a sentence under a plain grammar, or where it goes wrong."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from jtextdiff.data.grammar.feature_rules import Rule, Rules, Word

Steps = tuple[Rule, ...]
"""The rules of a leftmost derivation, in the order in which they are applied."""

RulesByFirstWord = tuple[Mapping[str, tuple[Rule, ...]], ...]
"""For each symbol: first word -> the alternatives that can begin with it."""


def rules_by_first_word(rules: Rules) -> RulesByFirstWord:
    """Returns the alternatives of each symbol, grouped by the words that they can begin with.

    A parser that looks one word ahead in this table is nearly deterministic.
    """
    table: list[dict[str, tuple[Rule, ...]]] = []
    for alternatives in rules.alternatives:
        by_word: dict[str, tuple[Rule, ...]] = {}
        for rule in alternatives:
            first = rule.body[0]
            for word in (first.text,) if isinstance(first, Word) else table[first]:
                by_word[word] = (*by_word.get(word, ()), rule)
        table.append(by_word)
    return tuple(table)


@dataclass(frozen=True, kw_only=True)
class Chart:
    """The memo of one sentence's parse: (symbol, start) -> all (end, steps).

    `expected`: position -> the words of the grammar that were tried there and are not those of the sentence.
    """

    rules_by_first_word: RulesByFirstWord
    words: Sequence[str]
    memo: dict[tuple[int, int], list[tuple[int, Steps]]] = field(default_factory=dict)
    expected: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))

    def spans(self, symbol: int, start: int) -> list[tuple[int, Steps]]:
        """Returns all (end, steps) such that `symbol` derives words[start:end]."""
        key = symbol, start
        if key not in self.memo:
            word = self.words[start] if start < len(self.words) else ""
            if word not in self.rules_by_first_word[symbol]:
                self.expected[start] |= self.rules_by_first_word[symbol].keys()
            self.memo[key] = [
                (end, (rule, *steps))
                for rule in self.rules_by_first_word[symbol].get(word, ())
                for end, steps in self._match(rule.body, start)
            ]
        return self.memo[key]

    def _match(self, body: Sequence[Word | int], start: int) -> Iterator[tuple[int, Steps]]:
        """Yields all (end, steps) such that the items of `body`, in sequence, derive words[start:end]."""
        if not body:
            yield start, ()
        elif isinstance(item := body[0], Word):
            if start < len(self.words) and self.words[start] == item.text:
                yield from self._match(body[1:], start + 1)
            else:
                self.expected[start].add(item.text)
        else:
            for middle, first_steps in self.spans(item, start):
                for end, next_steps in self._match(body[1:], middle):
                    yield end, first_steps + next_steps


def derivations(rules_by_first_word: RulesByFirstWord, words: Sequence[str]) -> list[Steps]:
    """Returns every derivation of the whole sentence, each as the rules of a leftmost derivation."""
    chart = Chart(rules_by_first_word=rules_by_first_word, words=words)
    return [steps for end, steps in chart.spans(len(rules_by_first_word) - 1, 0) if end == len(words)]


def first_error(rules_by_first_word: RulesByFirstWord, words: Sequence[str]) -> tuple[int, set[str]]:
    """Returns the first position at which no sentence goes on as this one does, and the words that could stand there.

    The words before the position begin some sentence. There are no words if those before it are a whole sentence that
    cannot go on. For a sentence of the grammar, the position is its length.
    """
    chart = Chart(rules_by_first_word=rules_by_first_word, words=words)
    ends = [end for end, _ in chart.spans(len(rules_by_first_word) - 1, 0)]
    position = max([0, *ends, *chart.expected])
    return position, chart.expected.get(position, set())
