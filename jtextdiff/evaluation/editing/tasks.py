"""Texts to edit, and the values of labels that they are to have."""

import dataclasses
import functools

import numpy as np

from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import Control, classifier
from jtextdiff.data.cache import evenly_spaced
from jtextdiff.data.corpus import Corpus
from jtextdiff.inference.model import Model
from jtextdiff.inference.references import read_references
from jtextdiff.run.corpus import label_values

Target = tuple[str, ...]
"""A value of each label."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditTask:
    """Texts, the value of each label that each is to have, and reference edits if there are any."""

    labels: tuple[str, ...]
    texts: list[str]
    targets: list[Target]
    references: list[str] | None = None

    @property
    def label(self) -> str:
        """The labels as in `--edits`, such as "food+sentiment"."""
        return "+".join(self.labels)

    def control(self, target: Target) -> Control:
        """Returns the controls of all labels."""
        return functools.reduce(Control.__add__, map(classifier, self.labels, target))


def labels_of(corpus: Corpus, names: str) -> tuple[str, ...]:
    """Returns the labels of a name such as "food+sentiment".

    A label with a "+" in its own name stands alone. Raises UserError for a label that the text does not have, that is
    named twice, or that is missing beside a "+".
    """
    labels = (names,) if names in corpus.label_values else tuple(name.strip() for name in names.split("+"))
    if "" in labels:
        raise UserError(f"--edits {names!r}: expected a label, or several such as food+sentiment.")
    for label in labels:
        label_values(corpus, label, "--edits: the text")
    if len(set(labels)) < len(labels):
        raise UserError(f"--edits {names}: the same label stands there twice.")
    return labels


def edit_task(corpus: Corpus, split: str, label: str, num: int) -> EditTask:
    """Returns `num` evenly spaced texts that have a value of the label; each is to have the next value.

    The last value is followed by the first. Several labels, "food+sentiment", change at once, in texts that have a
    value of each. Raises UserError for a label that the text does not have, or has only one value of, and for fewer
    than two texts.
    """
    labels, texts_of = labels_of(corpus, label), corpus.splits[split]
    values_of = {name: [value for value in corpus.label_values[name] if value != "none"] for name in labels}
    for name, values in values_of.items():
        if len(values) < 2:
            raise UserError(f"--edits: all texts have the same {name}: there is no other value to edit towards.")
    has_value = [np.asarray(texts_of.labels[name]) < len(values) for name, values in values_of.items()]
    rows = evenly_spaced(np.flatnonzero(np.all(has_value, axis=0)), num)
    if len(rows) < 2:
        raise UserError(f"--edits {label}: {len(rows)} texts of {split} have a value of it; scores need two at least.")
    texts = [corpus.tokenizer.normalize_spacing(text) for text in texts_of.texts(rows)]
    next_values = [
        [values[(value + 1) % len(values)] for value in np.asarray(texts_of.labels[name][rows])]
        for name, values in values_of.items()
    ]
    return EditTask(labels=labels, texts=texts, targets=list(zip(*next_values, strict=True)))


def read_edit_task(file: str, model: Model, corpus: Corpus, label: str) -> EditTask:
    """Returns the texts and the edits of a file of --references. Raises UserError as `read_references` does."""
    texts, targets, references = map(
        list, zip(*read_references(file, "--references", model, corpus, label), strict=True)
    )
    return EditTask(labels=(label,), texts=texts, targets=[(value,) for value in targets], references=references)
