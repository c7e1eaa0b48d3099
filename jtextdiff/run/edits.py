"""Edits measured: rewrites of real texts to another value of a label, beside copies of them and texts read and written.

Success is by the grammar's derivations, or by a judge of n-grams that shares nothing with the model, learned from
labelled text which may be other than the model's. Nothing is selected by it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jtextdiff.run.command import UserError, say
from jtextdiff.run.controls import classifier
from jtextdiff.run.measures import Score, figure, judged, mean
from jtextdiff.run.model import Model
from jtextdiff.text.corpora import Corpus, Text, prepare
from jtextdiff.text.judging import learn
from jtextdiff.text.metrics import corpus_bleu
from jtextdiff.text.restaurants import grammar

ROWS = ("copy", "reconstruction", "edit")
"""The texts themselves; read and written with nothing asked of them; and with another value asked for."""

Values = Callable[[Sequence[str]], list[str]]
"""texts ↦ the value of the label that each has, as far as can be told."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """Texts, and of each the value of the label that it is to have."""

    label: str
    texts: list[str]
    wanted: list[str]


def asked(corpus: Corpus, split: str, label: str, num: int) -> Asked:
    """`num` texts evenly taken, each to have the value after its own, the last one's being the first.

    Raises UserError for a label that the text does not have.
    """
    if label not in corpus.label_values:
        there = ", ".join(sorted(corpus.label_values)) or "none"
        raise UserError(f"--edits: the text has no label {label!r}; it has: {there}.")
    values, of_split = corpus.label_values[label], corpus.splits[split]
    rows = of_split.evenly(num)
    ids = np.asarray(of_split.labels[label][rows])
    texts = [corpus.tokenizer.normalize(text) for text in of_split.texts(rows)]
    return Asked(label=label, texts=texts, wanted=[values[(value + 1) % len(values)] for value in ids])


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
    tell, how = verdict(corpus, asked.label, judge_text, model, split)
    say(f"{asked.label} is told by {how}.")
    written = {"copy": asked.texts, "reconstruction": model.edit(asked.texts, seed=seed)}
    written["edit"] = edited(model, asked, flow, seed, progress)
    by_grammar = _derived(corpus, asked.label)
    return {name: _row(texts, asked, tell, how, judge, by_grammar) for name, texts in written.items()}


def edited(model: Model, asked: Asked, flow: dict[str, Any], seed: int, progress: Callable[[int], None]) -> list[str]:
    """The texts rewritten, those with one wish at a time."""
    found = [""] * len(asked.texts)
    for value in dict.fromkeys(asked.wanted):
        rows = [row for row, wanted in enumerate(asked.wanted) if wanted == value]
        own = {"control": classifier(asked.label, value), "seed": seed, "ids": rows, "progress": progress, **flow}
        for row, text in zip(rows, model.edit([asked.texts[row] for row in rows], **own), strict=True):
            found[row] = text
    return found


def verdict(corpus: Corpus, label: str, judge_text: str | None, model: Model, split: str) -> tuple[Values, str]:
    """Who tells the value of a label, and how well that agrees with the labels of the split."""
    if _derived(corpus, label):
        return lambda texts: [_field(text, label) for text in texts], "the grammar's derivations"
    other = corpus if judge_text is None else _labelled(judge_text, model)
    if label not in other.label_values:
        raise UserError(f"--judge_text {judge_text} has no label {label!r}; it has: {', '.join(other.label_values)}.")
    names, train = other.label_values[label], other.splits["train"]
    judge = learn(train.texts(), np.asarray(train.labels[label]), len(names))
    tell = lambda texts: [names[value] for value in judge.values(texts)]
    of_split = corpus.splits[split]
    truth = [corpus.label_values[label][value] for value in of_split.labels[label]]
    right = float(np.mean([one == other for one, other in zip(tell(of_split.texts()), truth, strict=True)]))
    source = "the model's own training text" if judge_text is None else judge_text
    return tell, f"n-grams of {len(train):,} texts of {source}, right for {right:.1%} of {split}"


def _derived(corpus: Corpus, label: str) -> bool:
    """Whether the grammar's derivations tell a label."""
    return corpus.is_grammar and label in grammar().attributes


def _labelled(path: str, model: Model) -> Corpus:
    """A text whose labels have the model's names."""
    own = {name: model.config.text[name] for name in ("labels", "column", "length")}
    if not Path(path).exists():
        raise UserError(f"--judge_text {path}: there is no such file or directory.")
    return prepare(Text(path=path, **own), tokenizer=model.tokenizer, warn=lambda note: None)


def _field(text: str, label: str) -> str:
    member = grammar().parse(text.split())
    return "" if member is None else member.fields[label]


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
        score["kept"] = mean(kept, "share", "of members: all other attributes as they were")
    return score


def _fields(text: str, label: str) -> dict[str, str] | None:
    """The attributes of a sentence of the grammar but for one."""
    member = grammar().parse(text.split())
    return None if member is None else {name: value for name, value in member.fields.items() if name != label}


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
