"""The layout of ModernBERT, whose encoder and output start a masked diffusion model (Warner et al. 2024)."""

from typing import Any

from jtextdiff.cli.errors import UserError
from jtextdiff.methods.masked import Masked
from jtextdiff.pretrained.layouts.bert import ENCODER
from jtextdiff.pretrained.layouts.tables import params_of, part_of, per_block, sized, transposed
from jtextdiff.pretrained.network import Network, check_constants, check_heads, number, positive

SHAPES = {
    "model.embeddings.tok_embeddings.weight": "V H",
    "model.embeddings.norm.weight": "H",
    "model.layers.*.attn_norm.weight": "H",
    "model.layers.*.attn.Wqkv.weight": "3H H",
    "model.layers.*.attn.Wo.weight": "H H",
    "model.layers.*.mlp_norm.weight": "H",
    "model.layers.*.mlp.Wi.weight": "2I H",
    "model.layers.*.mlp.Wo.weight": "H I",
    "model.final_norm.weight": "H",
    "head.dense.weight": "H H",
    "head.norm.weight": "H",
    "decoder.bias": "V",
}
"""Published tensor ↦ its shape: V rows, H the width, I that of feed-forward layers."""

NAMES = {
    "embed.embedding": "model.embeddings.tok_embeddings.weight",
    "trunk.input_norm.scale": "model.embeddings.norm.weight",
    "trunk.blocks.*.norm_attention.scale": "model.layers.*.attn_norm.weight",
    "trunk.blocks.*.attention.query.kernel": "model.layers.*.attn.Wqkv.weight 0/3",
    "trunk.blocks.*.attention.key.kernel": "model.layers.*.attn.Wqkv.weight 1/3",
    "trunk.blocks.*.attention.value.kernel": "model.layers.*.attn.Wqkv.weight 2/3",
    "trunk.blocks.*.attention.out.kernel": "model.layers.*.attn.Wo.weight",
    "trunk.blocks.*.norm_mlp.scale": "model.layers.*.mlp_norm.weight",
    "trunk.blocks.*.mlp.gate.kernel": "model.layers.*.mlp.Wi.weight 0/2",
    "trunk.blocks.*.mlp.up.kernel": "model.layers.*.mlp.Wi.weight 1/2",
    "trunk.blocks.*.mlp.down.kernel": "model.layers.*.mlp.Wo.weight",
    "trunk.norm.scale": "model.final_norm.weight",
    "lower.kernel": "head.dense.weight",
    "lower_norm.scale": "head.norm.weight",
    "answer_bias": "decoder.bias",
}
"""Our array ↦ the tensor that it equals, or which of its equal parts; a kernel is the transpose of a weight."""

FIRST_NORM = "model.layers.0.attn_norm.weight"
"""A tensor that is not there: the first block reads the normed embeddings."""

CONSTANTS = {
    "hidden_activation": "gelu",
    "classifier_activation": "gelu",
    "attention_bias": False,
    "mlp_bias": False,
    "norm_bias": False,
    "classifier_bias": False,
    "decoder_bias": True,
    "tie_word_embeddings": True,
}
"""Fields of config.json with the only value that can be read, if they are there."""

PLAIN = {
    "expansion": 4,
    "activation": "gelu",
    "gated": True,
    "mlp_bias": False,
    "num_kv_heads": None,
    "head_width": None,
    "qk_norm": False,
    "attention_bias": False,
    "attention_out_bias": None,
    "norm": "pre",
    "normalization": "layer",
    "norm_bias": False,
    "input_norm": True,
    "positions": "rotary",
    "causal": False,
    "time": "add",
}
"""Settings of the trunk that these networks share."""


def modernbert_network(config: dict[str, Any], source: str) -> Network:
    """Returns the network of a checkpoint. Raises UserError for a config that cannot be read."""
    check_constants(config, CONSTANTS, source)
    trunk, rows = _trunk(config, source), positive(config, "vocab_size", source)
    letters = {"V": rows, "H": trunk["width"], "I": trunk["mlp_width"]}
    tensors = sized(SHAPES, letters, trunk["num_layers"])
    tensors.pop(FIRST_NORM)
    names = {ours: theirs for ours, theirs in per_block(NAMES, trunk["num_layers"]).items() if theirs != FIRST_NORM}
    embedding = NAMES["embed.embedding"]
    return Network(
        model_type="modernbert",
        method=Masked,
        config_file="configs/masked.py",
        settings={"trunk": trunk, **ENCODER},
        prefix="",
        tensors=tensors,
        unread={"decoder.weight": tensors[embedding]},
        copies={"decoder.weight": embedding},
        rows=rows,
        mask=None,
        mask_kind="token",
        fold=lambda read, place: params_of(lambda ours, theirs: transposed(ours, part_of(read, theirs)), names, place),
    )


def _trunk(config: dict[str, Any], source: str) -> dict[str, Any]:
    """Returns the settings of the trunk. Raises UserError for one that is missing or impossible."""
    fields = {"width": "hidden_size", "mlp_width": "intermediate_size", "num_heads": "num_attention_heads"}
    fields |= {"num_layers": "num_hidden_layers", "max_length": "max_position_embeddings"}
    sizes = {name: positive(config, field, source) for name, field in fields.items()}
    check_heads(config, fields["width"], fields["num_heads"], source)
    full_every, window = (
        positive(config, field, source) for field in ("global_attn_every_n_layers", "local_attention")
    )
    _check_layers(config, sizes["num_layers"], full_every, source)
    full, local = _rotations(config, source)
    return {
        **PLAIN,
        **sizes,
        "norm_epsilon": number("norm_eps", config.get("norm_eps"), source),
        "window": window // 2,  # local_attention counts both sides
        "full_every": full_every,
        "rotary_base": full,
        "window_rotary_base": local,
    }


def _rotations(config: dict[str, Any], source: str) -> tuple[float, float]:
    """Returns the bases of the rotation in full and local blocks, where either version of transformers stores them."""
    stored = config.get("rope_parameters")
    if not isinstance(stored, dict):
        fields = ("global_rope_theta", "local_rope_theta")
        return tuple(number(field, config.get(field), source) for field in fields)  # pyright: ignore
    kinds = [stored.get(name) or {} for name in ("full_attention", "sliding_attention")]
    for kind in kinds:
        check_constants(kind, {"rope_type": "default"}, source)
    full, local = (number("rope_theta", kind.get("rope_theta"), source) for kind in kinds)
    return full, local


def _check_layers(config: dict[str, Any], num_layers: int, full_every: int, source: str) -> None:
    """Raises UserError if other blocks are local than every n-th, counted from the first, leaves."""
    expected = ["sliding_attention" if block % full_every else "full_attention" for block in range(num_layers)]
    if (found := config.get("layer_types") or expected) != expected:
        raise UserError(f"{source}: config.json has layer_types = {found}; only {expected} can be read.")
