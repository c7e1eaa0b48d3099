"""Top-down chart parsing: every derivation of a sentence by a plain grammar, as the rules chosen from left to right."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from jtextdiff.data.grammar.feature_rules import Rule, Rules, Word

Steps = tuple[Rule, ...]
Openings = tuple[Mapping[str, tuple[Rule, ...]], ...]


def openings(rules: Rules) -> Openings:
    """For each symbol, the alternatives that can begin with a given word: what makes parsing nearly deterministic."""
    table: list[dict[str, tuple[Rule, ...]]] = []
    for alternatives in rules.alternatives:
        begun: dict[str, tuple[Rule, ...]] = {}
        for rule in alternatives:
            first = rule.body[0]
            for word in (first.text,) if isinstance(first, Word) else table[first]:
                begun[word] = (*begun.get(word, ()), rule)
        table.append(begun)
    return tuple(table)


@dataclass(frozen=True, kw_only=True)
class Chart:
    """The parts of one sentence found so far: for a symbol and a position, where it may end and how."""

    openings: Openings
    words: Sequence[str]
    found: dict[tuple[int, int], list[tuple[int, Steps]]] = field(default_factory=dict)

    def spans(self, symbol: int, start: int) -> list[tuple[int, Steps]]:
        """All (end, steps) of `symbol` over words[start:end]."""
        key = symbol, start
        if key not in self.found:
            word = self.words[start] if start < len(self.words) else ""
            self.found[key] = [
                (end, (rule, *steps))
                for rule in self.openings[symbol].get(word, ())
                for end, steps in self._match(rule.body, start)
            ]
        return self.found[key]

    def _match(self, body: Sequence[Word | int], start: int) -> Iterator[tuple[int, Steps]]:
        """All (end, steps) of the items of `body`, one after the other, from `start` on."""
        if not body:
            yield start, ()
        elif isinstance(item := body[0], Word):
            if start < len(self.words) and self.words[start] == item.text:
                yield from self._match(body[1:], start + 1)
        else:
            for middle, left in self.spans(item, start):
                for end, right in self._match(body[1:], middle):
                    yield end, left + right


def derivations(openings: Openings, words: Sequence[str]) -> list[Steps]:
    """Every derivation of the whole sentence: the rules chosen, in the order in which they are met."""
    chart = Chart(openings=openings, words=words)
    return [steps for end, steps in chart.spans(len(openings) - 1, 0) if end == len(words)]
