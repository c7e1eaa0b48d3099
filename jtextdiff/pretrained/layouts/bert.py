"""The layout of BERT, whose encoder and output start a masked diffusion model (Devlin et al. 2019)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from jtextdiff.methods.masked import Masked
from jtextdiff.pretrained.layouts import gpt2
from jtextdiff.pretrained.layouts.tables import Read, params_of, per_block, sized, transposed
from jtextdiff.pretrained.network import Network, activation_of, check_constants, check_heads, number, positive

WORDS, POSITIONS, SEGMENTS = (
    f"bert.embeddings.{name}_embeddings.weight" for name in ("word", "position", "token_type")
)

DENSE = {
    "trunk.blocks.*.attention.query": ("bert.encoder.layer.*.attention.self.query", "H H"),
    "trunk.blocks.*.attention.key": ("bert.encoder.layer.*.attention.self.key", "H H"),
    "trunk.blocks.*.attention.value": ("bert.encoder.layer.*.attention.self.value", "H H"),
    "trunk.blocks.*.attention.out": ("bert.encoder.layer.*.attention.output.dense", "H H"),
    "trunk.blocks.*.mlp.up": ("bert.encoder.layer.*.intermediate.dense", "I H"),
    "trunk.blocks.*.mlp.down": ("bert.encoder.layer.*.output.dense", "H I"),
    "lower": ("cls.predictions.transform.dense", "H H"),
}
"""Our dense layer ↦ theirs, and the shape of its weight, the transpose of our kernel."""

NORMS = {
    "trunk.norm": "bert.embeddings.LayerNorm",
    "trunk.blocks.*.norm_attention": "bert.encoder.layer.*.attention.output.LayerNorm",
    "trunk.blocks.*.norm_mlp": "bert.encoder.layer.*.output.LayerNorm",
    "lower_norm": "cls.predictions.transform.LayerNorm",
}

NAMES = {
    "embed.embedding": WORDS,
    "trunk.positions.embedding": POSITIONS,
    **{f"{ours}.kernel": f"{theirs}.weight" for ours, (theirs, _) in DENSE.items()},
    **{f"{ours}.bias": f"{theirs}.bias" for ours, (theirs, _) in DENSE.items()},
    **{f"{ours}.scale": f"{theirs}.weight" for ours, theirs in NORMS.items()},
    **{f"{ours}.bias": f"{theirs}.bias" for ours, theirs in NORMS.items()},
    "answer_bias": "cls.predictions.bias",
}
"""Our array ↦ the tensor that it equals; a kernel is the transpose of a weight."""

SHAPES = {
    WORDS: "V H",
    POSITIONS: "P H",
    SEGMENTS: "S H",
    **{f"{theirs}.weight": shape for theirs, shape in DENSE.values()},
    **{f"{theirs}.bias": shape.split()[0] for theirs, shape in DENSE.values()},
    **{f"{theirs}.{part}": "H" for theirs in NORMS.values() for part in ("weight", "bias")},
    "cls.predictions.bias": "V",
}
"""Published tensor ↦ its shape: V rows, P positions, S segments, H the width, I that of feed-forward layers."""

UNREAD = {
    "cls.predictions.decoder.weight": "V H",
    "cls.predictions.decoder.bias": "V",
    "bert.embeddings.position_ids": "1 P",
    "bert.pooler.dense.weight": "H H",
    "bert.pooler.dense.bias": "H",
    "cls.seq_relationship.weight": "2 H",
    "cls.seq_relationship.bias": "2",
}
"""What some files hold besides: copies, numbers of positions, and what predicts the next sentence."""

CONSTANTS = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
"""Fields of config.json with the only value that can be read, if they are there."""

PLAIN = {**gpt2.PLAIN, **gpt2.UNUSED, "norm": "post", "causal": False}
"""Settings of the trunk that these networks share."""


ENCODER: dict[str, Any] = {
    "reads_length": False,
    "time_input": "none",
    "head": {"tied": True, "bias": True, "transform": True, "shifted": False},
}
"""Settings of a method that starts from an encoder with an output for MASK, beside those of its trunk."""


def bert_network(config: dict[str, Any], source: str) -> Network:
    """Returns the network of a checkpoint. Raises UserError for a config that cannot be read."""
    check_constants(config, CONSTANTS, source)
    trunk, rows = _trunk(config, source), positive(config, "vocab_size", source)
    letters = {"V": rows, "P": trunk["max_length"], "S": positive(config, "type_vocab_size", source)}
    letters |= {"H": trunk["width"], "I": trunk["mlp_width"]}
    names = per_block(NAMES, trunk["num_layers"])
    return Network(
        model_type="bert",
        method=Masked,
        config_file="configs/masked.py",
        settings={"trunk": trunk, **ENCODER},
        prefix="",
        tensors=sized(SHAPES, letters, trunk["num_layers"]),
        unread=sized(UNREAD, letters, trunk["num_layers"]),
        copies={"cls.predictions.decoder.weight": WORDS, "cls.predictions.decoder.bias": "cls.predictions.bias"},
        rows=rows,
        mask=None,
        mask_kind="token",
        fold=lambda read, place: params_of(_array_of(read), names, place),
        computed=True,
        former=((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")),
    )


def _trunk(config: dict[str, Any], source: str) -> dict[str, Any]:
    """Returns the settings of the trunk. Raises UserError for one that is missing or impossible."""
    fields = {"width": "hidden_size", "mlp_width": "intermediate_size", "num_heads": "num_attention_heads"}
    fields |= {"num_layers": "num_hidden_layers", "max_length": "max_position_embeddings"}
    check_heads(config, fields["width"], fields["num_heads"], source, rotated=False)
    return {
        **PLAIN,
        **{name: positive(config, field, source) for name, field in fields.items()},
        "activation": activation_of(config, "hidden_act", source),
        "norm_epsilon": number("layer_norm_eps", config.get("layer_norm_eps"), source),
    }


def _array_of(read: Read) -> Callable[[str, str], Float[np.ndarray, "..."]]:
    """Returns (our name, theirs) ↦ our array. All texts are the first segment, whose embedding joins the positions'."""

    def array_of(ours: str, theirs: str) -> Float[np.ndarray, "..."]:
        array = transposed(ours, read(theirs))
        return array + read(SEGMENTS)[0] if theirs == POSITIONS else array

    return array_of
