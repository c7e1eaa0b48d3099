"""The network of SEDD, Duo, UDLM and GIDD, whose blocks and final norm are modulated by the time, as ours.

They have the layers that `Transformer.time = "dit"` has. Our gates are one plus what a layer returns, and ours have no
labels: the vector of "no label" is a constant, which joins the biases.
"""

import numpy as np
from jaxtyping import Float

from jtextdiff.nets.functional import Params
from jtextdiff.pretrained.layouts.dit import silu
from jtextdiff.pretrained.layouts.dit_layout import LABELS, TIMED_NAMES
from jtextdiff.pretrained.layouts.tables import Place, Read, params_of, part_of, per_block, transposed

IS_GATE = (0, 0, 1, 0, 0, 1)
"""Which parts of a block's modulation are gates."""


def timed_params(
    read: Read, num_blocks: int, place: Place = lambda name, array: array, *, labelled: bool = False
) -> Params:
    """Returns our parameters of the network without a label, one tensor at a time, each passed to `place`."""
    (labels,) = LABELS
    unlabelled = silu(read(labels)[-1]) if labelled else None

    def read_ours(name: str) -> Float[np.ndarray, "..."]:
        array = read(name)
        layer, is_modulation, kind = name.partition("adaLN_modulation.")
        if not is_modulation or kind != "bias":
            return array
        if unlabelled is not None:
            array = array + read(f"{layer}adaLN_modulation.weight") @ unlabelled
        if layer.startswith("blocks."):
            array = array - np.repeat(IS_GATE, len(array) // len(IS_GATE))
        return array.astype(np.float32, copy=False)

    names = per_block(TIMED_NAMES, num_blocks)
    return params_of(lambda ours, theirs: transposed(ours, part_of(read_ours, theirs)), names, place)
