"""Settings of latent editing: how far a flow moves latents."""

import argparse
from typing import Any, NamedTuple

from jtextdiff.cli.errors import UserError


class FlowSettings(NamedTuple):
    """How far controls move the latent of a text, and how the edit is chosen."""

    max_time: float = 100.0  # of the flow
    target_probability: float = 0.99  # of all controls together, at which a latent stops
    source_pull: float = 0.0  # from 0, the controls alone, to 1, back to the text's own latent alone
    rerank: bool = False  # decode at several stops; take the edit closest to its source that reaches the target

    def check(self) -> None:
        """Raises UserError for a time or a probability out of range."""
        if not 0 <= self.max_time <= 1e6:
            raise UserError(f"max_time must be from 0 to a million, got {self.max_time}.")
        for name in ("target_probability", "source_pull"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} must be from 0 to 1, got {getattr(self, name)}.")


STORED_NAMES = {"max_time": "tau", "target_probability": "until", "source_pull": "keep", "rerank": "rerank"}
"""The names that files of scores have always had for these settings."""


def flow_settings(flags: argparse.Namespace) -> FlowSettings | None:
    """Returns the settings that the command line gives, None if it gives none of them."""
    given = {name: getattr(flags, name) for name in FlowSettings._fields if getattr(flags, name) is not None}
    return FlowSettings(**given) if given else None


def flow_as_json(flow: FlowSettings | None) -> dict[str, Any]:
    """Returns the settings that are not their default, by their names in files of scores."""
    settings = {} if flow is None else flow._asdict()
    return {STORED_NAMES[name]: value for name, value in settings.items() if value != getattr(FlowSettings(), name)}
