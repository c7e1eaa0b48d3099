"""Toy checkpoints that are conditioned on the time, in the layouts of SEDD, Duo, UDLM and GIDD."""

from typing import Any

import numpy as np
from support import published
from support.published import WORDS, Tensors

NO_MASK = {"time_conditioning": True, "vocab_size": 20}
SEDD = {"hidden_size": 16, "cond_dim": 6, "n_blocks": 2, "n_heads": 2, "scale_by_sigma": True, "length": 12}
GIDD = {"hidden_size": 16, "timestep_cond_dim": 6, "num_hidden_layers": 2, "num_attention_heads": 2, "max_seq_len": 12}

CONFIGS: dict[str, dict[str, Any]] = {
    "sedd": {"tokens": 20, "graph": {"type": "absorb"}, "noise": {"type": "loglinear"}, "model": SEDD},
    "DUO": published.config_json("DUO", **NO_MASK),
    "udlm": published.config_json("udlm", **NO_MASK, cfg=False, cfg_num_classes=-1),
    "labelled udlm": published.config_json("udlm", **NO_MASK, cfg=True, cfg_num_classes=3),
    "dit": {"model_type": "dit", "vocab_size": 24, **GIDD, "p_uniform": 0.0, "t_eps": 1e-4},
    "timed mdlm": published.config_json("mdlm", time_conditioning=True),
}
"""The config.json of toys with 20 tokens; of SEDD and MDLM with MASK, of GIDD with MASK among 21 tokens and padding."""

ROWS = {"sedd": 21, "DUO": 20, "udlm": 20, "labelled udlm": 20, "dit": 24, "timed mdlm": 21}
WORDS_OF_GIDD = [*WORDS, "[MASK]"]


def random_tensors(kind: str) -> Tensors:
    """Returns tensors of a toy; none is zero."""
    tensors = published.random_tensors(published.config_json(vocab_size=ROWS[kind]))
    if kind == "labelled udlm":
        tensors["backbone.cond_map.embedding_table.weight"] = np.random.default_rng(1).normal(size=(4, 6)).astype("f")
    if kind in ("sedd", "dit"):
        return {name.removeprefix("backbone."): array for name, array in tensors.items()}
    return tensors


def forward(tensors: Tensors, tokens: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Returns the raw outputs [b, l, rows] of a toy at what it reads of the time, one per text, in float64."""
    return published.forward(published.config_json(), tensors, tokens, sigma=time)
