"""Toy checkpoints in the layouts of the Llama family, and an independent forward pass of these networks in NumPy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from support.published import WORDS, Tensors, write_tokenizer

KINDS = ("llada", "Dream", "a2d-qwen3")
MASK = 19
MASKED_WORDS = [*WORDS[:MASK], "<mask>"]
"""The tokenizer of the toys: 20 tokens, of which MASK is the last."""

LLADA = {
    "embedding_size": 20,
    "d_model": 16,
    "mlp_hidden_size": 24,
    "n_heads": 4,
    "n_kv_heads": 2,
    "n_layers": 2,
    "max_sequence_length": 12,
    "weight_tying": False,
    "block_type": "llama",
    "activation_type": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "mask_token_id": MASK,
}
QWEN = {
    "vocab_size": 20,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "max_position_embeddings": 12,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "rope_scaling": None,
    "use_sliding_window": False,
}
OF_KIND = {
    "llada": LLADA,
    "Dream": QWEN | {"tie_word_embeddings": False, "mask_token_id": MASK},
    "a2d-qwen3": QWEN | {"tie_word_embeddings": True, "head_dim": 6, "attention_bias": False},
}

BLOCKS = {
    "llada": {
        "norm_1": "attn_norm",
        "norm_2": "ff_norm",
        "query": "q_proj",
        "key": "k_proj",
        "value": "v_proj",
        "out": "attn_out",
        "gate": "ff_proj",
        "up": "up_proj",
        "down": "ff_out",
    },
    "qwen": {
        "norm_1": "input_layernorm",
        "norm_2": "post_attention_layernorm",
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "out": "self_attn.o_proj",
        "gate": "mlp.gate_proj",
        "up": "mlp.up_proj",
        "down": "mlp.down_proj",
    },
}
"""A part of a block ↦ its published name."""


def config_json(kind: str, **changes: Any) -> dict[str, Any]:
    """Returns the config.json of a toy with 20 tokens, MASK included."""
    return {"model_type": kind, **OF_KIND[kind], **changes}


def _part(kind: str, block: int, part: str) -> str:
    if kind == "llada":
        return f"model.transformer.blocks.{block}.{BLOCKS['llada'][part]}"
    return f"model.layers.{block}.{BLOCKS['qwen'][part]}"


def _sizes(config: dict[str, Any]) -> tuple[int, ...]:
    """Returns the rows, and the widths of states, feed-forward layers, all queries, all keys and a head."""
    theirs = ("embedding_size", "d_model", "mlp_hidden_size", "n_heads", "n_kv_heads")
    if config["model_type"] != "llada":
        theirs = ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    rows, width, hidden, heads, groups = (config[name] for name in theirs)
    head = config.get("head_dim", width // heads)
    return rows, width, hidden, heads * head, groups * head, head


def _outside(kind: str) -> tuple[str, str, str]:
    """Returns the names of the embedding, the last norm and the output."""
    if kind == "llada":
        return "model.transformer.wte.weight", "model.transformer.ln_f.weight", "model.transformer.ff_out.weight"
    return "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"


def _tied(config: dict[str, Any]) -> bool:
    return config["weight_tying" if config["model_type"] == "llada" else "tie_word_embeddings"]


def random_tensors(config: dict[str, Any], seed: int = 0) -> Tensors:
    """Returns tensors of a network of this config; none is zero, biases included."""
    kind, rng = config["model_type"], np.random.default_rng(seed)
    rows, width, hidden, queries, keys, head = _sizes(config)
    embedding, norm, output = _outside(kind)
    shapes: dict[str, tuple[int, ...]] = {embedding: (rows, width), norm: (width,)}
    if not _tied(config):
        shapes[output] = (rows, width)
    for block in range(config["n_layers" if kind == "llada" else "num_hidden_layers"]):
        of_part = {"norm_1": (width,), "norm_2": (width,), "out": (width, queries), "down": (width, hidden)}
        of_part |= {"query": (queries, width), "key": (keys, width), "value": (keys, width)}
        of_part |= {"gate": (hidden, width), "up": (hidden, width)}
        shapes |= {f"{_part(kind, block, part)}.weight": shape for part, shape in of_part.items()}
        if kind == "Dream":
            shapes |= {f"{_part(kind, block, part)}.bias": of_part[part][:1] for part in ("query", "key", "value")}
        if kind == "a2d-qwen3":
            shapes |= {f"model.layers.{block}.self_attn.{part}_norm.weight": (head,) for part in "qk"}
    drawn = {
        name: 1 + 0.5 * rng.normal(size=shape) if len(shape) == 1 else rng.normal(size=shape) * shape[-1] ** -0.5
        for name, shape in shapes.items()
    }
    return {name: array.astype(np.float32) for name, array in drawn.items()}


def write_checkpoint(folder: Path, config: dict[str, Any], tensors: Tensors | None = None) -> Tensors:
    """Writes a checkpoint with a tokenizer into a folder and returns its tensors, random ones if none are given."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = random_tensors(config) if tensors is None else tensors
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    write_masked_tokenizer(folder)
    return tensors


