"""A published checkpoint by itself, without a run: its config, its tokenizer and its parameters."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from jtextdiff.cli.errors import UserError
from jtextdiff.data.corpus import Text
from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.devices.memory import check_memory
from jtextdiff.devices.sharding import make_mesh, shardings
from jtextdiff.methods.components.types import TextSpec, text_spec_of
from jtextdiff.nets.functional import Params
from jtextdiff.pretrained.checkpoint_files import CONFIG, Checkpoint, is_bfloat16, read_json
from jtextdiff.pretrained.families import model_type_of, network_of, open_source
from jtextdiff.pretrained.start import BY_ITSELF, PRETRAINED, read_params, read_tokenizer, tokenizer_spec, update
from jtextdiff.run.checkpoints import shapes_of
from jtextdiff.run.config import Config, build, spec
from jtextdiff.run.config_files import base_config, override

MOST_TOKENS = 1024
"""Tokens, at most, of its texts: few samples are all computed at the longest length. `text.length` changes it."""


def is_published(source: str | Path) -> bool:
    """Returns whether this names a published checkpoint, "hub:NAME" or its folder, and not a run."""
    if str(source).startswith("hub:"):
        return True
    try:
        return model_type_of(json.loads((Path(source) / CONFIG).read_text(encoding="utf-8"))) is not None
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def read_model(source: str | Path, overrides: Sequence[str] = (), how: str = BY_ITSELF) -> dict[str, Any]:
    """Returns the fields of the `Model` of a checkpoint, with its parameters on the devices.

    Raises UserError for whatever cannot be read, or does not fit into memory. `how` says in a message how another
    tokenizer is given.
    """
    checkpoint = open_source(source)
    config, tokens = standalone_config(checkpoint, overrides, how)
    method = build(config.method)
    return {
        "method": method,
        "params": standalone_params(checkpoint, config),
        "tokenizer": tokens,
        "config": config,
        "step": 0,
    }


def standalone_config(checkpoint: Checkpoint, overrides: Sequence[str], how: str) -> tuple[Config, Tokenizer]:
    """Returns the config of a checkpoint, changed by `overrides`, and its tokenizer; no tensor is read.

    The tokenizer is that of its folder, or of `overrides`. All texts have the longest length, at most MOST_TOKENS.
    Parameters stay bfloat16 if all are stored so and copied. Raises UserError for whatever cannot be read.
    """
    network = network_of(checkpoint)
    half = is_bfloat16(checkpoint, [network.prefix + name for name in network.tensors])
    config = _without_text(checkpoint, half, overrides)
    given, length = config.text.tokenizer, config.text.length
    if given and not given.startswith(PRETRAINED):
        raise UserError(f"text.tokenizer must be '{PRETRAINED}NAME' or '{PRETRAINED}FOLDER', got {given!r}.")
    config.text.tokenizer, config.init = tokenizer_spec(checkpoint, given, how), checkpoint.source
    tokens = read_tokenizer(checkpoint, config.text.tokenizer, how)
    return _with_text_spec(config, text_spec_of(tokens, length, (0,) * length + (1,))), tokens


def config_of_shapes(folder: Path, overrides: Sequence[str] = ()) -> Config:
    """Returns the config of a checkpoint of which config.json alone is read: each row is a token.

    Raises UserError if it cannot be read, or is not a folder.
    """
    if str(folder).startswith("hub:"):
        raise UserError(
            f"{folder} would be downloaded: give a folder that holds its {CONFIG}, which is all that is read."
        )
    checkpoint = Checkpoint(str(folder), folder, read_json(folder / CONFIG), {})
    half = "bfloat16" in (checkpoint.config.get("dtype"), checkpoint.config.get("torch_dtype"))
    config, rows = _without_text(checkpoint, half, overrides), network_of(checkpoint).rows
    length = config.text.length
    return _with_text_spec(config, TextSpec(vocab_size=rows, mask=rows - 1, length=length, length_counts=(1,) * length))


def _without_text(checkpoint: Checkpoint, half: bool, overrides: Sequence[str]) -> Config:
    """Returns the config of a checkpoint without the fields of its vocabulary."""
    network = network_of(checkpoint)
    method, longest = spec(network.method), network.settings["trunk"]["max_length"]
    update(method, network.settings)
    if "param_dtype" in method and half and not network.computed:
        method.param_dtype = "bfloat16"
    text = spec(Text, length=min(longest, MOST_TOKENS), tokenizer="")
    config = override(base_config(method, None, num_steps=0, batch_size=1, text=text), overrides)
    if config.method.get("lora_rank"):
        raise UserError("method.lora_rank is for training: give it to a run that starts from the checkpoint.")
    if not 1 <= config.text.length <= longest:
        raise UserError(
            f"text.length must be from 1 to {longest}, the positions of {checkpoint.source}; got {config.text.length}."
        )
    return config


def _with_text_spec(config: Config, text_spec: TextSpec) -> Config:
    with config.unlocked():
        config.method.text_spec = spec(TextSpec, **vars(text_spec))
    return config


def standalone_params(checkpoint: Checkpoint, config: Config) -> Params:
    """Returns the parameters of a checkpoint on the devices. Raises UserError, before reading, if they do not fit."""
    method = build(config.method)
    shapes = jax.eval_shape(method.init, jax.random.key(0))
    shapes = shapes_of(shapes, shardings(make_mesh(**config.mesh), shapes))
    wide = config.method.get("param_dtype") == "float32"
    check_memory(shapes, f"The parameters of {checkpoint.source}", can_be_half=wide)
    return read_params(checkpoint, method.text_spec, shapes)
