"""Settings of latent editing: how far a flow moves latents."""

import argparse
from numbers import Real
from typing import Any, NamedTuple

from jtextdiff.cli.errors import UserError

HIGHEST = {"target_probability": 1, "source_pull": 1, "push": 100, "word_guidance": 1000, "word_hold": 1000}
HIGHEST |= {"max_time": 1_000_000}
"""The highest value of each setting that is a number; the lowest is 0."""


class FlowSettings(NamedTuple):
    """How far controls move the latent of a text, and how the edit is chosen."""

    max_time: float | None = None  # of the flow down the energy; None: until the target is reached; see `energy_time`
    target_probability: float | None = None  # of all controls together; None: .9 if edits are minimal, else .99
    source_pull: float = 0.0  # from 0, the controls alone, to 1, back to the text's own latent alone
    rerank: bool = False  # decode at eight stops, and choose among more texts
    learned: bool = False  # follow the field that was fitted to the label
    push: float = 1.0  # factor of the field: 1 ends among texts with the value, more goes beyond
    word_guidance: float | None = None  # of decoding: times what a word says for the controls, added to its logit
    word_hold: float | None = None  # of decoding: nats added to the logits of neutral words of the source
    minimal: bool | None = None  # leave out changes that are not needed; None: where words guide

    @property
    def energy_time(self) -> float:
        """The time of the flow down the energy where it has one: beside a pull or a field, or if it is given."""
        return (0.0 if self.learned else 100.0) if self.max_time is None else self.max_time

    def check(self) -> None:
        """Raises UserError for a value that is no number or out of range, and for those that do not fit together."""
        for name, highest in HIGHEST.items():
            value = getattr(self, name)
            if value is not None and not (isinstance(value, Real) and 0 <= float(value) <= highest):
                raise UserError(f"{name} must be a number from 0 to {highest}, got {value!r}.")
        if self.push != 1 and not self.learned:
            raise UserError("push is the factor of a learned field: give learned as well.")
        if self.learned and not self.energy_time and self.source_pull:
            raise UserError(
                "source_pull acts in the flow down the energy, which learned leaves out: give max_time too."
            )


STORED_NAMES = {"max_time": "tau", "target_probability": "until", "source_pull": "keep", "rerank": "rerank"} | {
    name: name for name in ("minimal", "learned", "push", "word_guidance", "word_hold")
}
"""The names that files of scores have always had for these settings."""


def flow_settings(flags: argparse.Namespace) -> FlowSettings | None:
    """Returns the settings that the command line gives, None if it gives none of them."""
    given = {name: getattr(flags, name) for name in FlowSettings._fields if getattr(flags, name) is not None}
    return FlowSettings(**given) if given else None


def flow_as_json(flow: FlowSettings | None) -> dict[str, Any]:
    """Returns the settings that are not their default, by their names in files of scores."""
    settings = {} if flow is None else flow._asdict()
    return {STORED_NAMES[name]: value for name, value in settings.items() if value != getattr(FlowSettings(), name)}
