"""Labels: the value of a label as what networks are told, of a text or of none."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jtextdiff.data.batches import Batch
from jtextdiff.methods.components.autoregressive_sampler import Read


def label_of(batch: Batch, condition: str, values: Sequence[str]) -> Int[Array, "b"]:
    """The number of the value of each text from 1; 0 where it is "none", and of a batch that does not tell."""
    if condition not in batch.labels:
        return jnp.zeros(len(batch.tokens), jnp.int32)
    value = jnp.asarray(batch.labels[condition], jnp.int32)
    return jnp.where(value == (list(values).index("none") if "none" in values else -1), 0, value + 1)


def one_of(label: Int[Array, "b"] | None, num: int, size: int) -> Float[Array, "b s"]:
    """1 at the label's place, and 0 elsewhere and for no label."""
    return jax.nn.one_hot(jnp.zeros(num, jnp.int32) - 1 if label is None else label - 1, size)


def read_as_told(writer: Any, full: Sequence[Float[Array, "b z"]], weights: Sequence[float]) -> Read:
    """Σ weight · logits of what the `writer` answers to each latent with its label."""

    def read(last: Array, position: Array, kept: list[Any]) -> tuple[Array, list[Any]]:
        each = [writer.step(last, z, position, own) for z, own in zip(full, kept, strict=True)]
        weighed = jnp.stack([much * logits for much, (logits, _) in zip(weights, each, strict=True)])
        return jnp.sum(weighed, axis=0), [own for _, own in each]

    return read
