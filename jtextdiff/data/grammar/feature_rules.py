"""Rules with features, written as text, and their expansion into a plain finite grammar.

A grammar is written in blocks: a symbol (with the tag of its own words, if they share one) and, indented under it,
its alternatives, `[conditions] weight: body {attribute=value; ...} | body | ...`. A body holds words and calls
`<symbol value -value>`. Every symbol sees the feature values of its caller, with those that its call adds and
removes; an alternative applies if each of its conditions holds (`value` is there, `-value` is not). Values that
exclude each other, such as singular and plural, form a group: adding one removes the others.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

_LINE = re.compile(r"(?:\[(?P<when>[^]]*)\]\s*)?(?:(?P<weight>[\d.]+):\s+)?(?P<bodies>.*)")
_ITEM = re.compile(r"<([^>]*)>|\{([^}]*)\}|(\S+)")


class Word(NamedTuple):
    """A word as it is written, with its universal part-of-speech tag."""

    text: str
    tag: str


class Call(NamedTuple):
    """The mention of a symbol in a body, with the feature values it is given and denied."""

    symbol: str
    given: frozenset[str]
    denied: frozenset[str]


class Schema(NamedTuple):
    """One written alternative of a symbol: it applies where `needs` are present and `bars` absent."""

    needs: frozenset[str]
    bars: frozenset[str]
    weight: float
    body: tuple[Word | Call, ...]
    sets: tuple[tuple[str, str], ...]


class Rule(NamedTuple):
    """One plain alternative: its probability, its words and child symbols (by index), what it tells."""

    probability: float
    body: tuple[Word | int, ...]
    sets: tuple[tuple[str, str], ...]


class Rules(NamedTuple):
    """A plain grammar. Symbols are indices, children before parents: the last one is the start."""

    labels: tuple[str, ...]
    alternatives: tuple[tuple[Rule, ...], ...]


def signed(values: Sequence[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Splits `value -other` into what is present and what is absent."""
    present = frozenset(value for value in values if not value.startswith("-"))
    return present, frozenset(value[1:] for value in values if value.startswith("-"))


def read(text: str, tags: Mapping[str, str]) -> dict[str, list[Schema]]:
    """Reads written blocks; `tags` gives the tag of each word that stands in a block without a tag of its own.

    Raises:
      ValueError: for a word without a tag, or an alternative before the first symbol.
    """
    schemas: dict[str, list[Schema]] = {}
    symbol, default = "", ""
    for line in filter(str.strip, text.splitlines()):
        if not line[0].isspace():
            symbol, _, default = line.strip().partition(" ")
            schemas.setdefault(symbol, [])
        elif not symbol:
            raise ValueError(f"alternative {line.strip()!r} stands before any symbol; begin with a symbol's name")
        else:
            schemas[symbol] += _read_line(line.strip(), default, tags)
    return schemas


def _read_line(line: str, default: str, tags: Mapping[str, str]) -> list[Schema]:
    match = _LINE.fullmatch(line)
    assert match is not None  # every part of the pattern is optional
    needs, bars = signed((match["when"] or "").split())
    weight = float(match["weight"] or 1)
    return [Schema(needs, bars, weight, *_read_body(body, default, tags)) for body in match["bodies"].split(" | ")]


def _read_body(
    text: str, default: str, tags: Mapping[str, str]
) -> tuple[tuple[Word | Call, ...], tuple[tuple[str, str], ...]]:
    body: list[Word | Call] = []
    sets: list[tuple[str, str]] = []
    for call, told, written in _ITEM.findall(text):
        if call:
            symbol, *values = call.split()
            body.append(Call(symbol, *signed(values)))
        elif told:
            pairs = (pair.partition("=") for pair in told.split(";"))
            sets += [(name.strip(), value.strip()) for name, _, value in pairs]
        else:
            word, _, tag = written.partition("/")
            tag = tag or default or tags.get(word, "")
            if not tag:
                raise ValueError(f"word {word!r} in {text!r} has no tag; write {word}/TAG or add it to the table")
            body.append(Word(word, tag))
    return tuple(body), tuple(sets)


def _relevant(schemas: Mapping[str, Sequence[Schema]]) -> dict[str, frozenset[str]]:
    """The feature values that matter below each symbol; to drop all others keeps the plain grammar small.

    The least fixed point: what a symbol's alternatives test, and what matters below their calls unless set there.
    """
    relevant: dict[str, frozenset[str]] = {symbol: frozenset() for symbol in schemas}
    while True:
        grown = {
            symbol: frozenset().union(
                *(s.needs | s.bars for s in alternatives),
                *(relevant[c.symbol] - c.given - c.denied for s in alternatives for c in _calls(s)),
            )
            for symbol, alternatives in schemas.items()
        }
        if grown == relevant:
            return relevant
        relevant = grown


