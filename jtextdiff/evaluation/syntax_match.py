"""Syntax: how much a text has of the tags, the tree or the constituent that a control asks for, by the grammar."""

import functools
from collections import Counter, defaultdict
from collections.abc import Sequence

from jtextdiff.control.label_targets import span_of, tags_of, tree_of
from jtextdiff.data.grammar.chart_parser import Chart, openings
from jtextdiff.data.grammar.constituents import Stretch, stretches
from jtextdiff.data.grammar.restaurants import grammar, sentences

HOW = (
    "the grammar's derivation; of texts that have none, each word's usual tag, and those stretches asked for that its "
    "rules can derive, over as many as were asked for"
)


def met(name: str, value: str, words: Sequence[str]) -> float:
    """From 0 to 1: the share of tags that are right at their place, the F1 of the tree, whether a constituent is there.

    As Li et al. (2022, §6.2) score them, but that words beyond those asked for, or lacking, cost a tree its brackets.
    """
    member = grammar().parse(words)
    if name == "pos":
        wanted = tags_of(value)
        tags = member.tags if member is not None else [_usual_tags().get(word, "") for word in words]
        return sum(one == other for one, other in zip(wanted, tags, strict=False)) / len(wanted)
    asked = [span_of(value)] if name == "span" else tree_of(value)
    if member is None:
        chart = Chart(openings=_openings(), words=words)
        return sum(_derivable(each, chart) for each in asked) / len(asked)
    found = stretches(member.tree)
    if name == "span":
        of_words = [each.name for each in found if each[:2] == asked[0][:2]]
        return float(any(asked[0].name in (each, *each.split("::")) for each in of_words))
    return 2 * len(set(found) & set(asked)) / (len(found) + len(asked))


def _derivable(wanted: Stretch, chart: Chart) -> bool:
    """Whether some rule could have these words for this constituent."""
    symbols = _symbols()[wanted.name.split("::")[0]]
    return any(end == wanted.end for symbol in symbols for end, _ in chart.spans(symbol, wanted.start))


@functools.cache
def _usual_tags() -> dict[str, str]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for one in sentences(3_000, seed=2):
        for word, tag in zip(one.words, one.tags, strict=True):
            counts[word][tag] += 1
    return {word: tags.most_common(1)[0][0] for word, tags in counts.items()}


@functools.cache
def _openings() -> tuple:
    return openings(grammar().rules)


@functools.cache
def _symbols() -> dict[str, list[int]]:
    symbols: dict[str, list[int]] = defaultdict(list)
    for symbol, label in enumerate(grammar().rules.labels):
        symbols[label].append(symbol)
    return symbols
