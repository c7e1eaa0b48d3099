"""Targets: what a control asks of a classifier, as the values that each cell of its answer may have."""

import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import Control
from jtextdiff.data.grammar.constituents import END, NONE, Stretch, brackets, stretches
from jtextdiff.data.grammar.pcfg import Derivation
from jtextdiff.data.grammar.restaurants import grammar
from jtextdiff.methods.classifier import Classifier

SPAN = re.compile(r"(?P<first>[1-9][0-9]*)(?:-(?P<last>[1-9][0-9]*))?:(?P<name>\S+)")


class Target(NamedTuple):
    """The values that are accepted of each cell, none where anything is; and what follows for the number of words."""

    accepted: Bool[np.ndarray, "*cells c"]
    words: int | None = None
    least: int = 0


def target(control: Control, method: Classifier) -> Target:
    """What a control asks of the classifier of its label. Raises UserError for what the label cannot have."""
    if method.kind == "text":
        for value in control.values:
            _known(value, method, method.values)
        return Target(np.asarray([value in control.values for value in method.values]))
    value, *more = control.values
    if more:
        raise UserError(f"{control}: {control.name} takes one value; of several make several controls.")
    if method.kind == "words":
        return _tags(tags_of(value), method)
    return _span(span_of(value), method) if control.name == "span" else _tree(tree_of(value), method)


def tags_of(value: str) -> tuple[str, ...]:
    """The parts of speech that `pos=VALUE` asks for: those it lists, or those of a sentence of the grammar."""
    words = value.split()
    if all(word.isupper() and word.isalpha() for word in words):
        return tuple(words)
    return _example("pos", value, "parts of speech, such as DET NOUN AUX ADJ PUNCT").tags


def tree_of(value: str) -> list[Stretch]:
    """The constituents that `tree=VALUE` asks for: those in brackets, or those of a sentence of the grammar."""
    if not value.startswith("("):
        return stretches(_example("tree", value, "a tree in brackets, such as (core (cost x) (noun x))").tree)
    try:
        return brackets(value)
    except ValueError as error:
        raise UserError(f"tree={value}: {error}.") from None


def span_of(value: str) -> Stretch:
    """The constituent that `span=FIRST-LAST:NAME` asks for, words counted from 1."""
    match = SPAN.fullmatch(value)
    if match is None or int(match["last"] or match["first"]) < int(match["first"]):
        raise UserError(f"span={value} is not FIRST-LAST:NAME, such as span=4-6:landmark, words counted from 1.")
    return Stretch(int(match["first"]) - 1, int(match["last"] or match["first"]), match["name"])


def _example(name: str, value: str, what: str) -> Derivation:
    found = grammar().parse(value.split())
    if found is None:
        raise UserError(f"{name}={value} is neither {what}, nor a sentence of the grammar to take them from.")
    return found


def _tags(tags: tuple[str, ...], method: Classifier) -> Target:
    _fits(len(tags), method)
    if END in tags:
        raise UserError(f"{END} is what comes after the last word: pos takes the tags of the words alone.")
    index = {tag: _known(tag, method, method.values) for tag in {*tags, END}}
    accepted = np.zeros((method.language.length, len(method.values)), bool)
    accepted[np.arange(len(tags)), [index[tag] for tag in tags]] = True
    accepted[len(tags) :, index[END]] = True
    return Target(accepted, len(tags))


def _tree(wanted: list[Stretch], method: Classifier) -> Target:
    words, size = wanted[0].end, method.language.length
    _fits(words, method)
    accepted = np.zeros((size, size, len(method.values)), bool)
    accepted[..., method.values.index(NONE)] = True
    for start, end, name in wanted:
        accepted[start, end - 1] = False
        accepted[start, end - 1, _known(name, method, method.values)] = True
    return Target(accepted, words)


def _span(wanted: Stretch, method: Classifier) -> Target:
    _fits(wanted.end, method)
    if wanted.name == NONE:
        raise UserError(f"span={NONE} would be no constituent: give one that is, or span!=… to exclude one.")
    size = method.language.length
    accepted = np.zeros((size, size, len(method.values)), bool)
    names = [wanted.name in value.split("::") or wanted.name == value for value in method.values]
    if not any(names):
        _known(wanted.name, method, sorted({name for value in method.values for name in value.split("::")}))
    accepted[wanted.start, wanted.end - 1] = names
    return Target(accepted, least=wanted.end)


def _known(value: str, method: Classifier, there: tuple[str, ...] | list[str]) -> int:
    if value not in there:
        raise UserError(f"The control {method.label!r} has never seen {value!r}; it knows: {', '.join(there)}.")
    return list(there).index(value)


def _fits(words: int, method: Classifier) -> None:
    if words >= method.language.length:
        raise UserError(f"{words} words are asked for; this model writes at most {method.language.length - 1}.")
