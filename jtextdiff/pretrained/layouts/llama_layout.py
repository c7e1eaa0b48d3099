"""The layouts of LLaDA, and of Dream and Qwen3-diffusion: our arrays, their shapes, and the tensors that they equal.

Nie et al. (2025), Ye et al. (2025). `*` in a name is the number of a block.
"""

from collections.abc import Mapping
from typing import NamedTuple

from jtextdiff.pretrained.layouts.tables import sized

SHAPES = {
    "embed.embedding": "V H",
    "answer.kernel": "V H",
    "trunk.blocks.*.mlp.gate.kernel": "I H",
    "trunk.blocks.*.mlp.up.kernel": "I H",
    "trunk.blocks.*.mlp.down.kernel": "H I",
    "trunk.blocks.*.attention.query.kernel": "Q H",
    "trunk.blocks.*.attention.key.kernel": "K H",
    "trunk.blocks.*.attention.value.kernel": "K H",
    "trunk.blocks.*.attention.out.kernel": "H Q",
    "trunk.blocks.*.attention.query.bias": "Q",
    "trunk.blocks.*.attention.key.bias": "K",
    "trunk.blocks.*.attention.value.bias": "K",
    "trunk.blocks.*.attention.query_norm.scale": "E",
    "trunk.blocks.*.attention.key_norm.scale": "E",
    "trunk.blocks.*.norm_attention.scale": "H",
    "trunk.blocks.*.norm_mlp.scale": "H",
    "trunk.norm.scale": "H",
}
"""Our array ↦ the shape of its tensor in the letters of `Sizes`, from the largest on."""

LLADA = {
    "embed.embedding": "model.transformer.wte.weight",
    "answer.kernel": "model.transformer.ff_out.weight",
    "trunk.blocks.*.mlp.gate.kernel": "model.transformer.blocks.*.ff_proj.weight",
    "trunk.blocks.*.mlp.up.kernel": "model.transformer.blocks.*.up_proj.weight",
    "trunk.blocks.*.mlp.down.kernel": "model.transformer.blocks.*.ff_out.weight",
    "trunk.blocks.*.attention.query.kernel": "model.transformer.blocks.*.q_proj.weight",
    "trunk.blocks.*.attention.key.kernel": "model.transformer.blocks.*.k_proj.weight",
    "trunk.blocks.*.attention.value.kernel": "model.transformer.blocks.*.v_proj.weight",
    "trunk.blocks.*.attention.out.kernel": "model.transformer.blocks.*.attn_out.weight",
    "trunk.blocks.*.norm_attention.scale": "model.transformer.blocks.*.attn_norm.weight",
    "trunk.blocks.*.norm_mlp.scale": "model.transformer.blocks.*.ff_norm.weight",
    "trunk.norm.scale": "model.transformer.ln_f.weight",
}
"""Our array ↦ the tensor of LLaDA that it equals; a kernel [in, out] is the transpose of a weight."""

QWEN = {
    "embed.embedding": "model.embed_tokens.weight",
    "answer.kernel": "lm_head.weight",
    "trunk.blocks.*.mlp.gate.kernel": "model.layers.*.mlp.gate_proj.weight",
    "trunk.blocks.*.mlp.up.kernel": "model.layers.*.mlp.up_proj.weight",
    "trunk.blocks.*.mlp.down.kernel": "model.layers.*.mlp.down_proj.weight",
    "trunk.blocks.*.attention.query.kernel": "model.layers.*.self_attn.q_proj.weight",
    "trunk.blocks.*.attention.key.kernel": "model.layers.*.self_attn.k_proj.weight",
    "trunk.blocks.*.attention.value.kernel": "model.layers.*.self_attn.v_proj.weight",
    "trunk.blocks.*.attention.out.kernel": "model.layers.*.self_attn.o_proj.weight",
    "trunk.blocks.*.norm_attention.scale": "model.layers.*.input_layernorm.weight",
    "trunk.blocks.*.norm_mlp.scale": "model.layers.*.post_attention_layernorm.weight",
    "trunk.norm.scale": "model.norm.weight",
}
"""The same of the networks that have the names of Qwen2.5 and Qwen3."""

BIASES = {
    "trunk.blocks.*.attention.query.bias": "model.layers.*.self_attn.q_proj.bias",
    "trunk.blocks.*.attention.key.bias": "model.layers.*.self_attn.k_proj.bias",
    "trunk.blocks.*.attention.value.bias": "model.layers.*.self_attn.v_proj.bias",
}
"""What Qwen2.5, and so Dream, has besides."""

HEAD_NORMS = {
    "trunk.blocks.*.attention.query_norm.scale": "model.layers.*.self_attn.q_norm.weight",
    "trunk.blocks.*.attention.key_norm.scale": "model.layers.*.self_attn.k_norm.weight",
}
"""What Qwen3 has besides."""


class Sizes(NamedTuple):
    """The sizes of a network in these layouts."""

    rows: int  # V: of the embedding, tokens and padding
    width: int  # H
    mlp_width: int  # I
    num_heads: int
    num_kv_heads: int
    head_width: int  # E; Q and K are all heads of queries, and all of keys
    num_blocks: int


def shapes(sizes: Sizes, names: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each published tensor of a table from our names to theirs."""
    queries, keys = sizes.num_heads * sizes.head_width, sizes.num_kv_heads * sizes.head_width
    letters = {"V": sizes.rows, "H": sizes.width, "I": sizes.mlp_width, "Q": queries, "K": keys, "E": sizes.head_width}
    table = {theirs: SHAPES[ours] for ours, theirs in names.items()}
    return sized(table, letters, sizes.num_blocks)
