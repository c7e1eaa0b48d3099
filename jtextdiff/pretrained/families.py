"""The families of published checkpoints that can be read."""

from pathlib import Path

from jtextdiff.cli.errors import UserError, mistakes
from jtextdiff.data.hub import download_checkpoint
from jtextdiff.pretrained.checkpoint_files import Checkpoint, open_checkpoint
from jtextdiff.pretrained.layouts.dit_kinds import KINDS, SEDD
from jtextdiff.pretrained.layouts.dit_settings import dit_network
from jtextdiff.pretrained.layouts.llama_settings import LLAMAS, llama_network
from jtextdiff.pretrained.layouts.modernbert import modernbert_network
from jtextdiff.pretrained.network import Network, check_tensors

FAMILIES = {
    **dict.fromkeys(KINDS, dit_network),
    **dict.fromkeys(LLAMAS, llama_network),
    "modernbert": modernbert_network,
}
"""`model_type` in config.json ↦ what reads it as a network."""


def open_source(source: str | Path) -> Checkpoint:
    """Returns the checkpoint in a folder, or of "hub:NAME", and checks the names and shapes of its tensors.

    Raises UserError for whatever is wrong with it.
    """
    source = str(source)
    if not source.startswith("hub:"):
        checkpoint = open_checkpoint(source, Path(source))
    else:
        with mistakes(FileNotFoundError, ValueError):
            checkpoint = open_checkpoint(source, download_checkpoint(source))
    check_tensors(checkpoint, network_of(checkpoint))
    return checkpoint


def network_of(checkpoint: Checkpoint) -> Network:
    """Returns the network of a checkpoint. Raises UserError if its kind is unknown, or its config cannot be read."""
    config, source = checkpoint.config, checkpoint.source
    name = config.get("model_type", SEDD if "graph" in config else None)
    if not isinstance(name, str) or name not in FAMILIES:
        raise UserError(
            f"{source} has the model_type {name!r} in config.json; those that can be read: {', '.join(FAMILIES)}."
        )
    return FAMILIES[name]({**config, "model_type": name}, source)
