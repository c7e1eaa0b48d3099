"""Trained controls of a run: where they are and how they are loaded."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from jtextdiff.cli.errors import UserError
from jtextdiff.cli.output import say
from jtextdiff.control.controls import RULES
from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.devices.sharding import make_mesh, mesh_of, shardings
from jtextdiff.methods.classifier import Classifier
from jtextdiff.nets.functional import Params
from jtextdiff.run.checkpoints import has_checkpoints, restore, shapes_of
from jtextdiff.run.config import build
from jtextdiff.run.workdir import read_config


def home_of(base: str | Path, label: str) -> Path:
    """Where the control of a label is kept."""
    return Path(base) / "controls" / label


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Steered:
    """The model that controls are for, and the run where those that were trained are found; each is read once."""

    run: Path | None
    method: Any  # a Method; for an energy a Guidable one
    params: Params
    tokenizer: Tokenizer

    @functools.cached_property
    def table(self) -> Float[Array, "v d"]:
        """The vector of each word."""
        return self.method.states.table(self.params)


@functools.lru_cache(maxsize=32)
def trained(model: Steered, name: str) -> tuple[Classifier, Params]:
    """The classifier of a label and its parameters, read from disk once a model; see `load_control`."""
    return load_control(model.run, name, model.params)


def load_control(run: Path | None, name: str, params: Params) -> tuple[Classifier, Params]:
    """A control's classifier and its parameters. Raises UserError if there is none, or it is of another base."""
    if run is None:
        raise UserError("This model was not loaded from a run, where its controls would be.")
    home = home_of(run, name)
    if Path(name).name != name or not has_checkpoints(home):
        trained = sorted(path.name for path in (run / "controls").glob("*") if has_checkpoints(path))
        there = ", ".join([*RULES, *trained])
        raise UserError(
            f"{run} has no control {name!r}; it has: {there}. Train it with: "
            f"python -m jtextdiff.train --config configs/control.py --config.base={run} --config.label={name}"
        )
    method = build(read_config(home).method)
    shapes = shapes_of(jax.eval_shape(method.init, jax.random.key(0)))
    beside = mesh_of(params) or make_mesh()
    found = restore(home, {"model": shapes_of(shapes, shardings(beside, shapes))}, tell=say)
    if found is None:
        raise UserError(f"None of the checkpoints in {home} can be read. Train the control anew.")
    own = found[1]["model"]
    alike = lambda mine, theirs: mine.shape == theirs.shape and np.allclose(mine, theirs, atol=1e-3)
    theirs = {name: params[name] for name in own["frozen"]}
    if not all(jax.tree.leaves(jax.tree.map(alike, own["frozen"], theirs))):
        raise UserError(f"{home} was trained on another state of {run}, which has changed since. Train it anew.")
    return method, own
