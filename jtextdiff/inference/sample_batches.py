"""Samples or edits of any number of texts, each guided by its own energy."""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jtextdiff.cli.errors import UserError
from jtextdiff.devices.sharding import mesh_of, num_shards
from jtextdiff.diffusion.randomness import Keys
from jtextdiff.inference.batched import SMALL_BATCH, LengthBucket, jitted, map_batches
from jtextdiff.methods.components.types import Given
from jtextdiff.methods.method import HasKnownLength, LatentVariableModel, Method, SamplesLength
from jtextdiff.nets.functional import Params
from jtextdiff.sampling.energies import Energy, stacked

Rows = Int[np.ndarray, "m"]


class SampleOutput(NamedTuple):
    """Texts as ids, PAD after the end, and the number of network calls that each took."""

    tokens: Int[np.ndarray, "n l"]
    calls: Int[np.ndarray, "n"]


def run_batched(
    method: Method,
    name: str,
    params: Params,
    keys: Keys,
    given: Given,
    energies: Sequence[Energy | None],
    progress: Callable[[int], None] = lambda num_done: None,
    **settings: Any,
) -> SampleOutput:
    """Runs the method's `sample` or `edit`, by `name`, on all rows, in padded batches.

    `energies` holds one energy for all rows, or one per row. `settings` are further arguments, the same for all rows.
    `progress` receives the number of rows in each finished batch. Raises ValueError for lengths that the method cannot
    have, and UserError if the network's logits are NaN.
    """
    check_lengths(method, given)
    num, longest = given.tokens.shape
    mesh, pad = mesh_of(params), method.text_spec.pad
    output = SampleOutput(np.full((num, longest), pad, np.int32), np.zeros(num, int))
    if num == 0:
        return output
    lengths = np.full(num, longest)
    if isinstance(method, SamplesLength) and num > SMALL_BATCH:
        lengths = np.asarray(jitted(method, "sample_lengths", mesh)(params, keys, given))
        given = given._replace(length=jnp.asarray(lengths))
    function = jitted(method, name, mesh)
    for rows, energy_of in _energy_groups(method, energies, num):

        def run(bucket: LengthBucket, batch: tuple[Keys, Given], energy_of: Any = energy_of) -> SampleOutput:
            energy = energy_of(bucket.rows)
            guidance = {} if energy is None else {"energy": energy}
            sample = function(params, *batch, **guidance, **settings)
            room = ((0, 0), (0, longest - bucket.width))
            return SampleOutput(np.pad(np.asarray(sample.tokens), room, constant_values=pad), sample.calls)

        inputs = jax.tree.map(lambda leaf, rows=rows: leaf[rows], (keys, given))
        shards = num_shards(mesh)
        group = map_batches(run, inputs, lengths[rows], longest=longest, shards=shards, progress=progress)
        output.tokens[rows], output.calls[rows] = group.tokens, group.calls
        check_tokens(group.tokens)
    return output


def check_lengths(method: Method, given: Given) -> None:
    """Raises ValueError for a given length above the longest, and for a least length of a method that draws none."""
    lengths, longest, name = np.asarray(given.length), given.tokens.shape[1], type(method).__name__
    if (wrong := lengths[abs(lengths) > longest]).size:
        raise ValueError(
            f"A length of {wrong[0]} is given; expected 1 to {longest} tokens, EOS counted, 0 for a free length, or -n "
            "for at least n."
        )
    draws = isinstance(method, SamplesLength) and not (isinstance(method, HasKnownLength) and not method.known_length)
    if (wrong := lengths[lengths < 0]).size and not draws:
        raise ValueError(
            f"A length of at least {-wrong[0]} is given, but {name} draws no lengths; expected 1 to {longest} tokens, "
            "EOS counted, or 0 for a free length."
        )


def check_tokens(tokens: Int[np.ndarray, "n l"]) -> None:
    """Raises UserError for samples with tokens that were drawn from no distribution; see `distributions.UNDEFINED`."""
    if undefined := int(np.sum(np.any(np.asarray(tokens) < 0, axis=-1))):
        raise UserError(
            f"{undefined} of {len(tokens)} samples have tokens without a distribution: the network's logits are NaN or "
            "infinite. Its training may have diverged: take an earlier checkpoint with --at, or weaken the controls."
        )


def _energy_groups(
    method: Method, energies: Sequence[Energy | None], num: int
) -> list[tuple[Rows, Callable[[Rows], Energy | None]]]:
    """Returns groups of rows that can run together, each with a function from rows of the group to their energy.

    Diffusion follows energies of one structure together, stacked. A latent flow follows one energy at a time.
    """
    if len(energies) == 1:
        return [(np.arange(num), lambda rows: energies[0])]
    if isinstance(method, LatentVariableModel):
        groups = _rows_of_each([id(energy) for energy in energies])  # equal controls share one energy
        return [(group, lambda rows, energy=energies[group[0]]: energy) for group in groups]
    groups = _rows_of_each([_structure(energy) for energy in energies])
    return [(group, functools.partial(stacked, [energies[row] for row in group])) for group in groups]


def _rows_of_each(labels: Sequence[Hashable]) -> list[Rows]:
    """The rows of each distinct label, in order of first appearance."""
    rows: dict[Hashable, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    return [np.asarray(group) for group in rows.values()]


def _structure(energy: Energy | None) -> Hashable:
    """What two energies must have in common to be stacked."""
    leaves, tree = jax.tree.flatten(energy)
    return tree, tuple(np.shape(leaf) for leaf in leaves)
