"""Label judges: the value of a text by the grammar, by phrases, by an n-gram classifier or by language models.

The classifiers are of another kind than the models, and are fitted to labelled text: the model's own, or better
another. They select nothing.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jtextdiff.cli.errors import UserError
from jtextdiff.data.cache import evenly_spaced
from jtextdiff.data.corpus import Corpus, Text, prepare_corpus
from jtextdiff.data.grammar.pcfg import Grammar
from jtextdiff.evaluation.likelihood import load_judge
from jtextdiff.inference.model import Model
from jtextdiff.metrics import ngram_classifier, phrase_classifier
from jtextdiff.metrics.units import units
from jtextdiff.run.corpus import label_values

AGREEMENT_TEXTS = 500
"""Texts of the split on which the phrases are compared with the labels."""

LabelFn = Callable[[Sequence[str]], list[str | None]]
"""texts ↦ the value that each has; None where that cannot be decided."""


class LabelJudge(NamedTuple):
    """Decides which value of a label each text has."""

    label_of: LabelFn
    how: str  # the method, and its accuracy on labelled text


def label_judge(corpus: Corpus, label: str, judge_text: str | None, model: Model, split: str) -> LabelJudge:
    """Returns the grammar's derivations where they have the label; otherwise an n-gram classifier.

    The classifier is fitted to the labelled text at the path `judge_text`, by default the model's own.
    Raises UserError for a `judge_text` that does not exist, has no such label, or is not needed.
    """
    if corpus.grammar is None or not grammar_knows(corpus, label):
        return ngram_judge(corpus, label, judge_text, model, split)
    if judge_text is not None:
        raise UserError(f"--judge_text {judge_text}: the grammar itself has the label {label}. Leave it out.")
    return grammar_judge(corpus.grammar, label)


def grammar_judge(grammar: Grammar, label: str) -> LabelJudge:
    """Returns a judge by the grammar's derivation of a text; a text outside the grammar has no value."""

    def label_of(texts: Sequence[str]) -> list[str | None]:
        derived = [derived_labels(grammar, text) for text in texts]
        return [None if labels is None else labels[label] for labels in derived]

    return LabelJudge(label_of, "the grammar's derivations")


def phrase_judge(corpus: Corpus, label: str, split: str) -> LabelJudge:
    """Returns a judge by phrases that occur with one value only in train; the grammar decides about its own texts.

    Raises UserError for a label that the text does not have.
    """
    label_values(corpus, label, "Success cannot be judged: the base's text")
    train, rows = corpus.splits["train"], corpus.splits[split].evenly_spaced(AGREEMENT_TEXTS)
    classifier = phrase_classifier.fit([units(text) for text in train.texts()], corpus.labels_of("train", label))

    def by_phrases(texts: Sequence[str]) -> list[str | None]:
        return [classifier.value(units(text)) for text in texts]

    agreement = _agreement(by_phrases, corpus.splits[split].texts(rows), corpus.labels_of(split, label, rows))
    description = f"phrases of train that have one value only, right for {agreement:.1%} of {split}"
    if corpus.grammar is None or not grammar_knows(corpus, label):
        return LabelJudge(by_phrases, description)
    by_grammar = grammar_judge(corpus.grammar, label)

    def label_of(texts: Sequence[str]) -> list[str | None]:
        pairs = zip(by_grammar.label_of(texts), by_phrases(texts), strict=True)
        return [by_phrase if derived is None else derived for derived, by_phrase in pairs]

    return LabelJudge(label_of, f"{by_grammar.how}, else {description}")


