"""Grammar rules with features, read from text and expanded into a plain finite grammar.

A grammar is written in blocks: a symbol (with the tag of its own words, if they share one) and, indented under it,
its alternatives, `[conditions] weight: body {attribute=value; ...} | body | ...`. A body holds words and calls
`<symbol value -value>`. Every symbol inherits the feature values of its caller, with those that its call adds and
removes; an alternative applies if each of its conditions holds (`value` is there, `-value` is not). Values that
exclude each other, such as singular and plural, form a group: adding one removes the others.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

_LINE = re.compile(r"(?:\[(?P<conditions>[^]]*)\]\s*)?(?:(?P<weight>[\d.]+):\s+)?(?P<bodies>.*)")
_ITEM = re.compile(r"<([^>]*)>|\{([^}]*)\}|(\S+)")


class Word(NamedTuple):
    """A word as it is written, with its universal part-of-speech tag."""

    text: str
    tag: str


class Call(NamedTuple):
    """A symbol in a body, with the feature values that the call adds and removes."""

    symbol: str
    added: frozenset[str]
    removed: frozenset[str]


class Schema(NamedTuple):
    """One written alternative of a symbol. It applies where all of `required` and none of `excluded` are present."""

    required: frozenset[str]
    excluded: frozenset[str]
    weight: float
    body: tuple[Word | Call, ...]
    attributes: tuple[tuple[str, str], ...]


class Rule(NamedTuple):
    """One plain alternative: its probability, its words and child symbols (by index), the attributes it sets."""

    probability: float
    body: tuple[Word | int, ...]
    attributes: tuple[tuple[str, str], ...]


class Rules(NamedTuple):
    """A plain grammar. Symbols are indices, children before parents: the last one is the start."""

    labels: tuple[str, ...]
    alternatives: tuple[tuple[Rule, ...], ...]


def read_rules(text: str, tags: Mapping[str, str]) -> dict[str, list[Schema]]:
    """Reads written blocks. `tags` maps a word to its tag, for blocks that have no tag of their own.

    Raises:
      ValueError: for a word without a tag, or an alternative before the first symbol.
    """
    schemas: dict[str, list[Schema]] = {}
    symbol, block_tag = "", ""
    for line in filter(str.strip, text.splitlines()):
        if not line[0].isspace():
            symbol, _, block_tag = line.strip().partition(" ")
            schemas.setdefault(symbol, [])
        elif not symbol:
            raise ValueError(f"alternative {line.strip()!r} comes before any symbol; begin with a symbol's name")
        else:
            schemas[symbol] += _read_line(line.strip(), block_tag, tags)
    return schemas


def _read_line(line: str, block_tag: str, tags: Mapping[str, str]) -> list[Schema]:
    match = _LINE.fullmatch(line)
    assert match is not None  # every part of the pattern is optional
    required, excluded = _split_by_sign((match["conditions"] or "").split())
    weight = float(match["weight"] or 1)
    bodies = (_read_body(body, block_tag, tags) for body in match["bodies"].split(" | "))
    return [Schema(required, excluded, weight, *body) for body in bodies]


def _read_body(
    text: str, block_tag: str, tags: Mapping[str, str]
) -> tuple[tuple[Word | Call, ...], tuple[tuple[str, str], ...]]:
    """Returns (words and calls, attributes) of one body."""
    body: list[Word | Call] = []
    attributes: list[tuple[str, str]] = []
    for call, assignments, token in _ITEM.findall(text):
        if call:
            symbol, *values = call.split()
            body.append(Call(symbol, *_split_by_sign(values)))
        elif assignments:
            pairs = (pair.partition("=") for pair in assignments.split(";"))
            attributes += [(name.strip(), value.strip()) for name, _, value in pairs]
        else:
            word, _, tag = token.partition("/")
            tag = tag or block_tag or tags.get(word, "")
            if not tag:
                raise ValueError(f"word {word!r} in {text!r} has no tag; write {word}/TAG or add it to the table")
            body.append(Word(word, tag))
    return tuple(body), tuple(attributes)


def _split_by_sign(values: Sequence[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Splits `value -other` into (values without a minus sign, values with one)."""
    plain = frozenset(value for value in values if not value.startswith("-"))
    return plain, frozenset(value[1:] for value in values if value.startswith("-"))


