"""A published network as a part of a text VAE: GPT-2 as decoder, BERT as encoder (LatentOps, Liu et al. 2022)."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jtextdiff.methods.components.latents import DECODER, ENCODER
from jtextdiff.methods.text_vae import TextVAE
from jtextdiff.nets.functional import Params
from jtextdiff.pretrained.layouts.tables import Read, insert, leaf
from jtextdiff.pretrained.network import Network

PARTS = {"gpt2": "decoder", "bert": "encoder"}
"""`model_type` ↦ the part of a text VAE that starts from it."""

STORED = {"decoder": DECODER, "encoder": ENCODER}
"""Part ↦ its name among the parameters."""

SHARED = ("embed.", "trunk.")
"""Beginnings of the names of arrays that a network and such a part both have."""


def part_of_vae(method: type, network: Network) -> str | None:
    """Returns the part of a method that starts from a network; None if it is none of `PARTS`, or the whole method."""
    return PARTS.get(network.model_type) if method is TextVAE else None


def with_part(params: Params, network: Network, read: Read) -> Params:
    """Returns parameters of a text VAE, with those of a published network, which `read` gives, in one of its parts.

    The decoder's output starts as its embedding, which GPT-2 ties it to. Rows that the checkpoint lacks, such as that
    of MASK, keep their values, and so does all that the network lacks.
    """
    params, part = jax.tree.map(lambda array: array, params), STORED[PARTS[network.model_type]]

    def replace(path: str, array: Float[np.ndarray, "..."]) -> None:
        fresh = leaf(params, path)
        whole = np.concatenate([array, np.asarray(fresh)[len(array) :]])
        insert(params, path, jax.device_put(whole, fresh.sharding))

    def place(name: str, array: Float[np.ndarray, "..."]) -> Any:
        if name.startswith(SHARED):
            replace(f"{part}.{name}", array)
        if part == DECODER and name == "embed.embedding":
            replace(f"{part}.answer.kernel", array.T)

    network.fold(read, place)
    return params
