"""The layout of MDLM, BD3-LM, SEDD, Duo, UDLM and GIDD: its tensors, and the names of ours that they equal.

Sahoo et al. (2024), Arriola et al. (2025), Lou et al. (2024). `*` in a name is the number of a block.
"""

from collections.abc import Mapping
from typing import NamedTuple

from jtextdiff.pretrained.layouts.tables import sized

SHAPES = {
    "vocab_embed.embedding": "V H",
    "sigma_map.mlp.0.weight": "C 256",
    "sigma_map.mlp.0.bias": "C",
    "sigma_map.mlp.2.weight": "C C",
    "sigma_map.mlp.2.bias": "C",
    "blocks.*.norm1.weight": "H",
    "blocks.*.attn_qkv.weight": "3H H",
    "blocks.*.attn_out.weight": "H H",
    "blocks.*.norm2.weight": "H",
    "blocks.*.mlp.0.weight": "4H H",
    "blocks.*.mlp.0.bias": "4H",
    "blocks.*.mlp.2.weight": "H 4H",
    "blocks.*.mlp.2.bias": "H",
    "blocks.*.adaLN_modulation.weight": "6H C",
    "blocks.*.adaLN_modulation.bias": "6H",
    "output_layer.norm_final.weight": "H",
    "output_layer.linear.weight": "V H",
    "output_layer.linear.bias": "V",
    "output_layer.adaLN_modulation.weight": "2H C",
    "output_layer.adaLN_modulation.bias": "2H",
}
"""Published tensor ↦ its shape, in the letters of `Sizes`; R is half the width of a head."""

LABELS = {"cond_map.embedding_table.weight": "N C"}
"""What a network of labelled texts has besides: a row for each of N − 1 labels, and the last for none."""

NAMES = {
    "embed.embedding": "vocab_embed.embedding",
    "trunk.blocks.*.norm_attention.scale": "blocks.*.norm1.weight",
    "trunk.blocks.*.norm_attention.bias": "blocks.*.norm1.bias",
    "trunk.blocks.*.attention.query.kernel": "blocks.*.attn_query.weight",
    "trunk.blocks.*.attention.key.kernel": "blocks.*.attn_key.weight",
    "trunk.blocks.*.attention.value.kernel": "blocks.*.attn_value.weight",
    "trunk.blocks.*.attention.out.kernel": "blocks.*.attn_out.weight",
    "trunk.blocks.*.norm_mlp.scale": "blocks.*.norm2.weight",
    "trunk.blocks.*.norm_mlp.bias": "blocks.*.norm2.bias",
    "trunk.blocks.*.mlp.up.kernel": "blocks.*.mlp.0.weight",
    "trunk.blocks.*.mlp.up.bias": "blocks.*.mlp.0.bias",
    "trunk.blocks.*.mlp.down.kernel": "blocks.*.mlp.2.weight",
    "trunk.blocks.*.mlp.down.bias": "blocks.*.mlp.2.bias",
    "trunk.norm.scale": "output_layer.norm_final.weight",
    "trunk.norm.bias": "output_layer.norm_final.bias",
    "answer.kernel": "output_layer.linear.weight",
    "answer.bias": "output_layer.linear.bias",
}
"""Our array ↦ the tensor of the folded layout that it equals; a kernel [in, out] is the transpose of a weight."""

TIMED_NAMES = {ours: theirs for ours, theirs in NAMES.items() if not ("norm" in ours and ours.endswith("bias"))}
TIMED_NAMES |= {
    "trunk.blocks.*.attention.query.kernel": "blocks.*.attn_qkv.weight 0/3",
    "trunk.blocks.*.attention.key.kernel": "blocks.*.attn_qkv.weight 1/3",
    "trunk.blocks.*.attention.value.kernel": "blocks.*.attn_qkv.weight 2/3",
    "trunk.blocks.*.modulation.kernel": "blocks.*.adaLN_modulation.weight",
    "trunk.blocks.*.modulation.bias": "blocks.*.adaLN_modulation.bias",
    "trunk.modulation.kernel": "output_layer.adaLN_modulation.weight",
    "trunk.modulation.bias": "output_layer.adaLN_modulation.bias",
    "trunk.time.up.kernel": "sigma_map.mlp.0.weight",
    "trunk.time.up.bias": "sigma_map.mlp.0.bias",
    "trunk.time.down.kernel": "sigma_map.mlp.2.weight",
    "trunk.time.down.bias": "sigma_map.mlp.2.bias",
}
"""The same of a network that is conditioned on the time, or the part of a tensor that our array equals."""


class Sizes(NamedTuple):
    """The sizes of a network in this layout."""

    rows: int  # V: of the embedding, tokens, MASK and padding
    width: int  # H
    cond_dim: int  # C
    num_blocks: int
    num_heads: int
    length: int  # L: tokens of the longest text
    labels: int = 0  # N: rows for labels and for none


def shapes(sizes: Sizes, table: Mapping[str, str] = SHAPES) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each tensor of a table."""
    rotated = sizes.width // sizes.num_heads // 2
    letters = {"V": sizes.rows, "H": sizes.width, "C": sizes.cond_dim, "R": rotated}
    letters |= {"L": sizes.length, "N": sizes.labels}
    return sized(table, letters, sizes.num_blocks)
