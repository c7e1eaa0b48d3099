"""Edits measured: rewrites of real texts to another value of a label, beside copies of them and texts read and written.

Success is by the grammar's derivations, or by a judge of n-grams (see verdicts). Nothing is selected by it.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jtextdiff.cli.errors import UserError
from jtextdiff.cli.output import say
from jtextdiff.control.controls import classifier
from jtextdiff.control.requests import lines_of
from jtextdiff.control.resolve import asked as wish
from jtextdiff.data.cache import evenly_of
from jtextdiff.data.corpus import Corpus
from jtextdiff.data.grammar.restaurants import grammar
from jtextdiff.evaluation.label_judges import Values, derived, verdict
from jtextdiff.evaluation.likelihood import judged
from jtextdiff.evaluation.score import Score, figure, mean
from jtextdiff.inference.editing import NOWHERE, Rewritten, check
from jtextdiff.inference.model import Model
from jtextdiff.metrics.bleu import corpus_bleu

ROWS = ("copy", "reconstruction", "edit")
"""The texts themselves; read and written with nothing asked of them; and with another value asked for."""

SHOWN_BY = {"sentiment": "customer_rating"}
"""A label of the grammar, and the attribute by which it may be told: it changes with it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """Texts, of each the value of the label that it is to have, and a rewrite by somebody else if there is one."""

    label: str
    texts: list[str]
    wanted: list[str]
    references: list[str] | None = None


def asked(corpus: Corpus, split: str, label: str, num: int) -> Asked:
    """`num` texts evenly taken, each to have the value after its own, the last one's being the first; of texts that
    may have none, those that have one.

    Raises UserError for a label that the text does not have, or has one value of.
    """
    if label not in corpus.label_values:
        there = ", ".join(sorted(corpus.label_values)) or "none"
        raise UserError(f"--edits: the text has no label {label!r}; it has: {there}.")
    values, of_split = [value for value in corpus.label_values[label] if value != "none"], corpus.splits[split]
    if len(values) < 2:
        raise UserError(f"--edits: all texts have the same {label}: there is no other value to ask for.")
    told = np.flatnonzero(np.asarray(of_split.labels[label]) < len(values))
    rows = evenly_of(told, num)
    ids = np.asarray(of_split.labels[label][rows])
    texts = [corpus.tokenizer.spelled(text) for text in of_split.texts(rows)]
    return Asked(label=label, texts=texts, wanted=[values[(value + 1) % len(values)] for value in ids])


def asked_of(file: str, model: Model, corpus: Corpus, label: str) -> Asked:
    """What a file of JSON lines asks for: `text`, the value `wanted`, and the `reference` that others have written.

    Raises UserError for a line that is none of these, naming it.
    """
    rows: list[dict[str, str]] = []
    for number, line in lines_of(Path(file), "--references"):
        try:
            row = json.loads(line)
            texts = {name: corpus.tokenizer.spelled(row[name]) for name in ("text", "reference")}
            wanted = row["wanted"]
        except (ValueError, TypeError, KeyError):
            expected = '{"text": "...", "wanted": "a value of the label", "reference": "..."}'
            raise UserError(f"{file}:{number}: expected {expected}.") from None
        if wanted not in corpus.label_values.get(label, ()):
            there = ", ".join(corpus.label_values.get(label, ())) or "none"
            raise UserError(f"{file}:{number}: {label} has no value {wanted!r}; it has: {there}.")
        if model.num_tokens([texts["text"]])[0] > model.method.language.length:
            raise UserError(f"{file}:{number}: the text has more than {model.method.language.length - 1} tokens.")
        rows.append({**texts, "wanted": wanted})
    if len(rows) < 2:
        raise UserError(f"{file} has one text: scores compare texts. Give it two at least.")
    texts, wanted, references = ([row[name] for row in rows] for name in ("text", "wanted", "reference"))
    return Asked(label=label, texts=texts, wanted=wanted, references=references)


