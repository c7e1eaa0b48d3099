"""Trained controls of a run: where they are and how they are loaded."""

import hashlib
import shlex
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jtextdiff.cli.errors import UserError
from jtextdiff.cli.output import say
from jtextdiff.control.controls import TRAINING_FREE
from jtextdiff.control.quoting import NAME_SIGNS, listed
from jtextdiff.control.trained_model import TrainedModel, cached_per_model
from jtextdiff.devices.sharding import make_mesh, mesh_of
from jtextdiff.methods.classifier import Classifier
from jtextdiff.metrics import trigram_classifier
from jtextdiff.metrics.trigram_classifier import TrigramClassifier
from jtextdiff.nets.functional import Params
from jtextdiff.run.checkpoints import has_checkpoints, load_params
from jtextdiff.run.config import Config, build
from jtextdiff.run.workdir import read_config

TRIGRAMS = "trigrams.npz"
"""File of a control with the trigrams of each value."""

CONTROLS, FIELDS = "controls", "flows"
"""Folders of a run that hold what was fitted to it, one folder for each label."""


def control_dir(base: str | Path, label: str) -> Path:
    """Returns the run directory of the control of a label."""
    return Path(base) / CONTROLS / label


def fitted_dir(config: Config) -> Path:
    """Returns the default run directory of a control or a field, from its config."""
    folder = FIELDS if config.method["class"].endswith(":LatentField") else CONTROLS
    return Path(config.base) / folder / config.label


@cached_per_model
def trained_classifier(label: str, model: TrainedModel) -> tuple[Classifier, Params]:
    """Returns the classifier of a label and its parameters, read from disk once per model; see `load_control`."""
    return load_control(model.run, label, model.params)


@cached_per_model
def trained_trigrams(label: str, model: TrainedModel) -> TrigramClassifier | None:
    """Returns the trigrams of a label's values; None, with a note, if the control was fitted before it counted them.

    Raises UserError for a file that holds none, or those of other values or of another vocabulary.
    """
    assert model.run is not None, "its classifier was loaded from it"
    folder, classifier = control_dir(model.run, label), None
    if (folder / TRIGRAMS).exists():
        num_values = len(trained_classifier(label, model)[0].values)
        try:
            classifier = trigram_classifier.load(folder / TRIGRAMS, num_values, model.method.text_spec.vocab_size)
        except ValueError as error:
            raise UserError(f"{error}. Remove {folder}, and fit the control again.") from None
    if classifier is None:
        say(f"note: {folder} has no trigrams of its values, so that edits are worse. Remove it, and fit it again.")
    return classifier


def load_control(run: Path | None, label: str, base: Params) -> tuple[Classifier, Params]:
    """Loads a control's classifier and its parameters from a run whose parameters are `base`.

    Raises UserError if there is none, or if it was trained on other parameters.
    """
    if run is None:
        raise UserError("This model was not loaded from a run, so it has no trained controls.")
    folder = control_dir(run, label)
    if Path(label).name != label or not has_checkpoints(folder):
        trained = fitted_labels(run, CONTROLS)
        train = ["python", "-m", "jtextdiff.train", "--config", "configs/control.py"]
        train += [f"--config.base={run}", f"--config.label={label}"]
        raise UserError(
            f"{run} has no control {label!r}; it has: {listed([*TRAINING_FREE, *trained], NAME_SIGNS)}. Train it with: "
            f"{shlex.join(train)}"
        )
    return load_fitted(folder, base)


def fitted_labels(run: Path, folder: str) -> list[str]:
    """Returns the labels of the controls or of the fields of a run."""
    return sorted(path.name for path in (run / folder).glob("*") if has_checkpoints(path))


def load_fitted(folder: Path, base: Params) -> tuple[Any, Params]:
    """Loads what was fitted to parameters `base`. Raises UserError if these have changed since."""
    classifier = build(read_config(folder).method)
    _, params = load_params(folder, classifier, mesh_of(base) or make_mesh())
    frozen = params.get("frozen", {})  # a control of words depends on none
    expected = {name: base[name] for name in frozen}
    if not all(jax.tree.leaves(jax.tree.map(_close, frozen, expected))):
        run = folder.parent.parent
        raise UserError(f"{folder} was trained on another state of {run}, which has changed since. Train it anew.")
    return classifier, params


def stored_state(run: Path) -> list[str]:
    """Returns what identifies a run, [] without one.

    That is its config, text and metrics, the names of its checkpoints, and the digest of a control's trigrams.
    """
    stored = [
        file.read_text(encoding="utf-8")
        for name in ("config.json", "text.json", "metrics.jsonl")
        if (file := run / name).is_file()
    ]
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in run.glob(TRIGRAMS) if file.is_file()]
    return stored + digests + sorted(file.name for file in run.glob("checkpoints/*"))


def _close(stored: Any, expected: Any) -> bool:
    return stored.shape == expected.shape and np.allclose(stored, expected, atol=1e-3)
