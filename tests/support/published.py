"""Toy checkpoints in the layout of MDLM and BD3-LM, and an independent forward pass of that network in NumPy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

WORDS = [
    "<pad>",
    "<eos>",
    "<unk>",
    "The",
    "Mill",
    "Swan",
    "Oak",
    "Crown",
    "is",
    "cheap",
    "dear",
    "small",
    ".",
    "near",
    "a",
    "pub",
    "the",
    "river",
    "it",
    "has",
]
"""The tokenizer of the toys: 20 tokens, to which MASK is added."""

Tensors = dict[str, np.ndarray]


def config_json(kind: str = "mdlm", **changes: Any) -> dict[str, Any]:
    """Returns the config.json of a toy with 20 tokens and MASK."""
    sizes = {"vocab_size": 21, "hidden_dim": 16, "cond_dim": 6, "n_blocks": 2, "n_heads": 2, "model_length": 12}
    of_kind = {"block_size": 3, "cross_attn": True, "adaln": True, "causal": False} if kind == "bd3lm" else {}
    return {"model_type": kind, **sizes, "dropout": 0.0, "time_conditioning": False, **of_kind, **changes}


def random_tensors(config: dict[str, Any], seed: int = 0) -> Tensors:
    """Returns tensors of a network of this config; none is zero, biases and adaLN included."""
    rng = np.random.default_rng(seed)
    rows, width, cond = config["vocab_size"], config["hidden_dim"], config["cond_dim"]
    shapes: dict[str, tuple[int, ...]] = {"vocab_embed.embedding": (rows, width)}
    shapes |= _linear("sigma_map.mlp.0", cond, 256) | _linear("sigma_map.mlp.2", cond, cond)
    for block in range(config["n_blocks"]):
        name = f"blocks.{block}"
        shapes |= {f"{name}.norm1.weight": (width,), f"{name}.norm2.weight": (width,)}
        shapes |= {f"{name}.attn_qkv.weight": (3 * width, width), f"{name}.attn_out.weight": (width, width)}
        shapes |= _linear(f"{name}.mlp.0", 4 * width, width) | _linear(f"{name}.mlp.2", width, 4 * width)
        shapes |= _linear(f"{name}.adaLN_modulation", 6 * width, cond)
    shapes |= {"output_layer.norm_final.weight": (width,)} | _linear("output_layer.linear", rows, width)
    shapes |= _linear("output_layer.adaLN_modulation", 2 * width, cond)
    drawn = {
        name: rng.normal(size=shape) * (0.5 if len(shape) == 1 else shape[-1] ** -0.5) for name, shape in shapes.items()
    }
    return {f"backbone.{name}": array.astype(np.float32) for name, array in drawn.items()}


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def write_checkpoint(folder: Path, config: dict[str, Any], tensors: Tensors | None = None) -> Tensors:
    """Writes a checkpoint with a tokenizer into a folder and returns its tensors, random ones if none are given."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = random_tensors(config) if tensors is None else tensors
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    write_tokenizer(folder)
    return tensors


def write_tokenizer(folder: Path, words: list[str] = WORDS, **named: str) -> None:
    """Writes a tokenizer of these words; special tokens besides EOS, PAD and UNK are `named`."""
    import tokenizers as hf

    tokenizer = hf.Tokenizer(hf.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = hf.pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    specials = {"eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>", **named}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **specials})
    )


def forward(
    config: dict[str, Any],
    tensors: Tensors,
    tokens: np.ndarray,
    clean: np.ndarray | None = None,
    sigma: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Returns the raw outputs [b, l, rows] of the published network at sigma, one or one per text, in float64.

    With `clean` [b, l] they are those of block diffusion. A network of labelled texts is given no label.
    """
    p = {name.removeprefix("backbone."): array.astype(np.float64) for name, array in tensors.items()}
    length, blocks = tokens.shape[1], np.arange(tokens.shape[1]) // config.get("block_size", 1)
    positions, allowed = np.arange(length), np.ones((length, length), bool)
    if clean is not None:
        tokens, positions = np.concatenate([tokens, clean], axis=1), np.tile(positions, 2)
        own, before = blocks[:, None] == blocks, blocks[:, None] > blocks
        allowed = np.block([[own, before], [np.zeros_like(own), own | before]])
    angles = np.reshape(sigma, (-1, 1, 1)) * 10_000.0 ** (-np.arange(128) / 128)
    c = np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)
    for layer in (0, 2):
        c = _silu(_dense(p, f"sigma_map.mlp.{layer}", c))
    if "cond_map.embedding_table.weight" in p:
        c = c + _silu(p["cond_map.embedding_table.weight"][-1])
    x = p["vocab_embed.embedding"][tokens]
    for number in range(config["n_blocks"]):
        x = _block(p, f"blocks.{number}.", x, c, positions, allowed, config["n_heads"])
    shift, scale = np.split(_dense(p, "output_layer.adaLN_modulation", c), 2, axis=-1)
    x = _norm(x) * p["output_layer.norm_final.weight"] * (1 + scale) + shift
    return _dense(p, "output_layer.linear", x[:, :length])


def _block(p: Tensors, name: str, x: np.ndarray, c: np.ndarray, positions: Any, allowed: Any, heads: int) -> np.ndarray:
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = np.split(_dense(p, f"{name}adaLN_modulation", c), 6, axis=-1)
    inputs = _norm(x) * p[f"{name}norm1.weight"] * (1 + scale_a) + shift_a
    batch, length, width = x.shape
    qkv = (inputs @ p[f"{name}attn_qkv.weight"].T).reshape(batch, length, 3, heads, width // heads)
    query, key, value = (np.moveaxis(qkv[:, :, i], 2, 1) for i in range(3))
    logits = _rotated(query, positions) @ np.swapaxes(_rotated(key, positions), -1, -2) / np.sqrt(width // heads)
    weights = np.where(allowed, np.exp(logits - logits.max(-1, keepdims=True)), 0.0)
    mixed = np.moveaxis(weights / weights.sum(-1, keepdims=True) @ value, 1, 2).reshape(x.shape)
    x = x + gate_a * (mixed @ p[f"{name}attn_out.weight"].T)
    hidden = _dense(p, f"{name}mlp.0", _norm(x) * p[f"{name}norm2.weight"] * (1 + scale_m) + shift_m)
    hidden = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
    return x + gate_m * _dense(p, f"{name}mlp.2", hidden)


def _dense(p: Tensors, name: str, x: np.ndarray) -> np.ndarray:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def _silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def _norm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def _rotated(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    half = x.shape[-1] // 2
    turned = np.exp(1j * positions[:, None] * 10_000.0 ** (-np.arange(half) / half)) * (
        x[..., :half] + 1j * x[..., half:]
    )
    return np.concatenate([turned.real, turned.imag], axis=-1)


def denoised(raw: np.ndarray, tokens: np.ndarray, mask: int) -> np.ndarray:
    """Returns what the published code does to raw outputs: log-softmax without MASK; a written word has log p = 0."""
    raw = np.where(np.arange(raw.shape[-1]) == mask, -np.inf, raw)
    top = raw.max(-1, keepdims=True)
    log_p = raw - top - np.log(np.exp(raw - top).sum(-1, keepdims=True))
    written = np.where(np.arange(raw.shape[-1]) == tokens[..., None], 0.0, -np.inf)
    return np.where((tokens == mask)[..., None], log_p, written)
