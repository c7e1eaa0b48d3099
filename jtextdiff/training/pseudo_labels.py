"""Pseudo-labels: a few texts keep their label, the others get the prediction of an n-gram classifier."""

import dataclasses

import numpy as np

from jtextdiff.cli.errors import UserError
from jtextdiff.cli.output import say
from jtextdiff.data.cache import evenly_spaced
from jtextdiff.data.corpus import Corpus
from jtextdiff.methods.method import Conditional
from jtextdiff.metrics import ngram_classifier
from jtextdiff.run.config import Config, build, is_control


def pseudo_labelled(corpus: Corpus, config: Config) -> Corpus:
    """Returns the corpus with pseudo-labels of `method.condition`, or the same corpus without `num_labelled`.

    Of each value, `num_labelled` training texts keep their label. The others get the label that an n-gram classifier
    fitted to those texts predicts. Raises UserError for a number below one, and for a method without a condition.
    """
    num_labelled = config.get("num_labelled")
    if num_labelled is None or is_control(config):  # a control's num_labelled: see control_setup.labelled_corpus
        return corpus
    method = build(config.method)
    label = method.condition if isinstance(method, Conditional) else ""
    if not label:
        raise UserError("--config.num_labelled needs a label to count: give --config.method.condition=LABEL.")
    if num_labelled < 1:
        raise UserError(f"--config.num_labelled must be at least 1, got {num_labelled}.")
    train = corpus.splits["train"]
    values = [value for value in corpus.label_values[label] if value != "none"]
    ids = np.asarray(train.labels[label])
    rows = np.concatenate([evenly_spaced(np.flatnonzero(ids == i), num_labelled) for i in range(len(values))])
    classifier = ngram_classifier.fit(train.texts(rows), ids[rows], len(values))
    labelled = np.isin(np.arange(len(ids)), rows)
    new_ids = np.where(labelled, ids, classifier.values(train.texts())).astype(np.int32)
    say(_summary(label, ids, new_ids, labelled, len(values)))
    split = dataclasses.replace(train, labels={**train.labels, label: new_ids})
    return dataclasses.replace(corpus, splits={**corpus.splits, "train": split})


def _summary(label: str, ids: np.ndarray, new_ids: np.ndarray, labelled: np.ndarray, num_values: int) -> str:
    """Returns how many labels are predicted, and the accuracy on those texts that have a label."""
    tested = np.flatnonzero(~labelled & (ids < num_values))
    right = new_ids[tested] == ids[tested]
    accuracy = f", right for {right.mean():.1%} of those that have one" if len(tested) else ""
    return (
        f"{label}: {np.sum(labelled):,} texts keep their label; of {np.sum(~labelled):,} others an n-gram classifier "
        f"predicts it{accuracy}."
    )
