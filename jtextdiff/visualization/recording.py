"""Records the denoising trajectory of a sample."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import Control
from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.devices.sharding import mesh_of
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.inference.batched import ROWS, compiled_once
from jtextdiff.inference.model import Model, asked_once
from jtextdiff.methods.components.types import Sample
from jtextdiff.methods.method import Latent
from jtextdiff.sampling.energies import Energy
from jtextdiff.visualization.trajectory import Curve, Film


def record(
    model: Model,
    num: int = 3,
    *,
    seed: int = 0,
    template: str | None = None,
    control: Control | None = None,
    text: str | None = None,
    **sampler: Any,
) -> Film:
    """The same samples as `Model.sample` draws, or the way of a `text` by its latent, with every state on it, and what
    a control's energies are there."""
    method = model.with_sampler(sampler)
    size = next(rows for rows in ROWS if rows >= num) if num <= ROWS[-1] else num
    keys = keys_for(jax.random.key(seed), jnp.arange(size))
    given, (energy,) = model.given(template, control, size)
    wanted = {} if energy is None else {"energy": energy}
    more = {} if text is None else {"start": _latent_of(model, text, size, energy)}
    result = compiled_once(method, "sample", mesh_of(model.params), keep_path=True)(
        model.params, keys, given, **wanted, **more
    )
    film = filmed(type(model.method).__name__, result, num, model.tokenizer, rewritten=isinstance(method, Latent))
    if control is None or not wanted:
        return film
    how = getattr(method.sampler, "guidance", None)
    guided = (1.0, 0.0) if how is None else (how.first, how.last) if how.updates else None
    return watched(film, result, asked_once(model, control).names, guided)


def _latent_of(model: Model, text: str, num: int, energy: Energy | None) -> Any:
    """The latent of a text, `num` times. Raises UserError for a model that has none, or nothing to move it."""
    if not isinstance(model.method, Latent) or energy is None:
        raise UserError(
            "The way of a text is its latent's, which TextVAE has and a control moves: give a control to one."
        )
    return jnp.repeat(model.method.encode(model.params, *model.batch([text])[:2]), num, axis=0)


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
