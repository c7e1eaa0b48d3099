"""The config.json of LLaDA, Dream and Qwen3-diffusion as settings of masked diffusion."""

from typing import Any, NamedTuple

from jtextdiff.cli.errors import UserError
from jtextdiff.methods.masked import Masked
from jtextdiff.pretrained.layouts.llama_layout import BIASES, HEAD_NORMS, LLADA, QWEN, Sizes, shapes
from jtextdiff.pretrained.layouts.tables import params_of, per_block, transposed
from jtextdiff.pretrained.network import Network, check_constants, check_heads, number, positive

LLAMA = {
    "expansion": 4,
    "activation": "silu",
    "gated": True,
    "mlp_bias": False,
    "qk_norm": False,
    "attention_bias": False,
    "attention_out_bias": False,
    "norm": "pre",
    "normalization": "rms",
    "norm_bias": True,
    "input_norm": False,
    "window": None,
    "full_every": 1,
    "window_rotary_base": None,
    "positions": "rotary",
    "causal": False,
    "time": "add",
}
"""Settings of the trunk that these networks have, but for those of `Kind.settings`."""

ANSWER = "answer.kernel"


class Kind(NamedTuple):
    """How a `model_type` of config.json is read."""

    names: dict[str, str]  # our array ↦ the tensor that it equals
    fields: dict[str, str]  # size ↦ its field of config.json
    constants: dict[str, Any]  # fields of config.json with the only value that can be read
    settings: dict[str, Any]  # of the trunk
    shifted: bool = False
    own_head_width: bool = False  # config.json has head_dim; else heads divide the width


LLADA_FIELDS = {
    "rows": "embedding_size",
    "width": "d_model",
    "mlp_width": "mlp_hidden_size",
    "num_heads": "n_heads",
    "num_kv_heads": "n_kv_heads",
    "num_blocks": "n_layers",
    "max_length": "max_sequence_length",
    "tied": "weight_tying",
}
LLADA_CONSTANTS = {
    "block_type": "llama",
    "activation_type": "silu",
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "bias_for_layer_norm": False,
    "attention_layer_norm": False,
    "input_emb_norm": False,
    "include_bias": False,
    "include_qkv_bias": False,
    "multi_query_attention": False,
    "rope": True,
    "alibi": False,
    "scale_logits": False,
    "clip_qkv": None,
}

QWEN_FIELDS = {
    "rows": "vocab_size",
    "width": "hidden_size",
    "mlp_width": "intermediate_size",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "num_blocks": "num_hidden_layers",
    "max_length": "max_position_embeddings",
    "tied": "tie_word_embeddings",
}
QWEN_CONSTANTS = {"hidden_act": "silu", "rope_scaling": None, "use_sliding_window": False}

LLAMAS = {
    "llada": Kind(LLADA, LLADA_FIELDS, LLADA_CONSTANTS, {}),
    "Dream": Kind(QWEN | BIASES, QWEN_FIELDS, QWEN_CONSTANTS, {"attention_bias": True}, shifted=True),
    "a2d-qwen3": Kind(
        QWEN | HEAD_NORMS,
        QWEN_FIELDS,
        {**QWEN_CONSTANTS, "attention_bias": False},
        {"qk_norm": True},
        own_head_width=True,
    ),
}
"""By `model_type`."""


def llama_network(config: dict[str, Any], source: str) -> Network:
    """Returns the network of a checkpoint. Raises UserError for a config that cannot be read."""
    kind = LLAMAS[config["model_type"]]
    check_constants(config, kind.constants, source)
    _check_layers(config, source)
    sizes, tied = sizes_of(config, source), bool(config.get(kind.fields["tied"], False))
    names = {ours: theirs for ours, theirs in kind.names.items() if not (tied and ours == ANSWER)}
    embedding, answer = kind.names["embed.embedding"], kind.names[ANSWER]
    trunk = {**_trunk(config, kind, sizes, source), "max_length": positive(config, kind.fields["max_length"], source)}
    head = {"tied": tied, "bias": False, "transform": False, "shifted": kind.shifted}
    return Network(
        model_type=config["model_type"],
        method=Masked,
        config_file="configs/masked.py",
        settings={"trunk": trunk, "reads_length": False, "time_input": "none", "head": head},
        prefix="",
        tensors=shapes(sizes, names),
        unread={answer: (sizes.rows, sizes.width)} if tied else {},
        copies={answer: embedding} if tied else {},
        rows=sizes.rows,
        mask=_mask(config, source),
        mask_kind="token",
        fold=lambda read, place: params_of(
            lambda ours, theirs: transposed(ours, read(theirs)), per_block(names, sizes.num_blocks), place
        ),
    )


def sizes_of(config: dict[str, Any], source: str) -> Sizes:
    """Returns the sizes of a network. Raises UserError for one that is missing or impossible."""
    kind = LLAMAS[config["model_type"]]
    absent = config.get(kind.fields["num_kv_heads"]) is None  # then all heads have keys of their own
    fields = kind.fields | ({"num_kv_heads": kind.fields["num_heads"]} if absent else {})
    sizes = {name: positive(config, fields[name], source) for name in Sizes._fields if name != "head_width"}
    if kind.own_head_width:
        return Sizes(**sizes, head_width=positive(config, "head_dim", source))
    check_heads(config, fields["width"], fields["num_heads"], source)
    return Sizes(**sizes, head_width=sizes["width"] // sizes["num_heads"])


def _trunk(config: dict[str, Any], kind: Kind, sizes: Sizes, source: str) -> dict[str, Any]:
    return {
        **LLAMA,
        **kind.settings,
        "num_layers": sizes.num_blocks,
        "width": sizes.width,
        "mlp_width": sizes.mlp_width,
        "num_heads": sizes.num_heads,
        "num_kv_heads": sizes.num_kv_heads,
        "head_width": sizes.head_width,
        "norm_epsilon": number("rms_norm_eps", config.get("rms_norm_eps"), source),
        "rotary_base": number("rope_theta", _rotation(config, source), source),
    }


def _rotation(config: dict[str, Any], source: str) -> Any:
    """Returns the base of the rotation, where either version of transformers stores it."""
    rotation = config.get("rope_parameters")
    if not isinstance(rotation, dict):
        return config.get("rope_theta")
    check_constants(rotation, {"rope_type": "default"}, source)
    return rotation.get("rope_theta")


def _check_layers(config: dict[str, Any], source: str) -> None:
    """Raises UserError if some layer does not attend to all positions."""
    if other := set(config.get("layer_types") or ()) - {"full_attention"}:
        raise UserError(
            f"{source}: config.json has layer_types with {min(other)!r}; only 'full_attention' can be read."
        )


def _mask(config: dict[str, Any], source: str) -> int | None:
    mask = config.get("mask_token_id")
    if mask is not None and (not isinstance(mask, int) or isinstance(mask, bool) or mask < 0):
        raise UserError(f"{source}: config.json needs mask_token_id, the id of a token, or none; it has {mask!r}.")
    return mask