def scored(
    model: Model,
    corpus: Corpus,
    asked: Asked,
    *,
    flow: dict[str, Any],
    judge: Model | None,
    judge_text: str | None,
    split: str,
    seed: int,
    progress: Callable[[int], None],
) -> dict[str, dict[str, Score]]:
    """What each of ROWS is worth."""
    for value in dict.fromkeys(asked.wanted):  # what cannot be asked for is told before anything is measured
        check(model.method, wish(classifier(asked.label, value), model.steered), **flow)
    tell, how = verdict(corpus, asked.label, judge_text, model, split)
    say(f"{asked.label} is told by {how}.")
    written = {"copy": asked.texts, "reconstruction": model.edit(asked.texts, seed=seed)}
    rewrites = edited(model, asked, flow, seed, progress)
    written["edit"] = [one.text for one in rewrites]
    by_grammar = derived(corpus, asked.label)
    rows = {name: _row(texts, asked, tell, how, judge, by_grammar) for name, texts in written.items()}
    if any(one.left for one in rewrites):
        rows["edit"]["left"] = mean(
            [float(bool(one.left)) for one in rewrites], "share", f"left as they were: {NOWHERE}"
        )
    return rows


def edited(
    model: Model, asked: Asked, flow: dict[str, Any], seed: int, progress: Callable[[int], None]
) -> list[Rewritten]:
    """The texts rewritten, those with one wish at a time."""
    found: list[Any] = [None] * len(asked.texts)
    for value in dict.fromkeys(asked.wanted):
        rows = [row for row, wanted in enumerate(asked.wanted) if wanted == value]
        own = {"control": classifier(asked.label, value), "seed": seed, "ids": rows, "progress": progress, **flow}
        for row, one in zip(rows, model.rewritten([asked.texts[row] for row in rows], **own), strict=True):
            found[row] = one
    return found


def _row(
    texts: list[str], asked: Asked, tell: Values, how: str, judge: Model | None, by_grammar: bool
) -> dict[str, Score]:
    met = [float(value == wanted) for value, wanted in zip(tell(texts), asked.wanted, strict=True)]
    copied = [float(text == source) for text, source in zip(texts, asked.texts, strict=True)]
    bleu = 100 * corpus_bleu(texts, asked.texts)
    score = {
        "success": mean(met, "share", how),
        "source_bleu": figure(bleu, "0 to 100", None, len(texts), "corpus BLEU-4"),
        "copies": mean(copied, "share", "word for word"),
    }
    if asked.references is not None:
        bleu = 100 * corpus_bleu(texts, asked.references)
        score["reference_bleu"] = figure(bleu, "0 to 100", None, len(texts), "corpus BLEU-4 with others' rewrites")
    if by_grammar:
        score |= _of_grammar(texts, asked)
    if judge is not None:
        rate, se = judged(judge, texts)
        value = float(np.exp(rate))
        score["perplexity"] = figure(value, "per token", value * se, len(texts), "judge")
    return score


def _of_grammar(texts: list[str], asked: Asked) -> dict[str, Score]:
    """How many are sentences of the grammar; and, of those, have every other attribute of their source."""
    fields = [[_fields(text, asked.label) for text in pair] for pair in zip(texts, asked.texts, strict=True)]
    kept = [float(own == source) for own, source in fields if own is not None]
    score = {"members": mean([float(own is not None) for own, _ in fields], "share", "of the grammar")}
    if len(kept) > 1:
        but = f", {SHOWN_BY[asked.label]} apart," if asked.label in SHOWN_BY else ""
        score["kept"] = mean(kept, "share", f"of members: all other attributes{but} as they were")
    return score


def _fields(text: str, label: str) -> dict[str, str] | None:
    """The attributes of a sentence of the grammar but for one, and for what tells that one."""
    member, left_out = grammar().parse(text.split()), (label, SHOWN_BY.get(label))
    return None if member is None else {name: value for name, value in member.fields.items() if name not in left_out}


def told(rows: dict[str, dict[str, Score]]) -> Any:
    """The scores as a table."""
    from rich.table import Table

    names = list(dict.fromkeys(name for scores in rows.values() for name in scores))
    table = Table("", *names)
    for row, scores in rows.items():
        table.add_row(row, *(_shown(scores.get(name)) for name in names))
    return table


def _shown(score: Score | None) -> str:
    if score is None:
        return ""
    return f"{score['value']:.4g}" + ("" if score["se"] is None else f" ± {score['se']:.2g}")
