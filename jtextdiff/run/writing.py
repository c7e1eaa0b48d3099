"""Writing: a method's functions, compiled once, over as many texts as there are; and what they write as a film."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from jtextdiff.core.energies import Energy, stacked
from jtextdiff.core.randomness import Keys
from jtextdiff.methods.method import Given, Latent, Measured, Method, Sample
from jtextdiff.nets.functional import Params
from jtextdiff.run.film import Curve, Film
from jtextdiff.run.sharding import batch_sharding, mesh_of, num_shards, on_mesh, replicated
from jtextdiff.run.turns import FEW, turns
from jtextdiff.text.tokenizers import Tokenizer


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


def filmed(title: str, sample: Sample, num: int, tokenizer: Tokenizer, *, rewritten: bool = False) -> Film:
    """The first `num` rows of a sample that has kept its path, with every state on the way, word by word.

    A state has as many words as the last, but where texts are `rewritten` on the way, each at its own length.
    """

    @functools.cache
    def spell(token: int) -> str:
        if token == tokenizer.pad or token == tokenizer.eos:
            return "" if token == tokenizer.pad else "⏎"
        return tokenizer.decode([token]).strip() or "␣"

    path = np.asarray(sample.path)[: 1 + int(sample.calls[:num].max()), :num]  # after that nothing changes
    there = (path if rewritten else np.asarray(sample.tokens)[None, :num]) != tokenizer.pad
    length = np.maximum(there.any(0).sum(-1), 1)
    words = tuple(
        tuple(tuple(spell(int(token)) for token in frame[row, : length[row]]) for frame in path) for row in range(num)
    )
    times = tuple(float(t) for t in np.linspace(1.0, 0.0, len(path)))
    return Film(f"{title}, {len(path) - 1} steps", times, words)


def watched(film: Film, sample: Sample, names: Sequence[str], guided: tuple[float, float] | None) -> Film:
    """The film of a sample with the energies that it has kept, nats by the `names` of their parts, and the times
    between which they were followed."""
    kept = np.asarray(sample.energies, np.float64)[: len(film.times), : len(film.words)]
    each = zip(names, kept.transpose(2, 1, 0).tolist(), strict=True)
    curves = tuple(Curve(name, tuple(map(tuple, nats))) for name, nats in each)
    return film._replace(energies=curves, guided=guided)
