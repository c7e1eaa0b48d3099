"""Tag accuracy, tree F1 and span match by the grammar."""

import functools
from collections import Counter, defaultdict
from collections.abc import Sequence

from jtextdiff.control.label_targets import span_of, tags_of, tree_of
from jtextdiff.data.grammar.chart_parser import Chart
from jtextdiff.data.grammar.constituents import Constituent, constituents_of
from jtextdiff.data.grammar.pcfg import Derivation, Grammar
from jtextdiff.data.grammar.restaurants import sentences

HOW = (
    "the grammar's derivation; of texts that have none, each word's usual tag, and the share of required constituents "
    "that its rules can derive"
)


def syntax_match(grammar: Grammar, control: str, value: str, words: Sequence[str]) -> float:
    """Returns how far a text has the syntax of a control, `pos`, `tree` or `span`, from 0 to 1.

    The share of correct tags; the F1 of the tree's brackets; 1 if the constituent is there. As Li et al. (2022, §6.2),
    except that extra or missing words cost a tree its brackets. For a text that the grammar does not derive, see HOW.
    """
    derivation = grammar.parse(words)
    if control == "pos":
        return _tag_accuracy(tags_of(value), derivation.tags if derivation else _usual_tags_of(words))
    targets = [span_of(value)] if control == "span" else tree_of(value)
    if derivation is None:
        chart = Chart(rules_by_first_word=grammar.rules_by_first_word, words=words)
        return sum(_derivable(target, chart, grammar) for target in targets) / len(targets)
    return _span_match(targets[0], derivation) if control == "span" else _tree_f1(targets, derivation)


def _tag_accuracy(target: Sequence[str], tags: Sequence[str]) -> float:
    return sum(wanted_tag == tag for wanted_tag, tag in zip(target, tags, strict=False)) / len(target)


def _span_match(target: Constituent, derivation: Derivation) -> float:
    names = [part.name for part in constituents_of(derivation.tree) if part[:2] == target[:2]]
    return float(any(target.name in (name, *name.split("::")) for name in names))


def _tree_f1(target: Sequence[Constituent], derivation: Derivation) -> float:
    constituents = constituents_of(derivation.tree)
    return 2 * len(set(constituents) & set(target)) / (len(constituents) + len(target))


def _derivable(target: Constituent, chart: Chart, grammar: Grammar) -> bool:
    """Returns whether some rule can derive the constituent from the words at its place."""
    symbols = _symbols_of_label(grammar)[target.name.split("::")[0]]
    return any(end == target.end for symbol in symbols for end, _ in chart.spans(symbol, target.start))


def _usual_tags_of(words: Sequence[str]) -> list[str]:
    return [_usual_tags().get(word, "") for word in words]


@functools.cache
def _usual_tags() -> dict[str, str]:
    """The most frequent tag of each word in 3,000 sentences of the grammar."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for sentence in sentences(3_000, seed=2):
        for word, tag in zip(sentence.words, sentence.tags, strict=True):
            counts[word][tag] += 1
    return {word: tags.most_common(1)[0][0] for word, tags in counts.items()}


@functools.cache
def _symbols_of_label(grammar: Grammar) -> dict[str, list[int]]:
    symbols: dict[str, list[int]] = defaultdict(list)
    for symbol, label in enumerate(grammar.rules.labels):
        symbols[label].append(symbol)
    return symbols
