"""The layout of GPT-2 (Radford et al. 2019) as an autoregressive model, and back."""

from typing import Any

import numpy as np

from jtextdiff.methods.autoregressive import Autoregressive
from jtextdiff.nets.functional import Params
from jtextdiff.pretrained.layouts.tables import Tensors, leaf, params_of, part_of, per_block, sized
from jtextdiff.pretrained.network import (
    Network,
    activation_of,
    check_constants,
    check_fits,
    check_heads,
    number,
    positive,
    published_activation,
)

PREFIX = "transformer."
"""Of the names of all tensors; the first checkpoints have none."""

SHAPES = {
    "wte.weight": "V H",
    "wpe.weight": "P H",
    "h.*.ln_1.weight": "H",
    "h.*.ln_1.bias": "H",
    "h.*.attn.c_attn.weight": "H 3H",
    "h.*.attn.c_attn.bias": "3H",
    "h.*.attn.c_proj.weight": "H H",
    "h.*.attn.c_proj.bias": "H",
    "h.*.ln_2.weight": "H",
    "h.*.ln_2.bias": "H",
    "h.*.mlp.c_fc.weight": "H I",
    "h.*.mlp.c_fc.bias": "I",
    "h.*.mlp.c_proj.weight": "I H",
    "h.*.mlp.c_proj.bias": "H",
    "ln_f.weight": "H",
    "ln_f.bias": "H",
}
"""Published tensor ↦ its shape: V rows, P positions, H the width, I that of feed-forward layers."""

NAMES = {
    "embed.embedding": "wte.weight",
    "trunk.positions.embedding": "wpe.weight",
    "trunk.blocks.*.norm_attention.scale": "h.*.ln_1.weight",
    "trunk.blocks.*.norm_attention.bias": "h.*.ln_1.bias",
    "trunk.blocks.*.attention.query.kernel": "h.*.attn.c_attn.weight 0/3",
    "trunk.blocks.*.attention.key.kernel": "h.*.attn.c_attn.weight 1/3",
    "trunk.blocks.*.attention.value.kernel": "h.*.attn.c_attn.weight 2/3",
    "trunk.blocks.*.attention.query.bias": "h.*.attn.c_attn.bias 0/3",
    "trunk.blocks.*.attention.key.bias": "h.*.attn.c_attn.bias 1/3",
    "trunk.blocks.*.attention.value.bias": "h.*.attn.c_attn.bias 2/3",
    "trunk.blocks.*.attention.out.kernel": "h.*.attn.c_proj.weight",
    "trunk.blocks.*.attention.out.bias": "h.*.attn.c_proj.bias",
    "trunk.blocks.*.norm_mlp.scale": "h.*.ln_2.weight",
    "trunk.blocks.*.norm_mlp.bias": "h.*.ln_2.bias",
    "trunk.blocks.*.mlp.up.kernel": "h.*.mlp.c_fc.weight",
    "trunk.blocks.*.mlp.up.bias": "h.*.mlp.c_fc.bias",
    "trunk.blocks.*.mlp.down.kernel": "h.*.mlp.c_proj.weight",
    "trunk.blocks.*.mlp.down.bias": "h.*.mlp.c_proj.bias",
    "trunk.norm.scale": "ln_f.weight",
    "trunk.norm.bias": "ln_f.bias",
}
"""Our array ↦ the tensor that it equals, or which third of its last axis; a weight is [in, out], as our kernels are."""

BUFFERS = {"transformer.h.*.attn.bias": "1 1 P P", "transformer.h.*.attn.masked_bias": ""}
"""Causal masks, which some files hold beside the parameters."""

CONSTANTS = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
"""Fields of config.json with the only value that can be read, if they are there."""

PLAIN = {
    "gated": False,
    "mlp_bias": True,
    "num_kv_heads": None,
    "head_width": None,
    "qk_norm": False,
    "attention_bias": True,
    "attention_out_bias": None,
    "norm": "pre",
    "normalization": "layer",
    "norm_bias": True,
    "input_norm": False,
    "window": None,
    "positions": "learned",
    "causal": True,
    "time": "add",
}
"""Settings of the trunk that every network in this layout has."""

