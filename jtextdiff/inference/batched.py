"""Writing: a method's functions, compiled once, over as many texts as there are; and what they write as a film."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from jtextdiff.devices.sharding import batch_sharding, mesh_of, num_shards, on_mesh, replicated
from jtextdiff.diffusion.randomness import Keys
from jtextdiff.methods.components.types import Given
from jtextdiff.methods.method import Latent, Measured, Method
from jtextdiff.nets.functional import Params
from jtextdiff.sampling.energies import Energy, stacked


class Drawn(NamedTuple):
    """Texts as ids, PAD after the end, and the network calls that each has needed."""

    tokens: Int[np.ndarray, "n l"]
    calls: Int[np.ndarray, "n"]


@functools.lru_cache(maxsize=32)
def compiled_once(method: Any, name: str, mesh: Mesh | None = None, **static: Any) -> Any:
    """One of the method's functions, compiled once for all batches of a shape.

    On a mesh the rows of what follows the parameters are divided over its devices, as far as their number divides; the
    answer is whole on each.
    """
    function = functools.partial(getattr(method, name), **static)
    if mesh is None:
        return jax.jit(function)
    rows, shards = batch_sharding(mesh), num_shards(mesh)
    fits = lambda leaf: jnp.ndim(leaf) and leaf.shape[0] % shards == 0
    divided = lambda leaf: jax.lax.with_sharding_constraint(leaf, rows) if fits(leaf) else leaf
    spread = lambda params, *of_rows, **more: function(params, *jax.tree.map(divided, of_rows), **more)
    return jax.jit(on_mesh(spread, mesh), out_shardings=replicated(mesh))


def written(
    method: Method,
    name: str,
    params: Params,
    keys: Keys,
    given: Given,
    energies: Sequence[Energy | None],
    progress: Callable[[int], None] = lambda done: None,
    **more: Any,
) -> Drawn:
    """What `sample` or `edit`, by `name`, makes of all rows, in turns; `progress` is told how many rows are done.

    `energies` are one for all rows, or each row's own; `more` the function's further arguments, the same for all rows.
    """
    num, longest = given.tokens.shape
    lengths, mesh = np.full(num, longest), mesh_of(params)
    tokens, calls = np.full((num, longest), method.language.pad, np.int32), np.zeros(num, int)
    if isinstance(method, Measured) and num > FEW:
        lengths = np.asarray(compiled_once(method, "lengths", mesh)(params, keys, given))
        given = given._replace(length=jnp.asarray(lengths))
    own = isinstance(method, Latent)
    for alike in _the_same(energies, num) if own else _built_alike(energies, num):
        for places, real, width in turns(lengths[alike], longest, num_shards(mesh)):
            rows = alike[places]
            label = None if given.label is None else given.label[rows]
            cut = Given(given.tokens[rows, :width], given.fixed[rows, :width], given.length[rows], label)
            one = len(energies) == 1 or own
            energy = energies[alike[0] % len(energies)] if one else stacked([energies[row] for row in alike], places)
            wanted = more if energy is None else {"energy": energy, **more}
            drawn = compiled_once(method, name, mesh)(params, keys[rows], cut, **wanted)
            tokens[rows[:real], :width], calls[rows[:real]] = drawn.tokens[:real], drawn.calls[:real]
            progress(real)
    return Drawn(tokens, calls)


def _built_alike(energies: Sequence[Energy | None], num: int) -> list[Int[np.ndarray, "m"]]:
    """The rows of those energies that can be stacked, and so drawn at once."""
    if len(energies) == 1:
        return [np.arange(num)]
    built = [jax.tree.flatten(energy) for energy in energies]
    kinds = [(tree, tuple(np.shape(leaf) for leaf in leaves)) for leaves, tree in built]
    return [np.asarray([row for row in range(num) if kinds[row] == kind]) for kind in dict.fromkeys(kinds)]


def _the_same(energies: Sequence[Energy | None], num: int) -> list[Int[np.ndarray, "m"]]:
    """The rows of each energy: latents are moved by one at a time."""
    if len(energies) == 1:
        return [np.arange(num)]
    which = [id(energy) for energy in energies]
    return [np.asarray([row for row in range(num) if which[row] == one]) for one in dict.fromkeys(which)]


ROWS = (1, 8, 16, 64)
"""Batches are padded to one of these, so that few programs are compiled; more texts than the last run in turns."""

FEW = ROWS[1]
"""So many texts or fewer run in one turn at the longest length: their lengths need not be known."""

WIDTH = 8
"""More are sorted by length and padded to a multiple of this, and not to the longest length."""


def turns(
    lengths: Int[np.ndarray, "n"], longest: int, shards: int = 1
) -> Iterator[tuple[Int[np.ndarray, "m"], int, int]]:
    """(rows, how many of them are real, width) of each turn: rows of like lengths, repeated up to one of ROWS for each
    of the `shards` into which they are divided."""
    order, varied = np.argsort(lengths, kind="stable"), len(np.unique(lengths)) > 1
    sizes = [rows * shards for rows in ROWS]
    # A batch that would fit into one turn is cut in smaller ones only for what it saves in padding.
    most = sizes[-2] if varied and len(lengths) <= sizes[-1] else sizes[-1]
    for start in range(0, len(order), most):
        rows = order[start : start + most]
        size = next(size for size in sizes if size >= len(rows))
        width = min(-(-int(lengths[rows[-1]]) // WIDTH) * WIDTH, longest)
        yield np.concatenate([rows, np.repeat(rows[-1:], size - len(rows))]), len(rows), width
