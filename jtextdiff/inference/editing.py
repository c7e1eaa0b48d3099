"""Rewriting: texts noised and written anew, or latents taken to where controls want them, and what became of each."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jtextdiff.cli.errors import UserError
from jtextdiff.control.phrases import known_words
from jtextdiff.control.resolve import Asked
from jtextdiff.data.batches import Batch
from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.devices.sharding import mesh_of, num_shards
from jtextdiff.diffusion.randomness import Keys, keys_for
from jtextdiff.inference.batched import compiled_once, turns, written
from jtextdiff.methods.components.types import Given
from jtextdiff.methods.method import Editable, Latent, Method
from jtextdiff.metrics.bleu import sentence_bleu
from jtextdiff.nets.functional import Params
from jtextdiff.sampling.energies import Sum

NOWHERE = "its way through latent space was not found"
"""Why a text is left as it is, if the solver came to its limit."""

STOPS = (0.5, 0.8, 0.9, 0.97, 0.99, 0.997, 0.999, 0.9999)
"""Probabilities at which a latent stops to have its text read again."""


class Flow(NamedTuple):
    """How far latents go."""

    tau: float = 100.0  # the flow's time, at most
    until: float = 0.99  # the probability of all that is wanted at which a latent stops
    keep: float = 0.0  # from 0, the controls alone, to 1, back to the text's own latent alone
    rerank: bool = False  # of the texts at STOPS the nearest to its source that, read again, is at `until`

    def check(self) -> None:
        """Raises UserError for what is no time or no probability."""
        if not 0 <= self.tau <= 1e6:
            raise UserError(f"tau must be from 0 to a million, got {self.tau}.")
        for name in ("until", "keep"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} must be from 0 to 1, got {getattr(self, name)}.")


class Work(NamedTuple):
    """The texts to rewrite, who does it, and what is asked."""

    method: Method
    params: Params
    tokenizer: Tokenizer
    batch: Batch
    asked: Asked


class Rewritten(NamedTuple):
    """One text; of a latent, what its way was like."""

    text: str
    before: dict[str, float] = {}  # the probability of each thing wanted, by its own control, of the text …
    after: dict[str, float] = {}  # … and of the latent that was written from; reranked: of the rewrite, read again
    moved: float | None = None  # in standard deviations of the initial law
    steps: int | None = None  # of the solver
    left: str = ""  # why the text was left as it is


SETTINGS = ("strength", "hold", "seed", "ids", "progress", "tau", "until", "keep", "rerank")
"""What `rewritten` takes."""


def rewritten(
    work: Work,
    *,
    strength: float | None = None,
    hold: Sequence[str] = (),
    seed: int = 0,
    ids: Sequence[int] | None = None,
    progress: Callable[[int], None] = lambda done: None,
    **flow: Any,
) -> list[Rewritten]:
    """Each text rewritten, depending on the text, the seed and its number of `ids`, 0, 1, … without them.

    By diffusion: noised to the time `strength` in (0, 1], .5 unless given, and written anew with its length; words
    that are to `hold` stay. By latents: moved as far as the fields of `flow` say, see `Flow`. Raises UserError for a
    method that cannot edit, or not in this way.
    """
    check(work.method, work.asked, strength, hold, **flow)
    alike = {"seed": seed, "ids": range(len(work.batch.tokens)) if ids is None else ids, "progress": progress}
    if isinstance(work.method, Latent):
        return moved(work, Flow(**flow), **alike)
    return noised(work, 0.5 if strength is None else strength, hold, **alike)


def check(method: Method, asked: Asked, strength: float | None = None, hold: Sequence[str] = (), **flow: Any) -> None:
    """Raises UserError for a method that cannot edit, or not in this way."""
    name = type(method).__name__
    if not isinstance(method, Editable | Latent):
        raise UserError(f"{name} cannot edit a text. DiffusionLM and TextVAE can.")
    if isinstance(method, Latent):
        if strength is not None or hold:
            raise UserError(f"{name} edits by tau, until, keep and rerank, not by strength and hold.")
        if flow and asked.energy is None:
            given = f"{', '.join(flow)} say" if len(flow) > 1 else f"{next(iter(flow))} says"
            raise UserError(f"{given} how far a control moves a latent, and none of these does: it is told or kept.")
        Flow(**flow).check()
        return
    if flow:
        raise UserError(f"{name} edits by strength and hold, not by {', '.join(flow)}.")
    if strength is not None and not 0 < strength <= 1:
        raise UserError(f"strength must be above 0 and at most 1, got {strength}.")
    if asked.length > 0:
        raise UserError("A rewrite keeps the length of its text: leave out what asks for one (length, pos, tree).")


def noised(
    work: Work,
    strength: float,
    hold: Sequence[str],
    *,
    seed: int,
    ids: Sequence[int],
    progress: Callable[[int], None] = lambda done: None,
) -> list[Rewritten]:
    """Each text noised to the time `strength` and written anew, with its length and the words that it is to `hold`."""
    tokens, valid = work.batch.tokens, work.batch.valid
    held = np.isin(tokens, known_words(hold, work.tokenizer)) & valid
    given, keys = Given(*map(jnp.asarray, (tokens, held, valid.sum(-1)))), _keys(seed, ids)
    more = {"strength": jnp.float32(strength)}
    drawn = written(work.method, "edit", work.params, keys, given, [work.asked.energy], progress, **more)
    return [Rewritten(work.tokenizer.decode(row)) for row in drawn.tokens]


def moved(
    work: Work,
    flow: Flow,
    *,
    seed: int,
    ids: Sequence[int],
    progress: Callable[[int], None] = lambda done: None,
) -> list[Rewritten]:
    """Each text written anew from where its latent has gone; as it is, if the way was not found.

    Reranked, the choice is the model's own: by its controls, then by BLEU with the source. If no stop will do, it is
    the one that its controls like best.
    """
    energy = Sum(energies=(), weights=()) if work.asked.energy is None else work.asked.energy
    longest, keys, lengths = work.method.language.length, _keys(seed, ids), work.batch.valid.sum(-1)
    mesh = mesh_of(work.params)
    rewrite, reread = (compiled_once(work.method, name, mesh) for name in ("rewrite", "reread"))
    settings = {
        "tau": jnp.float32(flow.tau),
        "keep": jnp.float32(flow.keep),
        "length": jnp.int32(max(work.asked.length, 0)),
    }
    sources = [work.tokenizer.decode(row) for row in work.batch.tokens]
    found: list[Any] = [None] * len(lengths)
    for rows, real, _ in turns(np.full(len(lengths), longest), longest, num_shards(mesh)):
        label = np.full(len(rows), work.asked.label, np.int32)
        held = np.zeros((len(rows), longest), bool)
        given = Given(*map(jnp.asarray, (work.batch.tokens[rows], held, lengths[rows], label)))
        each = []
        for until in STOPS if flow.rerank else (flow.until,):
            drawn = rewrite(work.params, keys[rows], given, energy=energy, until=jnp.float32(until), **settings)
            after = reread(work.params, drawn.tokens, energy=energy) if flow.rerank else drawn.after
            each.append(jax.device_get(drawn._replace(after=after)))
        for place, row in enumerate(rows[:real]):
            rivals = [_told(place, drawn, work.asked.names, work.tokenizer) for drawn in each]
            found[row] = _chosen(rivals, sources[row], flow.until)
        progress(real)
    return found


def _chosen(rivals: list[Rewritten], source: str, until: float) -> Rewritten:
    """The rewrite nearest to its source among those that have what is wanted; else the one that has most of it. The
    source itself, if to none of them a way was found."""
    rivals = [rival for rival in rivals if not rival.left] or [rivals[0]._replace(text=source)]
    if len(rivals) == 1:
        return rivals[0]
    sure = [math.prod(rival.after.values()) for rival in rivals]
    good = [rival for rival, p in zip(rivals, sure, strict=True) if p >= until]
    return max(good, key=lambda one: sentence_bleu(one.text, source)) if good else rivals[int(np.argmax(sure))]


def _keys(seed: int, ids: Sequence[int]) -> Keys:
    return keys_for(jax.random.key(seed), jnp.asarray(ids, jnp.int32))


def _told(row: int, drawn: Any, names: Sequence[str], tokenizer: Tokenizer) -> Rewritten:
    """What became of a row. Its probabilities are those that its control's own classifier has."""
    sure = lambda nats: {name: float(np.exp(-own)) for name, own in zip(names, nats[row], strict=True)}
    return Rewritten(
        tokenizer.decode(drawn.tokens[row]),
        before=sure(drawn.before),
        after=sure(drawn.after),
        moved=float(drawn.moved[row]),
        steps=int(drawn.steps[row]),
        left="" if drawn.solved[row] else NOWHERE,
    )
