"""Config and labelled texts for training a control, from its base run."""

import copy
import dataclasses
import shlex
from pathlib import Path

import numpy as np
from jaxtyping import Int

from jtextdiff.cli.errors import UserError, mistakes
from jtextdiff.cli.output import say
from jtextdiff.control.controls import RESERVED
from jtextdiff.control.quoting import NAME_SIGNS, quoted
from jtextdiff.data.cache import evenly_spaced
from jtextdiff.data.corpus import Corpus, Text
from jtextdiff.data.grammar.constituents import KIND_OF
from jtextdiff.data.grammar.syntax_labels import with_syntax_labels
from jtextdiff.data.tokenizer_builders import same_tokenizer
from jtextdiff.methods.method import Fitted, LatentVariableModel, is_guided_by_words
from jtextdiff.nets.functional import Params
from jtextdiff.run.checkpoints import has_checkpoints
from jtextdiff.run.config import Config, build, spec, to_json
from jtextdiff.run.corpus import label_values
from jtextdiff.run.workdir import read_config

FEW_TEXTS = 20
"""A warning is printed for a value with fewer texts: what is learned from them seldom generalises."""


RENAME = "text.labels may give the column another name: --config.text.labels=COLUMN=NAME."


def control_config(config: Config) -> Config:
    """Returns a control's config with the method of its base, and the base's text unless it names its own.

    Raises UserError without a trained base, or without a label.
    """
    if not config.base or not config.label:
        raise UserError("A control needs --config.base=RUN, the run that it controls, and --config.label=NAME.")
    if Path(config.label).name != config.label or config.label == "..":
        raise UserError(
            f"--config.label={config.label!r} cannot be the name of a directory, which a control has. {RENAME}"
        )
    if config.label in RESERVED:
        raise UserError(f"{config.label} needs no training of its own. {RENAME}")
    base = read_config(Path(config.base))
    if not has_checkpoints(Path(config.base)):
        raise UserError(f"There are no checkpoints in {config.base}/checkpoints yet. Let the training reach its first.")
    _check_own_text(config, base)
    config, own_text = copy.deepcopy(config), config.text
    config.text = copy.deepcopy(base.text)
    config.text.length = base.method.text_spec.length
    if own_text.path:
        config.text.path, config.text.column = own_text.path, own_text.column
    config.text.labels = own_text.labels or config.text.labels
    with config.unlocked():
        if "latent" in config:
            config.method = _method_for(config, base)
            for name in {"latent", "words"} & set(config):
                del config[name]
        config.method.base, config.method.label = copy.deepcopy(base.method), config.label
    return config


def _check_own_text(config: Config, base: Config) -> None:
    """Raises UserError for a field of the text that is set, not None, to another value than that of the base."""
    names = ("tokenizer", "length", "buckets", *(() if config.text.path else ("column",)))
    for name in names:
        own, of_base = config.text[name], base.text[name]
        if own is None or (name == "column" and own == Text().column):
            continue
        with mistakes(ValueError):
            same = own == of_base or name == "tokenizer" and same_tokenizer(own, of_base)
        if not same:
            raise UserError(
                f"--config.text.{name}={own} does not apply to a control: it reads texts as {config.base} does, which "
                f"has {of_base}. Leave it out."
            )


def control_flag(label: str) -> str:
    """Returns the flag that requires a value of a label, as a shell takes it."""
    return shlex.join(["--control", f"{quoted(label, NAME_SIGNS)}=VALUE"])


def _method_for(config: Config, base: Config) -> Config:
    """Returns `latent` for a latent-variable base, `words` for one that is guided by words, else `method`.

    Raises UserError if another of them has been set.
    """
    method = build(base.method)
    used = "latent" if isinstance(method, LatentVariableModel) else "words" if is_guided_by_words(method) else "method"
    if used not in config:  # a config file from before there were controls of words
        raise UserError(f"The config has no field {used!r}, as configs/control.py has for a control of {config.base}.")
    for other in sorted({"latent", "words", "method"} & set(config) - {used}):
        if to_json(config[other]) != to_json(spec(type(build(config[other])))):
            raise UserError(f"--config.{other}.* does not apply to a control of {config.base}: use --config.{used}.*.")
    return config[used]


def label_kind(corpus: Corpus, label: str) -> str:
    """Returns the unit that has a value: the text, or each word or span for the syntax labels of the grammar."""
    return "text" if corpus.grammar is None else KIND_OF.get(label, "text")


def labelled_corpus(corpus: Corpus, config: Config) -> Corpus:
    """Returns the corpus with the label, and of its training texts the `num_labelled` that are used.

    Raises UserError for a label that does not exist or has only one value.
    """
    label, num_labelled = config.label, config.num_labelled
    if num_labelled is not None and num_labelled < 1:
        raise UserError(f"--config.num_labelled must be at least 1, got {num_labelled}.")
    if label_kind(corpus, label) != "text":
        if isinstance(build(config.method), Fitted):
            raise UserError(f"{label} is a label of words, not of texts: only a control of Diffusion-LM learns it.")
        if num_labelled is not None and num_labelled < FEW_TEXTS:
            say(f"warning: {num_labelled} texts are few to learn {label} from: expect little of its control.")
        with mistakes(ValueError):
            return with_syntax_labels(corpus, label, num_labelled, say)
    _check_label(corpus, label)
    values, train, rows = corpus.label_values[label], corpus.splits["train"], labelled_rows(corpus, config)
    counts = np.bincount(np.asarray(train.labels[label][rows]), minlength=len(values))
    if few := [f"{value!r} ({count})" for value, count in zip(values, counts, strict=True) if count < FEW_TEXTS]:
        say(f"warning: fewer than {FEW_TEXTS} texts have the {label} {', '.join(few)}: expect little of their control.")
    if num_labelled is None:
        return corpus
    return dataclasses.replace(corpus, splits={**corpus.splits, "train": train.select(rows)})


def labelled_rows(corpus: Corpus, config: Config) -> Int[np.ndarray, "n"]:
    """Returns the rows of the training texts whose label is used: `num_labelled` of each value, or all."""
    ids = np.asarray(corpus.splits["train"].labels[config.label])
    if config.num_labelled is None:
        return np.arange(len(ids))
    values = range(len(corpus.label_values[config.label]))
    return np.sort(
        np.concatenate([evenly_spaced(np.flatnonzero(ids == value), config.num_labelled) for value in values])
    )


def _check_label(corpus: Corpus, label: str) -> None:
    """Raises UserError unless the text has the label, with at least two values."""
    syntax = " pos and tree exist for the grammar's texts only." if label in KIND_OF else ""
    if len(label_values(corpus, label, "The text", f" text.labels may rename a column.{syntax}")) < 2:
        raise UserError(f"All texts have the same {label}: there are no values to distinguish.")


def with_base_params(params: Params, base: Params) -> Params:
    """Returns a control's initial parameters with the base's parameters that compute its inputs."""
    return {**params, "frozen": {name: base[name] for name in params["frozen"]}}
