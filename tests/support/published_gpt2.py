"""Toy checkpoints in the layout of GPT-2, and an independent forward pass of that network in NumPy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from support.published import Tensors, write_tokenizer

CONFIG = {
    "model_type": "gpt2",
    "vocab_size": 20,
    "n_positions": 12,
    "n_embd": 15,
    "n_layer": 2,
    "n_head": 3,
    "n_inner": None,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
}
"""Heads have an odd width, which a rotation could not have."""

PREFIX = "transformer."


def config_json(**changes: Any) -> dict[str, Any]:
    """Returns the config.json of a toy with 20 tokens and no MASK."""
    return CONFIG | changes


def random_tensors(config: dict[str, Any], seed: int = 0) -> Tensors:
    """Returns tensors of a network of this config; none is zero, biases included."""
    rng = np.random.default_rng(seed)
    width, hidden = config["n_embd"], config["n_inner"] or 4 * config["n_embd"]
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (config["vocab_size"], width),
        "wpe.weight": (config["n_positions"], width),
    }
    for norm in ("ln_f", *(f"h.{n}.ln_{part}" for n in range(config["n_layer"]) for part in (1, 2))):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for number in range(config["n_layer"]):
        sizes = {"attn.c_attn": (width, 3 * width), "attn.c_proj": (width, width)}
        sizes |= {"mlp.c_fc": (width, hidden), "mlp.c_proj": (hidden, width)}
        for name, size in sizes.items():
            shapes |= {f"h.{number}.{name}.weight": size, f"h.{number}.{name}.bias": size[1:]}
    drawn = {
        PREFIX + name: rng.normal(size=shape) * (0.5 if len(shape) == 1 else shape[-1] ** -0.5)
        for name, shape in shapes.items()
    }
    return {name: array.astype(np.float32) for name, array in drawn.items()}


def write_checkpoint(folder: Path, config: dict[str, Any], tensors: Tensors | None = None) -> Tensors:
    """Writes a checkpoint with a tokenizer into a folder and returns its tensors, random ones if none are given."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = random_tensors(config) if tensors is None else tensors
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    write_tokenizer(folder)
    return tensors


def forward(config: dict[str, Any], tensors: Tensors, tokens: np.ndarray) -> np.ndarray:
    """Returns the logits [b, l, rows] of the published network, in float64."""
    p = {name.removeprefix(PREFIX): array.astype(np.float64) for name, array in tensors.items()}
    x = p["wte.weight"][tokens] + p["wpe.weight"][: tokens.shape[1]]
    for number in range(config["n_layer"]):
        x = _block(config, p, f"h.{number}.", x)
    return _norm(config, p, "ln_f", x) @ p["wte.weight"].T


def _block(config: dict[str, Any], p: Tensors, name: str, x: np.ndarray) -> np.ndarray:
    (batch, length, width), heads = x.shape, config["n_head"]
    qkv = _conv(p, f"{name}attn.c_attn", _norm(config, p, f"{name}ln_1", x))
    query, key, value = (
        np.swapaxes(part.reshape(batch, length, heads, width // heads), 1, 2) for part in np.split(qkv, 3, axis=-1)
    )
    logits = query @ np.swapaxes(key, -1, -2) / np.sqrt(width // heads)
    weights = np.where(np.tril(np.ones((length, length), bool)), np.exp(logits), 0.0)
    mixed = np.swapaxes(weights / weights.sum(-1, keepdims=True) @ value, 1, 2).reshape(x.shape)
    x = x + _conv(p, f"{name}attn.c_proj", mixed)
    hidden = _conv(p, f"{name}mlp.c_fc", _norm(config, p, f"{name}ln_2", x))
    hidden = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
    return x + _conv(p, f"{name}mlp.c_proj", hidden)


def _conv(p: Tensors, name: str, x: np.ndarray) -> np.ndarray:
    return x @ p[f"{name}.weight"] + p[f"{name}.bias"]


def _norm(config: dict[str, Any], p: Tensors, name: str, x: np.ndarray) -> np.ndarray:
    normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + config["layer_norm_epsilon"])
    return normed * p[f"{name}.weight"] + p[f"{name}.bias"]


def log_likelihood(config: dict[str, Any], tensors: Tensors, rows: np.ndarray, eos: int) -> np.ndarray:
    """Returns log p [n] of rows of tokens, each given those before it, the first given `eos`."""
    inputs = np.concatenate([np.full_like(rows[:, :1], eos), rows[:, :-1]], axis=1)
    logits = forward(config, tensors, inputs)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return np.take_along_axis(log_p, rows[..., None], axis=-1)[..., 0].sum(-1)


def write_byte_tokenizer(folder: Path) -> dict[str, int]:
    """Writes a tokenizer of GPT-2's kind, without merges: 256 letters for bytes, one special. Returns the vocabulary.

    As published, the special token is named by the class of the tokenizer alone.
    """
    import tokenizers as hf

    letters = sorted(hf.pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate([*letters, "<|endoftext|>"])}
    tokenizer = hf.Tokenizer(hf.models.BPE(vocab, []))
    tokenizer.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    tokenizer.decoder = hf.decoders.ByteLevel()  # pyright: ignore
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 1024}')
    return vocab