UNUSED = {"expansion": 4, "full_every": 1, "rotary_base": 10_000.0, "window_rotary_base": None}
"""Settings that mean nothing beside these."""

HEAD = {"tied": True, "bias": False, "transform": False, "shifted": False}
"""Settings of its head."""


def gpt2_network(config: dict[str, Any], source: str) -> Network:
    """Returns the network of a checkpoint. Raises UserError for a config that cannot be read."""
    check_constants(config, CONSTANTS, source)
    trunk, rows = _trunk(config, source), positive(config, "vocab_size", source)
    letters = {"V": rows, "P": trunk["max_length"], "H": trunk["width"], "I": trunk["mlp_width"]}
    tensors, names = sized(SHAPES, letters, trunk["num_layers"]), per_block(NAMES, trunk["num_layers"])
    output = {"lm_head.weight": tensors["wte.weight"]}
    return Network(
        model_type="gpt2",
        method=Autoregressive,
        config_file="configs/autoregressive.py",
        settings={"trunk": trunk, "head": HEAD},
        prefix=PREFIX,
        tensors=tensors,
        unread=output | sized(BUFFERS, letters, trunk["num_layers"]),
        copies=dict.fromkeys(output, "wte.weight"),
        rows=rows,
        mask=None,
        mask_kind="none",
        fold=lambda read, place: params_of(lambda ours, theirs: part_of(read, theirs, axis=-1), names, place),
        former=((r"^(?=(wte|wpe|h|ln_f)\.)", PREFIX),),
    )


def _trunk(config: dict[str, Any], source: str) -> dict[str, Any]:
    """Returns the settings of the trunk. Raises UserError for one that is missing or impossible."""
    fields = {"width": "n_embd", "num_heads": "n_head", "num_layers": "n_layer", "max_length": "n_positions"}
    sizes = {name: positive(config, field, source) for name, field in fields.items()}
    check_heads(config, "n_embd", "n_head", source, rotated=False)
    return {
        **PLAIN,
        **UNUSED,
        **sizes,
        "mlp_width": 4 * sizes["width"] if config.get("n_inner") is None else positive(config, "n_inner", source),
        "activation": activation_of(config, "activation_function", source),
        "norm_epsilon": number("layer_norm_epsilon", config.get("layer_norm_epsilon"), source),
    }


def config_of(method: Autoregressive) -> dict[str, Any]:
    """Returns the config.json of an autoregressive model. Raises UserError naming a setting that the layout lacks."""
    expected = {f"trunk.{name}": value for name, value in PLAIN.items()}
    check_fits(method, expected | {f"head.{name}": value for name, value in HEAD.items()}, "GPT-2")
    trunk, text_spec = method.trunk, method.text_spec
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": text_spec.vocab_size,
        "n_positions": trunk.max_length,
        "n_embd": trunk.width,
        "n_layer": trunk.num_layers,
        "n_head": trunk.num_heads,
        "n_inner": trunk.mlp_size,
        "activation_function": published_activation(trunk.activation),
        "layer_norm_epsilon": trunk.epsilon,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), trunk.dropout),
        "bos_token_id": text_spec.eos,  # a text starts after EOS
        "eos_token_id": text_spec.eos,
        "pad_token_id": text_spec.pad,
    }


def tensors_of(method: Autoregressive, params: Params) -> Tensors:
    """Returns the published tensors of an autoregressive model. Reading them gives the same parameters to the bit."""
    parts: dict[str, list[np.ndarray]] = {}
    for ours, theirs in per_block(NAMES, method.trunk.num_layers).items():
        parts.setdefault(theirs.partition(" ")[0], []).append(np.asarray(leaf(params, ours)))
    return {PREFIX + name: np.concatenate(arrays, axis=-1) for name, arrays in parts.items()}
