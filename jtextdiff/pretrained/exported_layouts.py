"""The published layouts in which models are exported: MDLM's for masked diffusion, GPT-2's for autoregression."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jtextdiff.cli.errors import UserError
from jtextdiff.methods.autoregressive import Autoregressive
from jtextdiff.methods.masked import Masked
from jtextdiff.nets.functional import Params, merged
from jtextdiff.pretrained.layouts import dit_settings, gpt2
from jtextdiff.pretrained.layouts.dit import unfold
from jtextdiff.pretrained.layouts.tables import Tensors
from jtextdiff.pretrained.vocabulary import give_rows

COND_DIM = 128
"""Width of MDLM's conditioning, as published. It is a constant here, so that any width would do."""


class Layout(NamedTuple):
    """How a method's models are exported."""

    config_file: str  # whose method it is
    about: str  # what an exported model is, after its number of parameters
    config_of: Callable[[Any], dict[str, Any]]  # method ↦ config.json; raises UserError naming what the layout lacks
    tensors_of: Callable[[Any, Params], Tensors]  # (method, parameters) ↦ tensors that are read as the same to the bit


def layout_of(method: Any) -> Layout:
    """Returns the layout to which a method is exported. Raises UserError if it has none."""
    if type(method) not in LAYOUTS:
        names = " and ".join(each.__name__ for each in LAYOUTS)
        raise UserError(f"The method is {type(method).__name__}; only {names} have a published layout to export to.")
    return LAYOUTS[type(method)]


def mdlm_tensors(method: Masked, params: Params) -> Tensors:
    """Returns the tensors of a masked model, the frequencies of its rotation included."""
    tensors = unfold(merged(params), method.trunk.num_layers, COND_DIM)
    tensors = {name: give_rows(name, tensor, method.text_spec) for name, tensor in tensors.items()}
    pairs = np.arange(0, method.trunk.width // method.trunk.num_heads, 2)
    exponents = pairs / (2 * len(pairs))
    tensors["rotary_emb.inv_freq"] = (dit_settings.PLAIN["rotary_base"] ** -exponents).astype(np.float32)
    return {dit_settings.KINDS["mdlm"].prefix + name: tensor for name, tensor in tensors.items()}


LAYOUTS = {
    Masked: Layout(
        config_file="configs/masked.py",
        about="A masked diffusion model of text with {count:,} parameters, in the layout of MDLM (Sahoo et al. 2024): "
        "names, shapes and\nfields of the config are those of its published code. The network is not conditioned on "
        "the time: its `adaLN` weights\nare zero, and their biases hold the constants.",
        config_of=lambda method: dit_settings.config_of(method, COND_DIM),
        tensors_of=mdlm_tensors,
    ),
    Autoregressive: Layout(
        config_file="configs/autoregressive.py",
        about="An autoregressive model of text with {count:,} parameters, in the layout of GPT-2 (Radford et al. "
        "2019): transformers reads\nit as GPT2LMHeadModel. A text starts after the end-of-text token, and ends with "
        "it.",
        config_of=gpt2.config_of,
        tensors_of=gpt2.tensors_of,
    ),
}
"""By method."""
