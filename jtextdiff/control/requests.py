"""One request (control, template) per sample, from a file or from real texts."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import Control, classifier, length, parse_controls, parts_of_speech, span, tree
from jtextdiff.control.quoting import NAME_SIGNS, QUOTED, listed, unquoted
from jtextdiff.data.corpus import Corpus
from jtextdiff.data.grammar.constituents import Constituent, constituents_of
from jtextdiff.data.grammar.pcfg import Grammar
from jtextdiff.data.lines import lines_of, parse_json
from jtextdiff.data.tokenizer import MASK, Tokenizer

ATTRIBUTE = rf"({QUOTED}|[^\s:*+\"'][^:*+]*)(?:\*(\d+(?:\.\d+)?))?"
ATTRIBUTES = re.compile(rf"(?P<names>{ATTRIBUTE}(?:\+{ATTRIBUTE})*):(?P<num>[1-9][0-9]*)")


EXPECTED = '{"control": "food=Japanese"}, or a list, and optionally a "template"'
"""The form of a line of --targets."""


class SampleRequest(NamedTuple):
    """What one sample is conditioned on."""

    control: Control | None
    template: str | None = None


def read_requests(source: str, corpus: Corpus, split: str) -> tuple[SampleRequest, ...]:
    """Reads the requests of a file, or takes them from real texts.

    A file has one JSON object per line, with `control`, as --control has it, one or a list, and optionally a
    `template`. NAME:N, such as pos:200, food+length:200 or food*0:50, takes the attributes of N texts of the split; a
    name that holds one of : * + stands in quotation marks. The name `gap` gives a template: the text with its middle
    third of tokens masked.
    Raises UserError for a source that is neither, naming the line.
    """
    match = ATTRIBUTES.fullmatch(source)
    if Path(source).exists() and not Path(source).is_dir():  # it may be a pipe
        lines = numbered_lines(Path(source), "--targets")
        return tuple(_request_of_line(line, f"{source}, line {number}") for number, line in lines)
    if match is None:
        raise UserError(
            f"--targets {source} is neither a file, nor NAME:N such as food:200, for the attributes of N texts."
        )
    weights = [(unquoted(name), float(weight or 1)) for name, weight in re.findall(ATTRIBUTE, match["names"])]
    data = corpus.splits[split]
    rows = data.evenly_spaced(int(match["num"]))
    labels = {name: [corpus.label_values[name][value] for value in ids[rows]] for name, ids in data.labels.items()}
    requests = []
    for index, text in enumerate(data.texts(rows)):
        values = {name: of_texts[index] for name, of_texts in labels.items()}
        parts = [
            _control_of_text(name, text, values, index, corpus) * weight for name, weight in weights if name != "gap"
        ]
        control = sum(parts[1:], parts[0]).as_sum() if parts else None
        gap = _gap(text, corpus.tokenizer) if any(name == "gap" for name, _ in weights) else None
        requests.append(SampleRequest(control, gap))
    return tuple(requests)


def numbered_lines(file: Path, flag: str) -> list[tuple[int, str]]:
    """Returns the lines of a file that are not blank, with their numbers.

    Raises UserError, naming the `flag`, for a file without any, and for one that is not text.
    """
    try:
        filled = [(number, line) for number, line in lines_of(file) if line.strip()]
    except ValueError as error:
        raise UserError(f"{flag}: {error}.") from None
    if not filled:
        raise UserError(f"{flag} {file} is empty: it takes one JSON object per line.")
    return filled


def json_of_line(line: str, place: str, expected: str) -> Any:
    """Returns the value of a line of JSON. Raises UserError, with the `place` and what is `expected` there."""
    try:
        return parse_json(line, place)
    except ValueError as error:
        raise UserError(f"{error}; expected {expected}.") from None


def _request_of_line(line: str, place: str) -> SampleRequest:
    """Parses one line of a file; `place` names it in errors."""
    row = json_of_line(line, place, EXPECTED)
    try:
        control, template = row.get("control", []), row.get("template")
        texts = [control] if isinstance(control, str) else list(control)
        if not all(isinstance(text, str) for text in [*texts, template or ""]):
            raise TypeError
        if not (texts or template) or set(row) - {"control", "template"}:
            raise ValueError
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"{place}: expected {EXPECTED}.") from None
    try:
        return SampleRequest(parse_controls(texts), template)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None


def _control_of_text(name: str, text: str, labels: dict[str, str], index: int, corpus: Corpus) -> Control:
    """The control that requires an attribute of this text."""
    if name == "length":
        return length(len(corpus.tokenizer.pieces(text)))
    if name in labels:
        return classifier(name, labels[name])
    if name in ("pos", "tree"):
        return parts_of_speech(text) if name == "pos" else tree(text)
    if name == "span":
        constituent = _pick_constituent(text, index, corpus.grammar)
        return span(constituent.name, constituent.start + 1, constituent.end)
    available = listed([*sorted(labels), "length", "gap"], NAME_SIGNS)
    raise UserError(
        f"--targets: there is no attribute {name!r}; texts have: {available}, and those of the grammar also pos, tree, "
        "span."
    )


def _pick_constituent(text: str, index: int, grammar: Grammar | None) -> Constituent:
    """A constituent of two words or more, but not the whole text; `index` rotates among them."""
    derivation = None if grammar is None else grammar.parse(text.split())
    if derivation is None:
        raise UserError(f"--targets span: {text!r} is no sentence of the grammar.")
    inner = [
        constituent
        for constituent in constituents_of(derivation.tree)
        if 2 <= constituent.end - constituent.start < len(derivation.words)
    ]
    return inner[index % len(inner)]


def _gap(text: str, tokenizer: Tokenizer) -> str:
    """The text with its middle third of tokens masked; tokens that share a character are masked together."""
    spans = tokenizer.spans(text)
    masked = set(spans[len(spans) // 3 : -(-2 * len(spans) // 3)])
    template, done = "", 0
    for start, end in spans:
        if (start, end) in masked:
            template, done = template + text[done:start] + MASK, end
    return template + text[done:]