def _calls(schema: Schema) -> list[Call]:
    return [item for item in schema.body if isinstance(item, Call)]


@dataclass(frozen=True, kw_only=True)
class _Expansion:
    """The plain grammar as it grows: written symbols with feature values, and the index that each one got."""

    schemas: Mapping[str, Sequence[Schema]]
    relevant: Mapping[str, frozenset[str]]
    rivals: Mapping[str, frozenset[str]]
    labels: list[str] = field(default_factory=list)
    alternatives: list[tuple[Rule, ...]] = field(default_factory=list)
    index: dict[tuple[str, frozenset[str]], int | None] = field(default_factory=dict)

    def visit(self, symbol: str, env: frozenset[str]) -> int:
        """The index of a symbol with the feature values `env`; its children are visited first."""
        if (symbol, env) not in self.index:
            self.index[symbol, env] = None
            fitting = [s for s in self.schemas[symbol] if s.needs <= env and s.bars.isdisjoint(env)]
            if not fitting:
                raise ValueError(f"<{symbol}> has no alternative for the values {sorted(env)}; add one")
            total = sum(schema.weight for schema in fitting)
            rules = tuple(Rule(s.weight / total, self._children(s, env), s.sets) for s in fitting)
            self.labels.append(symbol)
            self.alternatives.append(rules)
            self.index[symbol, env] = len(self.labels) - 1
        index = self.index[symbol, env]
        if index is None:
            raise ValueError(f"<{symbol}> with the values {sorted(env)} contains itself; a grammar must be finite")
        return index

    def _children(self, schema: Schema, env: frozenset[str]) -> tuple[Word | int, ...]:
        return tuple(
            item if isinstance(item, Word) else self.visit(item.symbol, self._seen(env, item)) for item in schema.body
        )

    def _seen(self, env: frozenset[str], call: Call) -> frozenset[str]:
        """The feature values that a called symbol sees."""
        lost = call.denied.union(*(self.rivals.get(value, frozenset()) for value in call.given))
        return ((env - lost) | call.given) & self.relevant[call.symbol]


def expand(schemas: Mapping[str, Sequence[Schema]], start: str, groups: Sequence[str]) -> Rules:
    """The plain grammar: one symbol for each pair of a written symbol and the feature values that matter to it.

    Each of `groups` lists values that exclude each other.

    Raises:
      ValueError: if a called symbol is not written, a symbol has no alternative for values that reach it or contains
        itself, or some derivation would not tell each attribute exactly once.
    """
    called = {call.symbol for alternatives in schemas.values() for s in alternatives for call in _calls(s)}
    if unknown := (called | {start}) - schemas.keys():
        raise ValueError(f"symbols without alternatives: {sorted(unknown)}; written ones: {sorted(schemas)}")
    split = [frozenset(group.split()) for group in groups]
    rivals = {value: group - {value} for group in split for value in group}
    expansion = _Expansion(schemas=schemas, relevant=_relevant(schemas), rivals=rivals)
    expansion.visit(start, frozenset())
    rules = Rules(tuple(expansion.labels), tuple(expansion.alternatives))
    attributes(rules)
    return rules


def attributes(rules: Rules) -> dict[str, tuple[str, ...]]:
    """Every attribute with its possible values, sorted.

    Raises:
      ValueError: if a derivation could leave an attribute untold or tell it twice.
    """
    told: list[frozenset[str]] = []
    values: dict[str, set[str]] = {}
    for label, alternatives in zip(rules.labels, rules.alternatives, strict=True):
        outcomes = set()
        for rule in alternatives:
            names = [name for name, _ in rule.sets]
            names += [name for item in rule.body if isinstance(item, int) for name in told[item]]
            if len(names) != len(set(names)):
                raise ValueError(f"<{label}> tells an attribute twice in {rule.body}: {sorted(names)}")
            outcomes.add(frozenset(names))
            for name, value in rule.sets:
                values.setdefault(name, set()).add(value)
        if len(outcomes) > 1:
            raise ValueError(f"the alternatives of <{label}> tell different attributes: {outcomes}")
        told.append(outcomes.pop())
    return {name: tuple(sorted(values[name])) for name in sorted(told[-1])}
