"""Texts to edit, and their edits."""

from collections.abc import Sequence
from typing import NamedTuple

import jax

from jtextdiff.control.resolve import Conditioning
from jtextdiff.data.batches import Batch
from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.methods.method import Method
from jtextdiff.nets.functional import Params
from jtextdiff.sampling.rectified_flow import Field

EMPTY = "empty"
"""Why a blank text is left as it is."""

UNKNOWN = "no word of the text is in the model's vocabulary"
"""Why a text of unknown words only is left as it is."""


class EditBatch(NamedTuple):
    """Texts to edit, the model, and what the edits are conditioned on."""

    method: Method
    params: Params
    tokenizer: Tokenizer
    batch: Batch
    conditioning: Conditioning
    unknown: list[list[str]]  # words of each text that the model does not know
    field: Field | None = None  # with strength, if a learned one is followed


def rows_of(edits: EditBatch, rows: Sequence[int]) -> EditBatch:
    """Returns some of the texts."""
    batch = jax.tree.map(lambda values: values[list(rows)], edits.batch)
    return edits._replace(batch=batch, unknown=[edits.unknown[row] for row in rows])


class Edit(NamedTuple):
    """An edited text and, for latent editing, how far its latent moved."""

    text: str
    # The probability of each control by its own classifier, for the source and for the latent that was decoded; of an
    # edit that is chosen among several, for the two texts as they are read again, see `choice`.
    before: dict[str, float] = {}
    after: dict[str, float] = {}
    distance: float | None = None  # that the latent moved, in standard deviations of the prior
    steps: int | None = None  # of the solver
    reached: bool = True  # whether all controls together have the target probability in the end, within 2 % of its nats
    unneeded: bool = False  # whether the source has it already
    skipped_because: str = ""  # the text is then its source
    unknown: tuple[str, ...] = ()  # words of the source that the model does not know
