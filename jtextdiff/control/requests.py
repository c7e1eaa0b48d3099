"""Wishes: what is asked of each of many texts, from a file or from what real texts are, so that control is measured."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import Control, classifier, length, parts_of_speech, span, together, tree
from jtextdiff.data.corpus import Corpus
from jtextdiff.data.grammar.constituents import Stretch, stretches
from jtextdiff.data.grammar.restaurants import grammar
from jtextdiff.data.tokenizer import MASK

OF_TEXTS = re.compile(r"(?P<names>[^\s:*+]+(\*\d+(\.\d+)?)?(\+[^\s:*+]+(\*\d+(\.\d+)?)?)*):(?P<num>[1-9][0-9]*)")


class Wish(NamedTuple):
    """What is asked of one text."""

    control: Control | None
    template: str | None = None


def wishes(spelling: str, corpus: Corpus, split: str) -> tuple[Wish, ...]:
    """Those of a file; or NAME:N, such as pos:200, food+length:200 or food*0:50: what N texts of the split are.

    A file has a JSON object a line, with `control`, as --control has it, one or a list, and perhaps a `template`. The
    name `gap` is a template of its own: the text with its middle third to be written anew.
    Raises UserError for what is neither, naming the line.
    """
    match = OF_TEXTS.fullmatch(spelling)
    if Path(spelling).is_file():
        return tuple(_of_line(line, f"{spelling}:{number}") for number, line in lines_of(Path(spelling), "--targets"))
    if match is None:
        raise UserError(f"--targets {spelling} is neither a file, nor NAME:N such as food:200, of N texts' own values.")
    names = [name.partition("*") for name in match["names"].split("+")]
    of_split = corpus.splits[split]
    rows = of_split.evenly(int(match["num"]))
    labels = {name: [corpus.label_values[name][value] for value in ids[rows]] for name, ids in of_split.labels.items()}
    found = []
    for place, text in enumerate(of_split.texts(rows)):
        own = {name: values[place] for name, values in labels.items()}
        parts = [_own(name, text, own, place) * float(weight or 1) for name, _, weight in names if name != "gap"]
        control = sum(parts[1:], parts[0]).as_sum() if parts else None
        found.append(Wish(control, _gap(text) if any(name == "gap" for name, *_ in names) else None))
    return tuple(found)


def lines_of(file: Path, flag: str) -> list[tuple[int, str]]:
    """The lines of a file that are not empty, with their numbers. Raises UserError, naming the `flag`, for one without
    any, and for what is no text."""
    try:
        lines = [*enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)]
    except UnicodeDecodeError as error:
        raise UserError(f"{flag} {file} is no text in UTF-8: {error.reason} at byte {error.start}.") from None
    except OSError as error:
        raise UserError(f"{flag} {file}: {error.strerror}.") from None
    found = [(number, line) for number, line in lines if line.strip()]
    if not found:
        raise UserError(f"{flag} {file} is empty: it takes a JSON object a line.")
    return found


def _of_line(line: str, where: str) -> Wish:
    try:
        row: Any = json.loads(line)
        control, template = row.get("control", []), row.get("template")
        texts = [control] if isinstance(control, str) else list(control)
        if not all(isinstance(text, str) for text in [*texts, template or ""]):
            raise TypeError
        if not (texts or template) or set(row) - {"control", "template"}:
            raise ValueError
    except (ValueError, TypeError, AttributeError):
        raise UserError(
            f'{where}: expected {{"control": "food=Japanese"}}, or a list, and perhaps a "template".'
        ) from None
    try:
        return Wish(together(texts), template)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _own(name: str, text: str, labels: dict[str, str], place: int) -> Control:
    """What a text itself is, as a control."""
    if name in ("pos", "tree"):
        return parts_of_speech(text) if name == "pos" else tree(text)
    if name == "span":
        one = _some(text, place)
        return span(one.name, one.start + 1, one.end)
    if name == "length":
        return length(len(text.split()))
    if name in labels:
        return classifier(name, labels[name])
    raise UserError(
        f"--targets: there is no {name!r}; of texts there are: {', '.join(sorted(labels))}, length, gap, "
        "and of the grammar's pos, tree, span."
    )


def _some(text: str, place: int) -> Stretch:
    """A constituent of two words or more, but not the whole; which one goes round with the place."""
    member = grammar().parse(text.split())
    if member is None:
        raise UserError(f"--targets span: {text!r} is no sentence of the grammar.")
    found = [each for each in stretches(member.tree) if 2 <= each.end - each.start < len(member.words)]
    return found[place % len(found)]


def _gap(text: str) -> str:
    words = text.split()
    start, end = len(words) // 3, -(-2 * len(words) // 3)
    return " ".join([*words[:start], *[MASK] * (end - start), *words[end:]])
