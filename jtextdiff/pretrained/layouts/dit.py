"""The network of MDLM and BD3-LM, at one noise level, as a plain transformer, and back.

It is a DiT (Peebles & Xie 2023): shifts, scales and gates of each block are a function of the noise level sigma. Where
sigma is the constant 0 they are constants, so that the network equals a plain pre-norm transformer: shift and scale
join the norms, gates the layers before the residual connections.
"""

import numpy as np
from jaxtyping import Float

from jtextdiff.nets.functional import Params
from jtextdiff.pretrained.layouts.dit_layout import NAMES
from jtextdiff.pretrained.layouts.tables import (
    Place,
    Read,
    Tensors,
    insert,
    leaf,
    of_block,
    outside_blocks,
    per_block,
    transposed,
)

QKV = ("attn_query", "attn_key", "attn_value")
MODULATED = {"norm1": ("attn_out.weight",), "norm2": ("mlp.2.weight", "mlp.2.bias")}
"""Norm ↦ the arrays that its gate multiplies. A block's modulation is shift, scale and gate of each, in this order."""

NUM_FREQUENCIES = 128


def fold(read: Read, num_blocks: int, place: Place = lambda name, array: array) -> Params:
    """Returns our parameters of the network at sigma = 0.

    One layer is read at a time, the largest first, and each array is passed to `place` at once, so that the host holds
    little more than what `place` keeps there.
    """
    condition, params = _condition(read), {}

    def add(names: dict[str, str], folded: Tensors) -> None:
        for ours, theirs in names.items():
            array = folded.pop(theirs) if theirs in folded else read(theirs)
            insert(params, ours, place(ours, transposed(ours, array)))

    add(outside_blocks(NAMES), _folded_norm(read, condition))
    for block in range(num_blocks):
        add(of_block(NAMES, block), _folded_block(read, f"blocks.{block}.", condition))
    return params


def unfold(params: Params, num_blocks: int, cond_dim: int) -> Tensors:
    """Returns the published tensors whose `fold` is `params`: they ignore sigma, and all shifts are biases of adaLN.

    All are float32.
    """
    names = per_block(NAMES, num_blocks)
    tensors = {theirs: transposed(ours, np.asarray(leaf(params, ours), np.float32)) for ours, theirs in names.items()}
    for block in range(num_blocks):
        _unfold_block(tensors, f"blocks.{block}.", cond_dim)
    final = "output_layer."
    shift = tensors.pop(f"{final}norm_final.bias")
    _add_modulation(tensors, final, [shift, np.zeros_like(shift)], cond_dim)
    for layer, inputs in ((0, 2 * NUM_FREQUENCIES), (2, cond_dim)):
        tensors[f"sigma_map.mlp.{layer}.weight"] = np.zeros((cond_dim, inputs), np.float32)
        tensors[f"sigma_map.mlp.{layer}.bias"] = np.zeros(cond_dim, np.float32)
    return tensors


def _condition(read: Read) -> Float[np.ndarray, "c"]:
    """Returns the vector that modulates the blocks at sigma = 0, whose features are cosines 1 and sines 0."""
    features = np.repeat([1.0, 0.0], NUM_FREQUENCIES)
    for layer in (0, 2):
        features = silu(read(f"sigma_map.mlp.{layer}.weight") @ features + read(f"sigma_map.mlp.{layer}.bias"))
    return features


def silu(x: Float[np.ndarray, "c"]) -> Float[np.ndarray, "c"]:
    return x * 0.5 * (1 + np.tanh(0.5 * x))  # x/(1 + exp(−x)) without overflow


def _modulation(read: Read, layer: str, condition: Float[np.ndarray, "c"], num: int) -> list[Float[np.ndarray, "h"]]:
    """Returns the constant shifts, scales and gates of a layer."""
    modulation = read(f"{layer}adaLN_modulation.weight") @ condition + read(f"{layer}adaLN_modulation.bias")
    return np.split(modulation.astype(np.float32), num)


def _add_modulation(tensors: Tensors, layer: str, parts: list[Float[np.ndarray, "h"]], cond_dim: int) -> None:
    """Adds the modulation of a layer that has these constants whatever sigma is."""
    bias = np.concatenate(parts)
    tensors[f"{layer}adaLN_modulation.weight"] = np.zeros((len(bias), cond_dim), np.float32)
    tensors[f"{layer}adaLN_modulation.bias"] = bias


def _folded_norm(read: Read, condition: Float[np.ndarray, "c"]) -> Tensors:
    """Returns the last norm with its modulation."""
    shift, scale = _modulation(read, "output_layer.", condition, 2)
    weight = read("output_layer.norm_final.weight") * (1 + scale)
    return {"output_layer.norm_final.weight": weight, "output_layer.norm_final.bias": shift}


def _folded_block(read: Read, block: str, condition: Float[np.ndarray, "c"]) -> Tensors:
    """Returns the norms and the gated layers of a block with its modulation, and its queries, keys and values."""
    parts = _modulation(read, block, condition, 6)
    thirds = np.split(read(f"{block}attn_qkv.weight"), 3)
    tensors = {f"{block}{name}.weight": third for name, third in zip(QKV, thirds, strict=True)}
    for (norm, gated), (shift, scale, gate) in zip(MODULATED.items(), (parts[:3], parts[3:]), strict=True):
        tensors[f"{block}{norm}.weight"] = read(f"{block}{norm}.weight") * (1 + scale)
        tensors[f"{block}{norm}.bias"] = shift
        tensors |= {f"{block}{name}": (read(f"{block}{name}").T * gate).T for name in gated}
    return tensors


def _unfold_block(tensors: Tensors, block: str, cond_dim: int) -> None:
    """Replaces the folded tensors of a block by the published ones, with gates of one."""
    thirds = [tensors.pop(f"{block}{name}.weight") for name in QKV]
    tensors[f"{block}attn_qkv.weight"] = np.concatenate(thirds)
    shifts = [tensors.pop(f"{block}{norm}.bias") for norm in MODULATED]
    parts = [part for shift in shifts for part in (shift, np.zeros_like(shift), np.ones_like(shift))]
    _add_modulation(tensors, block, parts, cond_dim)
