"""The points of a frontier of edits, from timid to bold."""

import dataclasses
from pathlib import Path
from typing import Any

from jtextdiff.control.trained import FIELDS, control_dir, stored_state
from jtextdiff.evaluation.editing.edits import EditSettings
from jtextdiff.evaluation.editing.tasks import EditTask
from jtextdiff.inference.editing.files import digest
from jtextdiff.inference.editing.flow_settings import FlowSettings
from jtextdiff.inference.editing.latent import STOPS
from jtextdiff.inference.model import Model
from jtextdiff.methods.method import Conditional, LatentVariableModel
from jtextdiff.run.config import to_json

STRENGTHS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
"""Times up to which texts are noised, for a frontier of edits by diffusion."""


def frontier_points(model: Model, task: EditTask, settings: EditSettings) -> dict[str, EditSettings]:
    """Returns settings from those that change texts least to those that change them most, by name.

    In latent space these are probabilities at which latents stop, with diffusion strengths. A model that is conditioned
    on a label of the task has a single point.
    """
    if isinstance(model.method, Conditional) and model.method.condition in task.labels:
        return {"": settings}
    if isinstance(model.method, LatentVariableModel):
        flow = settings.flow or FlowSettings()
        return {
            f"{stop:g}": dataclasses.replace(settings, flow=flow._replace(target_probability=stop)) for stop in STOPS
        }
    return {f"{strength:g}": dataclasses.replace(settings, strength=strength) for strength in STRENGTHS}


def frontier_digest(flags: dict[str, Any], model: Model, task: EditTask) -> str:
    """Returns the digest of what decides the scores of a frontier: model, controls, fields and all flags but names."""
    run = flags["checkpoint"]
    fitted = [folder for label in task.labels for folder in (control_dir(run, label), Path(run) / FIELDS / label)]
    settings = {name: value for name, value in flags.items() if name not in ("checkpoint", "at", "frontier", "out")}
    settings |= {"config": to_json(model.config), "step": model.step, "fitted": list(map(stored_state, fitted))}
    return digest(settings)
