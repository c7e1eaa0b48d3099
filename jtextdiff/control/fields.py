"""Learned fields of a run: the one that leads to a control's value."""

import shlex

from jtextdiff.cli.errors import UserError, mistakes
from jtextdiff.control.controls import RESERVED, Control
from jtextdiff.control.quoting import NAME_SIGNS, listed
from jtextdiff.control.trained import FIELDS, fitted_labels, load_fitted
from jtextdiff.control.trained_model import TrainedModel, cached_per_model
from jtextdiff.methods.latent_field import LatentField
from jtextdiff.nets.functional import Params
from jtextdiff.sampling.rectified_flow import Field


def learned_field(control: Control | None, model: TrainedModel, strength: float) -> Field:
    """Returns the field towards the value of the one control that has a field.

    Raises UserError if none has one, or several have: fields lead from the texts of some values to those of one, so
    they do not add.
    """
    if model.run is None:
        raise UserError("This model was not loaded from a run, so it has no learned fields.")
    fitted = fitted_labels(model.run, FIELDS)
    parts = [] if control is None else control.as_sum().parts
    requested = [part for part in parts if part.kind == "is" and part.name in fitted]
    if not requested:
        label = next((part.name for part in parts if part.kind == "is" and part.name not in RESERVED), "LABEL")
        fit = ["python", "-m", "jtextdiff.train", "--config", "configs/flow.py"]
        fit += [f"--config.base={model.run}", f"--config.label={label}"]
        known = listed(fitted, NAME_SIGNS) if fitted else "none"
        how = "Give LABEL=VALUE, without != or |, " if fitted else ""
        raise UserError(
            "learned follows the field to one value of a label, and no control requires a value of one that has a "
            f"field. {model.run} has fields of: {known}. {how}{'or fit' if fitted else 'Fit'} one with: "
            f"{shlex.join(fit)}"
        )
    if len(requested) > 1 or len(requested[0].values) > 1:
        raise UserError(
            f"learned follows one field, to one value; {' and '.join(map(str, requested))} require several. "
            "Leave the others to their energies, without learned."
        )
    method, params = _loaded(requested[0].name, model)
    with mistakes(ValueError):
        return method.field(params, next(iter(requested[0].values)), strength)


@cached_per_model
def _loaded(label: str, model: TrainedModel) -> tuple[LatentField, Params]:
    """Returns the method and the parameters of the field of a label, read from disk once per model."""
    assert model.run is not None  # `learned_field` has checked it
    return load_fitted(model.run / FIELDS / label, model.params)
