"""What a control takes over from the run that it controls, and the labelled texts that it learns from."""

import copy
import dataclasses
from pathlib import Path

import numpy as np

from jtextdiff.cli.errors import UserError, mistakes
from jtextdiff.cli.output import say
from jtextdiff.control.controls import RULES
from jtextdiff.data.cache import evenly_of
from jtextdiff.data.corpus import Corpus
from jtextdiff.data.grammar.constituents import KIND_OF
from jtextdiff.data.syntax_labels import annotated
from jtextdiff.nets.functional import Params
from jtextdiff.run.checkpoints import has_checkpoints
from jtextdiff.run.config import Config, build, spec, to_json
from jtextdiff.run.workdir import read_config

FEW = 20
"""So few texts of a value are told of: what is learned from them seldom holds."""


def on_base(config: Config) -> Config:
    """A control's config with what its base decides: the kind of method, and the text unless it names its own.

    Raises UserError without a base that is trained, or without a label.
    """
    if not config.base or not config.label:
        raise UserError("A control needs --config.base=RUN, the run that it controls, and --config.label=NAME.")
    if Path(config.label).name != config.label:
        raise UserError(f"--config.label={config.label!r} is no name: it becomes a directory's.")
    if config.label in (*RULES, "span"):
        raise UserError(f"{config.label} needs no training of its own. text.labels may give the column another name.")
    base = read_config(Path(config.base))
    if not has_checkpoints(Path(config.base)):
        raise UserError(f"There are no checkpoints in {config.base}/checkpoints yet. Let the training reach its first.")
    config, own = copy.deepcopy(config), config.text
    config.text = copy.deepcopy(base.text)
    config.text.length = base.method.language.length
    if own.path:
        config.text.path, config.text.column = own.path, own.column
    config.text.labels = own.labels or config.text.labels
    with config.unlocked():
        if "latent" in config:
            used, other = ("latent", "method") if of_latents(base) else ("method", "latent")
            if to_json(config[other]) != to_json(spec(type(build(config[other])))):
                raise UserError(f"--config.{other}.* has no part in a control of {config.base}: use --config.{used}.*.")
            config.method = config[used]
            del config["latent"]
        config.method.base, config.method.label = copy.deepcopy(base.method), config.label
    return config


def of_latents(base: Config) -> bool:
    """Whether a run is a text VAE, whose controls are fitted to latents."""
    return base.method["class"].endswith(":TextVAE")


def kind_of(corpus: Corpus, label: str) -> str:
    """What a label is a label of: of the text, or of its words or stretches if only the grammar can tell it."""
    return KIND_OF.get(label, "text") if corpus.is_grammar else "text"


def labelled(corpus: Corpus, config: Config) -> Corpus:
    """The corpus with the label, and the texts that its `num_labelled` leaves.

    Raises UserError for a label of no use.
    """
    name = config.label
    if config.num_labelled is not None and config.num_labelled < 1:
        raise UserError(f"--config.num_labelled must be at least 1, got {config.num_labelled}.")
    if kind_of(corpus, name) != "text":
        if config.num_labelled is not None and config.num_labelled < FEW:
            say(f"warning: {config.num_labelled} texts are few to learn {name} from: expect little of its control.")
        with mistakes(ValueError):
            return annotated(corpus, name, config.num_labelled, say)
    if name not in corpus.label_values:
        there = ", ".join(sorted(corpus.label_values)) or "none"
        known = " pos and tree are known of the grammar's texts only." if name in KIND_OF else ""
        raise UserError(f"The text has no label {name!r}; it has: {there}. text.labels may rename a column.{known}")
    values = corpus.label_values[name]
    if len(values) < 2:
        raise UserError(f"All texts have the same {name}: there is nothing to tell apart.")
    train, wanted = corpus.splits["train"], config.num_labelled
    ids = np.asarray(train.labels[name])
    rows = [np.flatnonzero(ids == value) for value in range(len(values))]
    if wanted:
        rows = [evenly_of(of_value, wanted) for of_value in rows]
    if few := [f"{value!r} ({len(r)})" for value, r in zip(values, rows, strict=True) if len(r) < FEW]:
        say(f"warning: fewer than {FEW} texts have the {name} {', '.join(few)}: expect little of their control.")
    if not wanted:
        return corpus
    return dataclasses.replace(corpus, splits={**corpus.splits, "train": train.only(np.sort(np.concatenate(rows)))})


def with_frozen(params: Params, base: Params) -> Params:
    """A control's fresh parameters with those of its base that show it its states."""
    return {**params, "frozen": {name: base[name] for name in params["frozen"]}}
