"""Texts with reference edits of them, from a file of JSON lines."""

from pathlib import Path
from typing import NamedTuple

from jtextdiff.cli.errors import UserError
from jtextdiff.control.requests import json_of_line, numbered_lines
from jtextdiff.data.corpus import Corpus
from jtextdiff.inference.model import Model
from jtextdiff.run.corpus import label_values

EXPECTED = '{"text": "...", "wanted": "a value of the label", "reference": "..."}'


class Reference(NamedTuple):
    """A text, the value of a label that it was to have, and an edit of it that has this value."""

    text: str
    wanted: str
    reference: str


def read_references(
    file: str, flag: str, model: Model, corpus: Corpus, label: str, *, to_fit: bool = False
) -> list[Reference]:
    """Reads JSON lines with a `text`, the value `wanted`, and the `reference`, an edit by somebody else.

    Raises UserError for a file that cannot be read, named as the value of `flag`, and for a line of another form, an
    unknown value, an empty text, or a text that is too long for the model, naming the line. The references are too long
    only if something is fitted to them.
    """
    label_values(corpus, label, f"{flag}: the text")
    rows = []
    for number, line in numbered_lines(Path(file), flag):
        place = f"{file}, line {number}"
        row = _read_row(line, place, corpus, label)
        for name, text in (("text", row.text), ("reference", row.reference))[: 2 if to_fit else 1]:
            if model.num_tokens([text])[0] > model.method.text_spec.length:
                raise UserError(f"{place}: the {name} has more than {model.method.text_spec.length - 1} tokens.")
        rows.append(row)
    if len(rows) < 2:
        raise UserError(f"{file} has one text: give it two at least.")
    return rows


def _read_row(line: str, place: str, corpus: Corpus, label: str) -> Reference:
    row = json_of_line(line, place, EXPECTED)
    try:
        text, reference = (corpus.tokenizer.normalize_spacing(row[name]) for name in ("text", "reference"))
        wanted = row["wanted"]
    except (AttributeError, TypeError, KeyError):
        raise UserError(f"{place}: expected {EXPECTED}.") from None
    values = [value for value in corpus.label_values[label] if value != "none"]
    if wanted not in values:
        raise UserError(f"{place}: {label} has no value {wanted!r}; it has: {', '.join(values)}.")
    if not text.strip() or not reference.strip():
        raise UserError(f"{place}: the text and the reference must not be empty.")
    return Reference(text, wanted, reference)
