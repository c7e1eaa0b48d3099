"""A run that starts from a published checkpoint: its settings, its tokenizer and its parameters."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jtextdiff.cli.errors import UserError, mistakes
from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.data.tokenizer_builders import tokenizer_builder
from jtextdiff.methods.components.types import TextSpec
from jtextdiff.methods.method import Trainable
from jtextdiff.nets.functional import Params
from jtextdiff.pretrained.checkpoint_files import Checkpoint
from jtextdiff.pretrained.families import network_of, open_source
from jtextdiff.pretrained.layouts.tables import Read, leaf
from jtextdiff.pretrained.network import Network
from jtextdiff.pretrained.parts import PARTS, part_of_vae, with_part
from jtextdiff.pretrained.vocabulary import num_rows, take_rows
from jtextdiff.run.checkpoints import has_checkpoints
from jtextdiff.run.config import Config, class_of
from jtextdiff.run.workdir import read_config

PRETRAINED = "pretrained:"

TOKENIZER = "tokenizer.json"

IN_TRAINING = f"--config.text.tokenizer={PRETRAINED}NAME"
BY_ITSELF = f"--override text.tokenizer={PRETRAINED}NAME, or tokenizer='{PRETRAINED}NAME' in Python"
"""How the tokenizer of a checkpoint is given to a run that starts from it, and to a command that reads it."""

TRAINED_AND_COMPUTED = ("dropout", "init", "bfloat16", "scan", "remat")
"""Settings of a trunk that stay those of the config. The others come from the checkpoint."""

OUTSIDE_TRUNK = ("reads_length", "time_input", "kernel", "form", "block_size", "head")
"""Settings of a method that come from the checkpoint."""


def with_settings(config: Config, workdir: Path) -> Config:
    """Returns a config with the network and the tokenizer of the checkpoint that its `init` names, if there is one.

    A resumed run keeps its own, and reads the checkpoint no more. Raises UserError for a checkpoint that cannot be
    read, or is of another method.
    """
    if not config.get("init"):
        return config
    if config.warm_start:
        raise UserError("A run starts from init or from warm_start, not from both: leave out one of them.")
    config = copy.deepcopy(config)
    if has_checkpoints(workdir):
        return _with_settings_of_run(config, read_config(workdir))
    checkpoint = open_source(config.init)
    network = network_of(checkpoint)
    part = part_of_vae(class_of(config.method), network)
    _check_method(config, network, checkpoint, part)
    update(config.method, network.settings if part is None else {part: network.settings["trunk"]})
    # A preset of a text VAE names the tokenizer of one of its published parts, which may not be this one.
    own = part is not None and (checkpoint.folder / TOKENIZER).is_file()
    config.text.tokenizer = tokenizer_spec(checkpoint, "" if own else config.text.tokenizer, IN_TRAINING)
    read_tokenizer(checkpoint, config.text.tokenizer, IN_TRAINING)
    return config


def tokenizer_spec(checkpoint: Checkpoint, given: str, how: str) -> str:
    """Returns the `text.tokenizer` of a checkpoint: the `given` one if it is a pretrained one, else that of its folder.

    Raises UserError, with `how` to give one, if there is neither.
    """
    if given.startswith(PRETRAINED):
        return given
    if not (checkpoint.folder / TOKENIZER).is_file():
        raise UserError(
            f"{checkpoint.source} has no tokenizer.json. Give the tokenizer that it was trained with, such as "
            f"{PRETRAINED}gpt2: {how}."
        )
    return f"{PRETRAINED}{checkpoint.folder}"


def read_tokenizer(checkpoint: Checkpoint, name: str, how: str) -> Tokenizer:
    """Returns a tokenizer.

    Raises UserError, with `how` to give another, if it does not fit the rows or the MASK of the checkpoint.
    """
    with mistakes(FileNotFoundError, ValueError):
        tokenizer = tokenizer_builder(name).train([])
    network, source, mask = network_of(checkpoint), checkpoint.source, tokenizer.mask
    reads_mask = network.mask_kind != "none"
    needed, included = num_rows(tokenizer, with_mask=reads_mask), ", MASK included" if reads_mask else ""
    remedy = f"Give the tokenizer that it was trained with: {how}."
    if network.mask_kind == "token" and mask >= tokenizer.vocab_size:
        raise UserError(
            f"{source}: neither mask_token_id in config.json nor mask_token in tokenizer_config.json names MASK, "
            f"which must be a token of the tokenizer. {remedy}"
        )
    if network.mask not in (None, mask):
        raise UserError(f"{source}: config.json has mask_token_id = {network.mask}, the tokenizer {mask}. {remedy}")
    if network.rows < needed:
        raise UserError(
            f"{source} has {network.rows:,} rows of embeddings, and the tokenizer {needed:,} tokens{included}. {remedy}"
        )
    return tokenizer


def start_params(checkpoint: Checkpoint, method: Trainable, shapes: Params, fresh: Callable[[], Params]) -> Params:
    """Returns the parameters of a method that starts from a checkpoint: all of them, or `fresh` ones with its part.

    `shapes` has the type and the sharding of each.
    """
    network = network_of(checkpoint)
    if part_of_vae(type(method), network) is not None:
        return with_part(fresh(), network, _reader(checkpoint, network, method.text_spec))
    return read_params(checkpoint, method.text_spec, shapes)


def read_params(checkpoint: Checkpoint, text_spec: TextSpec, shapes: Params) -> Params:
    """Returns the parameters of a checkpoint in our names, with the rows of a text's vocabulary.

    Each array is put on the devices as it is read; `shapes` has the type and the sharding of each.
    """
    network = network_of(checkpoint)

    def place(name: str, array: Float[np.ndarray, "..."]) -> Any:
        target = leaf(shapes, name)
        return jax.block_until_ready(jax.device_put(array.astype(target.dtype, copy=False), target.sharding))

    return network.fold(_reader(checkpoint, network, text_spec), place)


def _reader(checkpoint: Checkpoint, network: Network, text_spec: TextSpec) -> Read:
    """Returns what reads the tensors of a checkpoint, with the rows of a text's vocabulary."""

    def read(name: str) -> Float[np.ndarray, "..."]:
        array = take_rows(name, checkpoint.read(network.prefix + name), text_spec)
        return array.astype(np.float32, copy=False) if network.computed else array

    return read


