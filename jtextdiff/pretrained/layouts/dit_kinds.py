"""What each `model_type` in the layout of MDLM means: MDLM, BD3-LM, SEDD, Duo, UDLM and GIDD."""

from typing import Any, NamedTuple

from jtextdiff.methods.block_diffusion import BlockDiffusion
from jtextdiff.methods.d3pm import D3PM
from jtextdiff.methods.masked import Masked

ROTATION = {"backbone.rotary_emb.inv_freq": "R"}

SEDD = "sedd"
"""Our name of its config.json, which has no `model_type`."""

FIELDS = {
    "rows": "vocab_size",
    "width": "hidden_dim",
    "cond_dim": "cond_dim",
    "num_blocks": "n_blocks",
    "num_heads": "n_heads",
    "length": "model_length",
}
SEDD_FIELDS = {
    "rows": "tokens",
    "width": "model.hidden_size",
    "cond_dim": "model.cond_dim",
    "num_blocks": "model.n_blocks",
    "num_heads": "model.n_heads",
    "length": "model.length",
}
GIDD_FIELDS = {
    "rows": "vocab_size",
    "width": "hidden_size",
    "cond_dim": "timestep_cond_dim",
    "num_blocks": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "length": "max_seq_len",
}
"""Our size ↦ the field of config.json that has it; dots lead into objects."""

COMMON = {"causal": False, "adaln": True, "cross_attn": True, "cfg": False}
TIMED = {**COMMON, "time_conditioning": True}
UNTIMED = {**COMMON, "time_conditioning": False}
"""Fields of config.json with the only value that can be read, if they are there."""


class Kind(NamedTuple):
    """What a `model_type` of config.json means."""

    method: type
    config_file: str  # whose method it is
    constants: dict[str, Any]  # see `COMMON`
    fields: dict[str, str]  # our size ↦ the field that has it; dots lead into objects
    prefix: str = "backbone."  # of the names of its tensors
    buffers: dict[str, str] = ROTATION  # no parameters, and may be absent: tensor ↦ its shape; "": a number
    timed: bool = False  # conditioned on the time, unless time_conditioning says otherwise
    time_input: str = "sigma"  # what it reads of the time then
    extra_rows: int = 0  # of the embedding, beyond those that config.json counts
    mask_kind: str = "row"  # see `Network`


KINDS = {
    "mdlm": Kind(Masked, "configs/masked.py", COMMON, FIELDS),
    "bd3lm": Kind(
        BlockDiffusion,
        "configs/block_diffusion.py",
        UNTIMED,
        FIELDS,
        buffers={**ROTATION, "sampling_eps_min": "", "sampling_eps_max": ""},
    ),
    SEDD: Kind(
        Masked,
        "configs/masked.py",
        {"graph.type": "absorb", "noise.type": "loglinear"},
        SEDD_FIELDS,
        prefix="",
        buffers={"rotary_emb.inv_freq": "R"},
        timed=True,
        extra_rows=1,
    ),
    "DUO": Kind(D3PM, "configs/d3pm.py", TIMED, FIELDS, timed=True, mask_kind="none"),
    "udlm": Kind(D3PM, "configs/d3pm.py", {"time_conditioning": True, "causal": False}, FIELDS, timed=True),
    "dit": Kind(
        Masked,
        "configs/masked.py",
        {"p_uniform": 0.0},
        GIDD_FIELDS,
        prefix="",
        buffers={"rotary_emb.cos_cached": "1 L 3 1 2R", "rotary_emb.sin_cached": "1 L 3 1 2R", "logit_bias": "1 1 1"},
        timed=True,
        time_input="t",
        mask_kind="token",
    ),
}
"""By `model_type`; GIDD calls itself "dit"."""
