"""Texts between two texts, in the latent space of a text VAE."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jtextdiff.cli.errors import UserError
from jtextdiff.cli.output import say
from jtextdiff.devices.sharding import mesh_of, num_shards
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.inference.batched import LengthBucket, jitted, map_batches
from jtextdiff.inference.model import Model
from jtextdiff.inference.prompts import check_number, note_on_unknown, unknown_words
from jtextdiff.inference.sample_batches import check_tokens
from jtextdiff.methods.method import LatentVariableModel

SMALLEST_ANGLE = 1e-4
"""Radians between two latents below which the arc is a straight line."""


def interpolate(model: Model, first: str, second: str, num: int = 8, *, seed: int = 0, **sampler: Any) -> list[str]:
    """Decodes `num` latents on the arc from one text to another, in equal steps; both ends are decoded, too.

    The latents of the texts are their whitened posterior means. `**sampler` are settings of the decoder; with those
    that draw tokens, text i depends on the seed and on i. Raises UserError for a model without latents, for a text that
    is empty or too long, and for fewer than two texts.
    """
    num = check_number(num, "num", 2)
    if not isinstance(model.method, LatentVariableModel):
        raise UserError(f"{type(model.method).__name__} has no latents to interpolate between: a TextVAE does.")
    method, mesh = model.with_sampler(sampler), mesh_of(model.params)
    if not (first.strip() and second.strip()):
        raise UserError(f"expected two texts, got {first!r} and {second!r}: one of them is empty.")
    batch, (given, _) = model.batch([first, second]), model.inputs(None, None, num)
    if note := note_on_unknown(unknown_words([first, second], batch, model.tokenizer)):
        say(f"warning: {note} Each is read as the unknown word.")
    first_z, second_z = np.asarray(jitted(model.method, "encode", mesh)(model.params, batch.tokens, batch.valid))
    latents = arc(first_z, second_z, np.linspace(0.0, 1.0, num)).astype(np.float32)
    keys, decode = keys_for(jax.random.key(check_number(seed, "seed")), jnp.arange(num)), jitted(method, "sample", mesh)

    def decode_bucket(bucket: LengthBucket, inputs: Any) -> Any:
        return decode(model.params, *inputs, start=latents[bucket.rows]).tokens

    longest = method.text_spec.length
    tokens = map_batches(decode_bucket, (keys, given), np.full(num, longest), longest=longest, shards=num_shards(mesh))
    check_tokens(tokens)
    return [model.tokenizer.decode(row) for row in tokens]


def arc(first: Float[np.ndarray, "z"], second: Float[np.ndarray, "z"], at: Float[np.ndarray, "n"]) -> np.ndarray:
    """Returns points between two latents, spherically interpolated (Shoemake 1985), [n, z].

    They are as far from the origin as the ends are, as most of N(0, I) is. A straight line passes nearer to it, where
    texts are rare (White 2016, arXiv:1609.04468).
    """
    first, second, at = first.astype(np.float64), second.astype(np.float64), at[:, None]
    norms = np.linalg.norm(first) * np.linalg.norm(second)
    angle = np.arccos(np.clip(first @ second / max(norms, np.finfo(float).tiny), -1.0, 1.0))
    if angle < SMALLEST_ANGLE or angle > np.pi - SMALLEST_ANGLE:  # opposite latents have no unique arc
        return (1 - at) * first + at * second
    return (np.sin((1 - at) * angle) * first + np.sin(at * angle) * second) / np.sin(angle)
