"""Toy checkpoints in the layout of ModernBERT, and an independent forward pass of that network in NumPy."""

import json
from math import erf
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from support.published import Tensors, write_tokenizer
from support.published_llama import MASKED_WORDS

CONFIG = {
    "model_type": "modernbert",
    "vocab_size": 20,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "max_position_embeddings": 12,
    "global_attn_every_n_layers": 3,
    "local_attention": 4,
    "norm_eps": 1e-5,
    "rope_parameters": {
        "full_attention": {"rope_theta": 160_000.0, "rope_type": "default"},
        "sliding_attention": {"rope_theta": 10_000.0, "rope_type": "default"},
    },
}


def config_json(**changes: Any) -> dict[str, Any]:
    """Returns the config.json of a toy with 20 tokens, MASK included."""
    return CONFIG | changes


def random_tensors(config: dict[str, Any], seed: int = 0) -> Tensors:
    """Returns tensors of a network of this config; none is zero, the bias included."""
    rng = np.random.default_rng(seed)
    rows, width, hidden = (config[name] for name in ("vocab_size", "hidden_size", "intermediate_size"))
    shapes: dict[str, tuple[int, ...]] = {"model.embeddings.tok_embeddings.weight": (rows, width)}
    shapes |= dict.fromkeys(("model.embeddings.norm.weight", "model.final_norm.weight", "head.norm.weight"), (width,))
    shapes |= {"head.dense.weight": (width, width), "decoder.bias": (rows,)}
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        norms = [f"{name}.mlp_norm.weight"] + [f"{name}.attn_norm.weight"] * (layer > 0)
        shapes |= dict.fromkeys(norms, (width,))
        shapes |= {f"{name}.attn.Wqkv.weight": (3 * width, width), f"{name}.attn.Wo.weight": (width, width)}
        shapes |= {f"{name}.mlp.Wi.weight": (2 * hidden, width), f"{name}.mlp.Wo.weight": (width, hidden)}
    drawn = {
        name: 1 + 0.5 * rng.normal(size=shape) if len(shape) == 1 else rng.normal(size=shape) * shape[-1] ** -0.5
        for name, shape in shapes.items()
    }
    return {name: array.astype(np.float32) for name, array in drawn.items()}


def write_checkpoint(folder: Path, config: dict[str, Any]) -> Tensors:
    """Writes a checkpoint with a tokenizer into a folder and returns its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = random_tensors(config)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    write_tokenizer(folder, MASKED_WORDS, mask_token="<mask>")
    return tensors


def forward(config: dict[str, Any], tensors: Tensors, tokens: np.ndarray) -> np.ndarray:
    """Returns the outputs [b, l, rows] of the published network, in float64."""
    p = {name: array.astype(np.float64) for name, array in tensors.items()}
    table = p["model.embeddings.tok_embeddings.weight"]
    x = _norm(table[tokens]) * p["model.embeddings.norm.weight"]
    for layer in range(config["num_hidden_layers"]):
        x = _layer(config, p, x, layer)
    x = _norm(x) * p["model.final_norm.weight"]
    return _norm(_gelu(x @ p["head.dense.weight"].T)) * p["head.norm.weight"] @ table.T + p["decoder.bias"]


def _layer(config: dict[str, Any], p: Tensors, x: np.ndarray, layer: int) -> np.ndarray:
    name, heads, (batch, length, width) = f"model.layers.{layer}", config["num_attention_heads"], x.shape
    full, distance = layer % config["global_attn_every_n_layers"] == 0, np.arange(length)
    allowed = np.abs(distance[:, None] - distance) <= (length if full else config["local_attention"] // 2)
    base = config["rope_parameters"]["full_attention" if full else "sliding_attention"]["rope_theta"]
    inputs = x if layer == 0 else _norm(x) * p[f"{name}.attn_norm.weight"]
    qkv = (inputs @ p[f"{name}.attn.Wqkv.weight"].T).reshape(batch, length, 3, heads, width // heads)
    query, key, value = (np.moveaxis(qkv[:, :, i], 2, 1) for i in range(3))
    logits = _rotated(query, base) @ np.swapaxes(_rotated(key, base), -1, -2) / np.sqrt(width // heads)
    weights = np.where(allowed, np.exp(logits - logits.max(-1, keepdims=True)), 0.0)
    mixed = np.moveaxis(weights / weights.sum(-1, keepdims=True) @ value, 1, 2).reshape(x.shape)
    x = x + mixed @ p[f"{name}.attn.Wo.weight"].T
    gate, up = np.split(_norm(x) * p[f"{name}.mlp_norm.weight"] @ p[f"{name}.mlp.Wi.weight"].T, 2, axis=-1)
    return x + _gelu(gate) * up @ p[f"{name}.mlp.Wo.weight"].T


def _gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))


def _norm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def _rotated(x: np.ndarray, base: float) -> np.ndarray:
    half = x.shape[-1] // 2
    angles = np.arange(x.shape[-2])[:, None] * base ** (-np.arange(half) / half)
    turned = np.exp(1j * angles) * (x[..., :half] + 1j * x[..., half:])
    return np.concatenate([turned.real, turned.imag], axis=-1)