def described(checkpoint: Checkpoint, text_spec: TextSpec) -> str:
    """Returns a line with the source of a checkpoint and the number of its parameters."""
    network = network_of(checkpoint)
    count = sum(map(math.prod, network.tensors.values()))
    padding = network.rows - num_rows(text_spec, with_mask=network.mask_kind != "none")
    left_out = f", {padding:,} rows of padding left out" if padding else ""
    return f"{network.model_type} checkpoint {checkpoint.source}: {count:,} parameters{left_out}"


def _check_method(config: Config, network: Network, checkpoint: Checkpoint, part: str | None) -> None:
    if part is None and class_of(config.method) is not network.method:
        raise UserError(
            f"{checkpoint.source} is a {network.model_type} checkpoint, the method of "
            f"{network.config_file}; give --config {network.config_file}."
        )
    if config.method.get("self_conditioning"):
        raise UserError("method.self_conditioning must be 0: published checkpoints have no such network.")


def update(config: Config, fields: dict[str, Any]) -> None:
    """Sets fields of a spec, and of the specs within it."""
    for name, value in fields.items():
        if isinstance(value, dict):
            update(config[name], value)
        else:
            config[name] = value


def _with_settings_of_run(config: Config, stored: Config) -> Config:
    """Returns a config with the network and tokenizer of the run that it resumes."""
    if class_of(config.method) is class_of(stored.method):
        for part in {"trunk", *PARTS.values()} & set(stored.method):
            network = set(stored.method[part]) - set(TRAINED_AND_COMPUTED)
            config.method[part].update({name: stored.method[part][name] for name in network})
        config.method.update({name: stored.method[name] for name in OUTSIDE_TRUNK if name in stored.method})
    config.text.tokenizer = stored.text.tokenizer
    return config
