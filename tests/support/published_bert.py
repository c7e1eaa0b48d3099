"""Toy checkpoints in the layout of BERT, and an independent forward pass of that network in NumPy."""

import json
from math import erf
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from support.published import Tensors, write_tokenizer
from support.published_llama import MASKED_WORDS

CONFIG = {
    "model_type": "bert",
    "vocab_size": 20,
    "hidden_size": 15,
    "intermediate_size": 22,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "max_position_embeddings": 12,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "position_embedding_type": "absolute",
}


def config_json(**changes: Any) -> dict[str, Any]:
    """Returns the config.json of a toy with 20 tokens, MASK included."""
    return CONFIG | changes


def random_tensors(config: dict[str, Any], seed: int = 0) -> Tensors:
    """Returns tensors of a network of this config; none is zero, biases included."""
    rng = np.random.default_rng(seed)
    rows, width, hidden = (config[name] for name in ("vocab_size", "hidden_size", "intermediate_size"))
    tables = {"word": rows, "position": config["max_position_embeddings"], "token_type": config["type_vocab_size"]}
    shapes: dict[str, tuple[int, ...]] = {
        f"bert.embeddings.{name}_embeddings.weight": (size, width) for name, size in tables.items()
    }
    norms, dense = ["bert.embeddings", "cls.predictions.transform"], {"cls.predictions.transform": (width, width)}
    for layer in range(config["num_hidden_layers"]):
        name = f"bert.encoder.layer.{layer}"
        norms += [f"{name}.attention.output", f"{name}.output"]
        dense |= {f"{name}.attention.self.{part}": (width, width) for part in ("query", "key", "value")}
        dense |= {f"{name}.attention.output": (width, width), f"{name}.intermediate": (hidden, width)}
        dense |= {f"{name}.output": (width, hidden)}
    for name, shape in dense.items():
        layer = name if "self" in name else f"{name}.dense"
        shapes |= {f"{layer}.weight": shape, f"{layer}.bias": shape[:1]}
    shapes |= {f"{name}.LayerNorm.{part}": (width,) for name in norms for part in ("weight", "bias")}
    shapes["cls.predictions.bias"] = (rows,)
    drawn = {
        name: rng.normal(size=shape) * (0.5 if len(shape) == 1 else shape[-1] ** -0.5) for name, shape in shapes.items()
    }
    return {name: array.astype(np.float32) for name, array in drawn.items()}


def write_checkpoint(folder: Path, config: dict[str, Any], tensors: Tensors | None = None) -> Tensors:
    """Writes a checkpoint with a tokenizer into a folder and returns its tensors, random ones if none are given."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = random_tensors(config) if tensors is None else tensors
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    write_tokenizer(folder, MASKED_WORDS, mask_token="<mask>")
    return tensors


def forward(config: dict[str, Any], tensors: Tensors, tokens: np.ndarray) -> np.ndarray:
    """Returns the logits [b, l, rows] of the published network for texts that are one segment, in float64."""
    p = {name: array.astype(np.float64) for name, array in tensors.items()}
    words, positions, segments = (
        p[f"bert.embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
    )
    x = _norm(config, p, "bert.embeddings", words[tokens] + positions[: tokens.shape[1]] + segments[0])
    for layer in range(config["num_hidden_layers"]):
        x = _layer(config, p, f"bert.encoder.layer.{layer}.", x)
    hidden = _gelu(_dense(p, "cls.predictions.transform.dense", x))
    return _norm(config, p, "cls.predictions.transform", hidden) @ words.T + p["cls.predictions.bias"]


def _layer(config: dict[str, Any], p: Tensors, name: str, x: np.ndarray) -> np.ndarray:
    (batch, length, width), heads = x.shape, config["num_attention_heads"]
    query, key, value = (
        np.swapaxes(_dense(p, f"{name}attention.self.{part}", x).reshape(batch, length, heads, width // heads), 1, 2)
        for part in ("query", "key", "value")
    )
    weights = np.exp(query @ np.swapaxes(key, -1, -2) / np.sqrt(width // heads))
    mixed = np.swapaxes(weights / weights.sum(-1, keepdims=True) @ value, 1, 2).reshape(x.shape)
    x = _norm(config, p, f"{name}attention.output", x + _dense(p, f"{name}attention.output.dense", mixed))
    hidden = _gelu(_dense(p, f"{name}intermediate.dense", x))
    return _norm(config, p, f"{name}output", x + _dense(p, f"{name}output.dense", hidden))


def _dense(p: Tensors, name: str, x: np.ndarray) -> np.ndarray:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def _gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))


def _norm(config: dict[str, Any], p: Tensors, name: str, x: np.ndarray) -> np.ndarray:
    normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + config["layer_norm_eps"])
    return normed * p[f"{name}.LayerNorm.weight"] + p[f"{name}.LayerNorm.bias"]