def ngram_judge(corpus: Corpus, label: str, judge_text: str | None, model: Model, split: str) -> LabelJudge:
    """Returns an n-gram classifier of the label, fitted to `judge_text` or to the model's own training text."""
    source = corpus if judge_text is None else _labelled_text(judge_text, model)
    names = label_values(source, label, "--edits: the text" if judge_text is None else f"--judge_text {judge_text}")
    train = source.splits["train"]
    classifier = ngram_classifier.fit(train.texts(), np.asarray(train.labels[label]), len(names))

    def label_of(texts: Sequence[str]) -> list[str | None]:
        return [names[value] for value in classifier.values(texts)]

    # Its accuracy on the model's text where that has the label; otherwise on its own.
    tested, tested_split = (corpus, split) if label in corpus.label_values else (source, "valid")
    texts = tested.splits[tested_split].texts()
    accuracy = _agreement(label_of, texts, tested.labels_of(tested_split, label))
    fitted_to = "the model's own training text" if judge_text is None else judge_text
    tested_on = split if tested is corpus else f"its own {len(texts):,} valid"
    return LabelJudge(
        label_of, f"n-grams of {len(train):,} texts of {fitted_to}, right for {accuracy:.1%} of {tested_on}"
    )


def load_value_judges(
    pairs: Sequence[str], corpus: Corpus, label: str, model: Model, checkpoint: str
) -> dict[str, Model]:
    """Loads a language model of the texts of each value of a label, from `VALUE=DIR` each; none without any.

    Raises UserError for another form, and unless every value has one.
    """
    if not pairs:
        return {}
    values = [value for value in label_values(corpus, label, "--edits: the text") if value != "none"]
    value_of = lambda pair: max((value for value in values if pair.startswith(f"{value}=")), key=len, default="")
    runs = {value_of(pair): pair.removeprefix(f"{value_of(pair)}=") for pair in pairs}
    if sorted(runs) != sorted(values) or len(runs) < len(pairs) or not all(runs.values()):
        expected = " ".join(f"--value_judge {value}=DIR" for value in values)
        raise UserError(f"expected one run for each value of {label}, {expected}; got {', '.join(pairs)}.")
    return {value: load_judge(runs[value], model, checkpoint, "--value_judge") for value in values}


def likelihood_judge(models: dict[str, Model], corpus: Corpus, label: str, split: str) -> LabelJudge:
    """Returns a judge by Bayes' rule: the value whose language model gives a text the highest probability.

    All values are equally probable before. A text that is too long for a model has no value.
    """
    names = list(models)

    def label_of(texts: Sequence[str]) -> list[str | None]:
        lengths = np.stack([model.num_tokens(texts) for model in models.values()])
        limits = [[model.method.text_spec.length] for model in models.values()]
        fits = np.flatnonzero(np.all(lengths <= limits, axis=0)).tolist()
        values: list[str | None] = [None] * len(texts)
        nats = np.stack([model.nll([texts[row] for row in fits]) for model in models.values()])
        for row, best in zip(fits, nats.argmin(axis=0), strict=True):
            values[row] = names[best]
        return values

    values = np.asarray(corpus.splits[split].labels[label])
    rows = evenly_spaced(np.flatnonzero(values < len(names)), AGREEMENT_TEXTS)  # "none" comes last
    agreement = _agreement(label_of, corpus.splits[split].texts(rows), corpus.labels_of(split, label, rows))
    return LabelJudge(label_of, f"language models of each value, right for {agreement:.1%} of {len(rows)} of {split}")


def grammar_knows(corpus: Corpus, label: str) -> bool:
    """Returns whether the texts are the grammar's and their derivations have the label."""
    return corpus.grammar is not None and label in corpus.grammar.attributes


def derived_labels(grammar: Grammar, text: str) -> dict[str, str] | None:
    """Returns all labels of a text by its derivation; None for a text outside the grammar."""
    derivation = grammar.parse(text.split())
    return None if derivation is None else derivation.fields


def _agreement(label_of: LabelFn, texts: Sequence[str], values: Sequence[str]) -> float:
    """The share of texts for which a judge returns their own values."""
    return float(np.mean([judged == value for judged, value in zip(label_of(texts), values, strict=True)]))


def _labelled_text(path: str, model: Model) -> Corpus:
    """A text whose labels have the model's names."""
    fields = {name: model.config.text[name] for name in ("labels", "column", "length")}
    if not Path(path).exists():
        raise UserError(f"--judge_text {path}: there is no such file or directory.")
    try:
        return prepare_corpus(Text(path=path, **fields), tokenizer=model.tokenizer, warn=lambda note: None)
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"--judge_text {path}: {error}") from None