def write_masked_tokenizer(folder: Path) -> None:
    """Writes a tokenizer that has MASK, but names it only where config.json does not."""
    in_config = "mask_token_id" in json.loads((folder / "config.json").read_text())
    write_tokenizer(folder, MASKED_WORDS, **({} if in_config else {"mask_token": "<mask>"}))


def forward(config: dict[str, Any], tensors: Tensors, tokens: np.ndarray) -> np.ndarray:
    """Returns the outputs [b, l, rows] of the published network, in float64, before any shift."""
    kind, p = config["model_type"], {name: array.astype(np.float64) for name, array in tensors.items()}
    embedding, norm, output = _outside(kind)
    x = p[embedding][tokens]
    for block in range(config["n_layers" if kind == "llada" else "num_hidden_layers"]):
        x = _block(config, p, x, block)
    return _norm(config, x, p[norm]) @ p[embedding if _tied(config) else output].T


def shifted(outputs: np.ndarray) -> np.ndarray:
    """Returns the outputs that Dream reads at each position."""
    return np.concatenate([outputs[:, :1], outputs[:, :-1]], axis=1)


def _block(config: dict[str, Any], p: Tensors, x: np.ndarray, block: int) -> np.ndarray:
    kind, (*_, head) = config["model_type"], _sizes(config)

    def dense(part: str, inputs: np.ndarray) -> np.ndarray:
        name = _part(kind, block, part)
        return inputs @ p[f"{name}.weight"].T + p.get(f"{name}.bias", 0.0)

    inputs = _norm(config, x, p[f"{_part(kind, block, 'norm_1')}.weight"])
    query, key, value = (
        dense(part, inputs).reshape(*x.shape[:2], -1, head).swapaxes(1, 2) for part in ("query", "key", "value")
    )
    if kind == "a2d-qwen3":
        query = _norm(config, query, p[f"model.layers.{block}.self_attn.q_norm.weight"])
        key = _norm(config, key, p[f"model.layers.{block}.self_attn.k_norm.weight"])
    mixed = []
    for number in range(query.shape[1]):
        group = number * key.shape[1] // query.shape[1]
        logits = _rotated(config, query[:, number]) @ _rotated(config, key[:, group]).swapaxes(1, 2) / np.sqrt(head)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        mixed.append(weights / weights.sum(-1, keepdims=True) @ value[:, group])
    x = x + dense("out", np.concatenate(mixed, axis=-1))
    inputs = _norm(config, x, p[f"{_part(kind, block, 'norm_2')}.weight"])
    gate = dense("gate", inputs)
    return x + dense("down", gate / (1 + np.exp(-gate)) * dense("up", inputs))


def _norm(config: dict[str, Any], x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return scale * x / np.sqrt((x**2).mean(-1, keepdims=True) + config["rms_norm_eps"])


def _rotated(config: dict[str, Any], x: np.ndarray) -> np.ndarray:
    """Rotates the vectors of one head, [b, l, e]; channel i is paired with channel i + e/2."""
    half = x.shape[-1] // 2
    angles = np.arange(x.shape[1])[:, None] * config["rope_theta"] ** (-np.arange(half) / half)
    turned = np.exp(1j * angles) * (x[..., :half] + 1j * x[..., half:])
    return np.concatenate([turned.real, turned.imag], axis=-1)
