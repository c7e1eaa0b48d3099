"""Class-conditioning by a label, and classifier-free guidance."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jtextdiff.data.batches import Batch
from jtextdiff.methods.components.autoregressive_sampler import NextLogits


def label_index(batch: Batch, condition: str, values: Sequence[str]) -> Int[Array, "b"]:
    """Returns the number of each text's value, from 1; 0 for "none" and in a batch without the label."""
    if condition not in batch.labels:
        return jnp.zeros(len(batch.tokens), jnp.int32)
    value = jnp.asarray(batch.labels[condition], jnp.int32)
    if "none" not in values:
        return value + 1
    return jnp.where(value == list(values).index("none"), 0, value + 1)


def one_hot_label(label: Int[Array, "b"] | None, num: int, size: int) -> Float[Array, "b s"]:
    """Returns the label one-hot encoded for `num` texts; zeros for no label."""
    return jax.nn.one_hot(jnp.zeros(num, jnp.int32) - 1 if label is None else label - 1, size)


def guided_logits(decoder: Any, inputs: Sequence[Float[Array, "b y"]], weights: Sequence[float]) -> NextLogits:
    """Returns Σ weight · logits of a `LatentDecoder` over its latent inputs, with one cache per input."""

    def next_logits(previous: Array, position: Array, caches: list[Any]) -> tuple[Array, list[Any]]:
        steps = [decoder.step(previous, z, position, cache) for z, cache in zip(inputs, caches, strict=True)]
        weighted = jnp.stack([weight * logits for weight, (logits, _) in zip(weights, steps, strict=True)])
        return jnp.sum(weighted, axis=0), [cache for _, cache in steps]

    return next_logits