def expand(schemas: Mapping[str, Sequence[Schema]], start: str, groups: Sequence[str]) -> Rules:
    """Returns the plain grammar: one symbol per pair of a written symbol and the feature values relevant to it.

    Each of `groups` lists values that exclude each other.

    Raises:
      ValueError: if a called symbol is not written, a symbol has no alternative for values that reach it or contains
        itself, or some derivation would not set each attribute exactly once.
    """
    called = {call.symbol for alternatives in schemas.values() for s in alternatives for call in _calls(s)}
    if unknown := (called | {start}) - schemas.keys():
        raise ValueError(f"symbols without alternatives: {sorted(unknown)}; written ones: {sorted(schemas)}")
    value_groups = [frozenset(group.split()) for group in groups]
    incompatible = {value: group - {value} for group in value_groups for value in group}
    expansion = _Expansion(schemas=schemas, relevant=_relevant_features(schemas), incompatible=incompatible)
    expansion.visit(start, frozenset())
    rules = Rules(tuple(expansion.labels), tuple(expansion.alternatives))
    attribute_values(rules)
    return rules


def attribute_values(rules: Rules) -> dict[str, tuple[str, ...]]:
    """Returns every attribute with its possible values, sorted.

    Raises:
      ValueError: if a derivation could leave an attribute unset or set it twice.
    """
    set_below: list[frozenset[str]] = []  # for each symbol, the attributes that each of its derivations sets
    values: dict[str, set[str]] = {}
    for label, alternatives in zip(rules.labels, rules.alternatives, strict=True):
        outcomes = set()
        for rule in alternatives:
            names = [name for name, _ in rule.attributes]
            names += [name for item in rule.body if isinstance(item, int) for name in set_below[item]]
            if len(names) != len(set(names)):
                raise ValueError(f"<{label}> sets an attribute twice in {rule.body}: {sorted(names)}")
            outcomes.add(frozenset(names))
            for name, value in rule.attributes:
                values.setdefault(name, set()).add(value)
        if len(outcomes) > 1:
            raise ValueError(f"the alternatives of <{label}> set different attributes: {outcomes}")
        set_below.append(outcomes.pop())
    return {name: tuple(sorted(values[name])) for name in sorted(set_below[-1])}


def _relevant_features(schemas: Mapping[str, Sequence[Schema]]) -> dict[str, frozenset[str]]:
    """Returns, for each symbol, the feature values that matter below it. All others are dropped, which keeps the
    plain grammar small.

    The least fixed point: what a symbol's alternatives test, and what matters below their calls unless set there.
    """
    relevant: dict[str, frozenset[str]] = {symbol: frozenset() for symbol in schemas}
    while True:
        larger = {
            symbol: frozenset().union(
                *(s.required | s.excluded for s in alternatives),
                *(relevant[c.symbol] - c.added - c.removed for s in alternatives for c in _calls(s)),
            )
            for symbol, alternatives in schemas.items()
        }
        if larger == relevant:
            return relevant
        relevant = larger


def _calls(schema: Schema) -> list[Call]:
    return [item for item in schema.body if isinstance(item, Call)]


@dataclass(frozen=True, kw_only=True)
class _Expansion:
    """The plain grammar under construction. `index` maps (written symbol, feature values) to the plain symbol.

    An index of None marks a symbol whose children are being visited.
    """

    schemas: Mapping[str, Sequence[Schema]]
    relevant: Mapping[str, frozenset[str]]
    incompatible: Mapping[str, frozenset[str]]
    labels: list[str] = field(default_factory=list)
    alternatives: list[tuple[Rule, ...]] = field(default_factory=list)
    index: dict[tuple[str, frozenset[str]], int | None] = field(default_factory=dict)

    def visit(self, symbol: str, features: frozenset[str]) -> int:
        """Returns the index of a symbol with these feature values; visits its children first."""
        if (symbol, features) not in self.index:
            self.index[symbol, features] = None
            matches = [s for s in self.schemas[symbol] if s.required <= features and s.excluded.isdisjoint(features)]
            if not matches:
                raise ValueError(f"<{symbol}> has no alternative for the values {sorted(features)}; add one")
            total = sum(schema.weight for schema in matches)
            rules = tuple(Rule(s.weight / total, self._children(s, features), s.attributes) for s in matches)
            self.labels.append(symbol)
            self.alternatives.append(rules)
            self.index[symbol, features] = len(self.labels) - 1
        index = self.index[symbol, features]
        if index is None:
            raise ValueError(f"<{symbol}> with the values {sorted(features)} contains itself; a grammar must be finite")
        return index

    def _children(self, schema: Schema, features: frozenset[str]) -> tuple[Word | int, ...]:
        return tuple(
            item if isinstance(item, Word) else self.visit(item.symbol, self._inherited(features, item))
            for item in schema.body
        )

    def _inherited(self, features: frozenset[str], call: Call) -> frozenset[str]:
        """Returns the relevant feature values that a called symbol inherits."""
        dropped = call.removed.union(*(self.incompatible.get(value, frozenset()) for value in call.added))
        return ((features - dropped) | call.added) & self.relevant[call.symbol]
