"""Verdicts: which value of a label texts have, by the grammar's derivations or by a judge of n-grams.

The judge is of another kind than the models, and learns from labelled text: the model's own, or better another. Nothing
is selected by it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jtextdiff.cli.errors import UserError
from jtextdiff.data.corpus import Corpus, Text, prepare
from jtextdiff.data.grammar.restaurants import grammar
from jtextdiff.inference.model import Model
from jtextdiff.metrics.ngram_classifier import learn

Values = Callable[[Sequence[str]], list[str]]
"""texts ↦ the value of the label that each has, as far as can be told."""


def verdict(corpus: Corpus, label: str, judge_text: str | None, model: Model, split: str) -> tuple[Values, str]:
    """Who tells the value of a label, and how well that agrees with the labels of the split.

    Raises UserError for a text to judge by that is not there, has no such label, or is not needed.
    """
    if derived(corpus, label):
        if judge_text is not None:
            raise UserError(f"--judge_text {judge_text}: {label} is told by the grammar itself. Leave it out.")
        return lambda texts: [_field(text, label) for text in texts], "the grammar's derivations"
    other = corpus if judge_text is None else _labelled(judge_text, model)
    if label not in other.label_values:
        raise UserError(f"--judge_text {judge_text} has no label {label!r}; it has: {', '.join(other.label_values)}.")
    names, train = other.label_values[label], other.splits["train"]
    judge = learn(train.texts(), np.asarray(train.labels[label]), len(names))
    tell = lambda texts: [names[value] for value in judge.values(texts)]
    known = corpus if label in corpus.label_values else other
    of_split = known.splits[split if known is corpus else "valid"]
    truth = [known.label_values[label][value] for value in of_split.labels[label]]
    right = float(np.mean([one == other for one, other in zip(tell(of_split.texts()), truth, strict=True)]))
    source = "the model's own training text" if judge_text is None else judge_text
    whose = split if known is corpus else f"its own {len(of_split):,} valid"
    return tell, f"n-grams of {len(train):,} texts of {source}, right for {right:.1%} of {whose}"


def derived(corpus: Corpus, label: str) -> bool:
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
