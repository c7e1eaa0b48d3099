"""Guessing: where the label of a few texts is known, the others are told the value that n-grams of those few give."""

import dataclasses

import numpy as np

from jtextdiff.cli.errors import UserError
from jtextdiff.cli.output import say
from jtextdiff.data.cache import evenly_of
from jtextdiff.data.corpus import Corpus
from jtextdiff.metrics.ngram_classifier import learn
from jtextdiff.run.config import Config


def guessed(corpus: Corpus, config: Config) -> Corpus:
    """The corpus with the label `method.condition` of `num_labelled` training texts of each value as it is, and of all
    others as a judge of n-grams that has learned from those has it; as it is where no such number is given.

    Raises UserError for a number below one, and for one without a condition.
    """
    few, label = config.get("num_labelled"), config.method.get("condition")
    if few is None or "base" in config:  # a control's num_labelled is another: see on_base
        return corpus
    if not label:
        raise UserError("--config.num_labelled is of a condition's labels: give --config.method.condition=LABEL.")
    if few < 1:
        raise UserError(f"--config.num_labelled must be at least 1, got {few}.")
    values, train = [value for value in corpus.label_values[label] if value != "none"], corpus.splits["train"]
    ids = np.asarray(train.labels[label])
    rows = np.concatenate([evenly_of(np.flatnonzero(ids == value), few) for value in range(len(values))])
    judge = learn(train.texts(rows), ids[rows], len(values))
    known = np.isin(np.arange(len(ids)), rows)
    found = np.where(known, ids, judge.values(train.texts())).astype(np.int32)
    others = np.flatnonzero(~known & (ids < len(values)))
    right = "" if not len(others) else f", right for {np.mean(found[others] == ids[others]):.1%} of those that have one"
    say(f"{label}: known of {len(rows):,} texts; of {np.sum(~known):,} guessed by n-grams of those{right}.")
    told = dataclasses.replace(train, labels={**train.labels, label: found})
    return dataclasses.replace(corpus, splits={**corpus.splits, "train": told})
