"""Syntax: how much a text has of the tags, the tree or the constituent that a control asks for, by the grammar."""

import functools
from collections import Counter, defaultdict
from collections.abc import Sequence

from jtextdiff.run.targets import span_of, tags_of, tree_of
from jtextdiff.text.annotations import Stretch, stretches
from jtextdiff.text.parsing import Chart, openings
from jtextdiff.text.restaurants import grammar, sentences

HOW = (
    "the grammar's derivation; of texts that have none, each word's usual tag, and those stretches asked for that its "
    "rules can derive, over as many as were asked for"
)


def met(name: str, value: str, words: Sequence[str]) -> float:
    """From 0 to 1: the share of tags that are right at their place, the F1 of the tree, whether a constituent is there.

    As Li et al. (2022, §6.2) score them, but that words beyond those asked for, or lacking, cost a tree its brackets.
    """
    if name == "pos":
        wanted = tags_of(value)
        return sum(one == other for one, other in zip(wanted, _tags(tuple(words)), strict=False)) / len(wanted)
    if name == "span":
        return float(_there(span_of(value), words))
    asked, member = tree_of(value), grammar().parse(words)
    if member is None:
        return sum(_there(each, words) for each in asked) / len(asked)
    found = set(stretches(member.tree))
    return 2 * len(found & set(asked)) / (len(found) + len(asked))


def _tags(words: tuple[str, ...]) -> tuple[str, ...]:
    member = grammar().parse(words)
    return member.tags if member is not None else tuple(_usual_tags().get(word, "") for word in words)


def _there(wanted: Stretch, words: Sequence[str]) -> bool:
    """Whether the words are this constituent, by the derivation of a member, or as any rule could have it."""
    member = grammar().parse(words)
    if member is not None:
        of_tree = [each for each in stretches(member.tree) if each[:2] == wanted[:2]]
        return any(wanted.name in (each.name, *each.name.split("::")) for each in of_tree)
    outermost = wanted.name.split("::")[0]
    chart = Chart(openings=_openings(), words=words)
    ends = (end for symbol in _symbols()[outermost] for end, _ in chart.spans(symbol, wanted.start))
    return any(end == wanted.end for end in ends)


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
