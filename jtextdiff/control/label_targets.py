"""A control's value as the classes that its classifier should predict."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import Control
from jtextdiff.control.quoting import VALUE_SIGNS, listed
from jtextdiff.control.trained import trained_classifier
from jtextdiff.control.trained_model import TrainedModel, cached_per_model
from jtextdiff.data.grammar.constituents import END_TAG, NO_CONSTITUENT, Constituent, constituents_of, parse_brackets
from jtextdiff.data.grammar.pcfg import Derivation
from jtextdiff.data.grammar.restaurants import grammar
from jtextdiff.methods.classifier import Classifier
from jtextdiff.nets.functional import Params

SPAN = re.compile(r"(?P<first>[1-9][0-9]*)(?:-(?P<last>[1-9][0-9]*))?:(?P<name>\S+)")


class LabelTarget(NamedTuple):
    """The accepted classes of each cell of a classifier's output, and the number of words that they imply."""

    accepted: Bool[np.ndarray, "*cells c"]  # a cell without any accepts every class
    num_words: int | None = None
    minimum: int = 0  # words


@cached_per_model
def trained_target(control: Control, model: TrainedModel) -> tuple[Classifier, Params, LabelTarget]:
    """Returns the trained classifier of a control, its parameters and the control's target, cached per model."""
    # The spans of a text are the constituents of its tree.
    classifier, params = trained_classifier("tree" if control.name == "span" else control.name, model)
    return classifier, params, label_target(control, classifier)


def label_target(control: Control, classifier: Classifier) -> LabelTarget:
    """Returns the target of a control for the classifier of its label. Raises UserError for values it cannot have."""
    if classifier.kind == "text":
        for value in control.values:
            _class_index(value, classifier, classifier.values)
        return LabelTarget(np.asarray([value in control.values for value in classifier.values]))
    value, *further_values = control.values
    if further_values:
        raise UserError(f"{control}: {control.name} takes one value. For several values give several controls.")
    if classifier.kind == "words":
        return _tags_target(tags_of(value), classifier)
    if control.name == "span":
        return _span_target(span_of(value), classifier)
    return _tree_target(tree_of(value), classifier)


def tags_of(value: str) -> tuple[str, ...]:
    """Returns the parts of speech in `pos=VALUE`: a list of tags, or a sentence of the grammar to take them from."""
    words = value.split()
    if all(word.isupper() and word.isalpha() for word in words):
        return tuple(words)
    return _parse_example("pos", value, "parts of speech, such as DET NOUN AUX ADJ PUNCT").tags


def tree_of(value: str) -> list[Constituent]:
    """Returns the constituents in `tree=VALUE`: a tree in brackets, or a sentence of the grammar to take them from."""
    if not value.startswith("("):
        tree = _parse_example("tree", value, "a tree in brackets, such as (core (cost x) (noun x))").tree
        return constituents_of(tree)
    try:
        return parse_brackets(value)
    except ValueError as error:
        raise UserError(f"tree={value}: {error}.") from None


def span_of(value: str) -> Constituent:
    """Returns the constituent in `span=FIRST-LAST:NAME`, words counted from 1."""
    match = SPAN.fullmatch(value)
    if match is None or int(match["last"] or match["first"]) < int(match["first"]):
        raise UserError(f"span={value} is not FIRST-LAST:NAME, such as span=4-6:landmark, words counted from 1.")
    return Constituent(int(match["first"]) - 1, int(match["last"] or match["first"]), match["name"])


def _parse_example(name: str, value: str, expected: str) -> Derivation:
    derivation = grammar().parse(value.split())
    if derivation is None:
        raise UserError(f"{name}={value} is neither {expected}, nor a sentence of the grammar to take them from.")
    return derivation


def _tags_target(tags: tuple[str, ...], classifier: Classifier) -> LabelTarget:
    """Each word has its tag; all positions after the last word have the tag of the end."""
    _check_num_words(len(tags), classifier)
    if END_TAG in tags:
        raise UserError(f"{END_TAG} is the tag of the positions after the last word: pos takes the tags of words.")
    index = {tag: _class_index(tag, classifier, classifier.values) for tag in {*tags, END_TAG}}
    accepted = np.zeros((classifier.text_spec.length, len(classifier.values)), bool)
    accepted[np.arange(len(tags)), [index[tag] for tag in tags]] = True
    accepted[len(tags) :, index[END_TAG]] = True
    return LabelTarget(accepted, len(tags))


def _tree_target(tree: list[Constituent], classifier: Classifier) -> LabelTarget:
    """Each constituent has its name; all other spans are no constituents."""
    num_words, size = tree[0].end, classifier.text_spec.length
    _check_num_words(num_words, classifier)
    accepted = np.zeros((size, size, len(classifier.values)), bool)
    accepted[..., classifier.values.index(NO_CONSTITUENT)] = True
    for start, end, name in tree:
        accepted[start, end - 1] = False
        accepted[start, end - 1, _class_index(name, classifier, classifier.values)] = True
    return LabelTarget(accepted, num_words)


def _span_target(span: Constituent, classifier: Classifier) -> LabelTarget:
    """One stretch of words has the name, alone or in a chain of names such as core::noun."""
    _check_num_words(span.end, classifier)
    if span.name == NO_CONSTITUENT:
        raise UserError(f"span={NO_CONSTITUENT} would be no constituent: give one that is, or span!=… to exclude one.")
    size = classifier.text_spec.length
    accepted = np.zeros((size, size, len(classifier.values)), bool)
    has_name = [span.name in value.split("::") or span.name == value for value in classifier.values]
    if not any(has_name):
        _class_index(span.name, classifier, sorted({name for value in classifier.values for name in value.split("::")}))
    accepted[span.start, span.end - 1] = has_name
    return LabelTarget(accepted, minimum=span.end)


def _class_index(value: str, classifier: Classifier, values: Sequence[str]) -> int:
    """The place of a value among `values`. Raises UserError if it is not there."""
    if value not in values:
        raise UserError(
            f"The control {classifier.label!r} has no value {value!r}; it has: {listed(values, VALUE_SIGNS)}."
        )
    return list(values).index(value)


def _check_num_words(num_words: int, classifier: Classifier) -> None:
    """Raises UserError for more words than the model generates."""
    if num_words >= classifier.text_spec.length:
        raise UserError(
            f"{num_words} words are required; this model generates at most {classifier.text_spec.length - 1}."
        )
