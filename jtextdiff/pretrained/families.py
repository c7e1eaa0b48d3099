"""The families of published checkpoints that can be read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jtextdiff.cli.errors import UserError, mistakes
from jtextdiff.data.hub import download_checkpoint
from jtextdiff.pretrained.checkpoint_files import Checkpoint, open_checkpoint
from jtextdiff.pretrained.layouts.bert import bert_network
from jtextdiff.pretrained.layouts.dit_kinds import KINDS, SEDD
from jtextdiff.pretrained.layouts.dit_settings import dit_network
from jtextdiff.pretrained.layouts.gpt2 import gpt2_network
from jtextdiff.pretrained.layouts.llama_settings import LLAMAS, llama_network
from jtextdiff.pretrained.layouts.modernbert import modernbert_network
from jtextdiff.pretrained.network import Network, check_tensors, with_current_names
from jtextdiff.run.checkpoints import has_checkpoints

FAMILIES = {
    **dict.fromkeys(KINDS, dit_network),
    **dict.fromkeys(LLAMAS, llama_network),
    "modernbert": modernbert_network,
    "bert": bert_network,
    "gpt2": gpt2_network,
}
"""`model_type` in config.json ↦ what reads it as a network."""


def open_source(source: str | Path) -> Checkpoint:
    """Returns the checkpoint in a folder, or of "hub:NAME", and checks the names and shapes of its tensors.

    Raises UserError for whatever is wrong with it.
    """
    source = str(source)
    if not source.startswith("hub:"):
        if has_checkpoints(Path(source)):
            raise UserError(
                f"init: {source} is a run, not a published checkpoint. To start from its parameters, give warm_start "
                "in place of init; jtextdiff.load reads it."
            )
        checkpoint = open_checkpoint(source, Path(source))
    else:
        with mistakes(FileNotFoundError, ValueError):
            checkpoint = open_checkpoint(source, download_checkpoint(source))
    network = network_of(checkpoint)
    checkpoint = with_current_names(checkpoint, network)
    check_tensors(checkpoint, network)
    return checkpoint


def model_type_of(config: Mapping[str, Any]) -> Any:
    """Returns the model_type of a config.json, None for that of no published checkpoint.

    That of SEDD has none, but the type of a graph.
    """
    graph = config.get("graph")
    return config.get("model_type") or (SEDD if isinstance(graph, dict) and "type" in graph else None)


def network_of(checkpoint: Checkpoint) -> Network:
    """Returns the network of a checkpoint. Raises UserError if its kind is unknown, or its config cannot be read."""
    config, source = checkpoint.config, checkpoint.source
    name = model_type_of(config)
    if not isinstance(name, str) or name not in FAMILIES:
        raise UserError(
            f"{source} has the model_type {name!r} in config.json; those that can be read: {', '.join(FAMILIES)}."
        )
    return FAMILIES[name]({**config, "model_type": name}, source)
