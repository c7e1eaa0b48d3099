"""Editing texts in latent space, along the flows of controls."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jtextdiff.devices.sharding import mesh_of, num_shards
from jtextdiff.diffusion.randomness import Keys
from jtextdiff.inference.batched import LengthBucket, jitted, map_batches
from jtextdiff.inference.editing.candidates import tokens_of
from jtextdiff.inference.editing.choice import Choice, choose
from jtextdiff.inference.editing.flow_settings import FlowSettings
from jtextdiff.inference.editing.types import Edit, EditBatch
from jtextdiff.inference.editing.unknown_words import text_of
from jtextdiff.inference.sample_batches import check_tokens
from jtextdiff.methods.components.latents import FlowLimits, Rewrite
from jtextdiff.methods.components.types import Given
from jtextdiff.sampling.energies import Sum
from jtextdiff.sampling.phrases import WordGuide, occurring

FLOW_FAILED = "the solver found no path through latent space"
"""Why a text is skipped if the solver of the flow reaches its limit of steps."""

REACHED = 1.02
"""Times the nats of the target at which it counts as reached: the solver and float32 are not exact."""

TARGET, MINIMAL_TARGET = 0.99, 0.9
"""The target probability unless it is given: where a latent stops, and of a minimal edit when it is read again."""

STOPS = (0.5, 0.8, 0.9, 0.97, 0.99, 0.997, 0.999, 0.9999)
"""Probabilities at which a latent is decoded for reranking."""

DEFAULT_GUIDANCE = (2.0, 1.0)
"""Word guidance and hold by controls that have learned words, where only the other one is given."""

RERANK_GUIDANCE = ((0.0, 0.0), (2.0, 1.0), (4.0, 1.0))
"""Word guidance and hold of the candidates of reranking, unless one of them is given."""

MINIMAL_STOPS = (0.9, 0.997, 0.999, 0.9999)
"""Probabilities at which the latent of a minimal edit is decoded: changes that are not needed are left out later."""


class Decoding(NamedTuple):
    """One of the texts that a latent is decoded to: at which probability, and how it is guided by words."""

    stop: float
    guidance: float = 0.0
    hold: float = 0.0


MINIMAL_DECODINGS = (*(Decoding(stop, 4.0, 1.0) for stop in MINIMAL_STOPS), Decoding(0.997))
"""Of a minimal edit, unless word guidance or hold is given. A guided text alone may write a word too early."""


def edit_in_latent_space(
    edits: EditBatch, flow: FlowSettings, keys: Keys, progress: Callable[[int], None]
) -> list[Edit]:
    """Moves the latent of each text along the energy's flow and decodes it. Keeps a text whose flow failed.

    Of several texts that a latent is decoded to, and of the partial ones of a `minimal` edit, one is chosen, see
    `choice`.
    """
    (num, longest), lengths = edits.batch.tokens.shape, edits.batch.valid.sum(-1)
    if num == 0:
        return []
    label = np.full(num, edits.conditioning.label, np.int32)
    given = Given(*map(jnp.asarray, (edits.batch.tokens, np.zeros((num, longest), bool), lengths, label)))
    rewrites_of = functools.partial(_rewrites, edits, flow, decodings(edits, flow))
    shards = num_shards(mesh_of(edits.params))
    # By length, since a batch is decoded until its longest text ends.
    rewrites = map_batches(rewrites_of, (keys, given), lengths, longest=longest, shards=shards, progress=progress)
    check_tokens(rewrites.tokens[rewrites.solved])
    minimal, target = is_minimal(edits, flow), target_probability(edits, flow)
    chosen = minimal or rewrites.solved.shape[1] > 1
    if chosen:
        choices = choose(edits, rewrites, target=target, minimal=minimal)
    else:
        choices = [_only_rewrite(row, rewrites, edits) for row in range(num)]
    return [_edit_of(row, choice, rewrites, edits, target, chosen) for row, choice in enumerate(choices)]


def is_minimal(edits: EditBatch, flow: FlowSettings) -> bool:
    """Returns whether changes that the controls do not need are left out: by default, if words guide the decoding."""
    given = (flow.word_guidance, flow.word_hold)
    return _can_guide(edits) and given != (0, 0) if flow.minimal is None else flow.minimal


def _can_guide(edits: EditBatch) -> bool:
    return edits.conditioning.readings is not None and edits.conditioning.readings.guides


def target_probability(edits: EditBatch, flow: FlowSettings) -> float:
    """Returns the probability that all controls together are to have."""
    default = MINIMAL_TARGET if is_minimal(edits, flow) else TARGET
    return default if flow.target_probability is None else flow.target_probability


def decodings(edits: EditBatch, flow: FlowSettings) -> list[Decoding]:
    """Returns the texts that a latent is decoded to; the first is at the first stop."""
    minimal, given = is_minimal(edits, flow), (flow.word_guidance, flow.word_hold)
    stops = STOPS if flow.rerank else MINIMAL_STOPS if minimal else (target_probability(edits, flow),)
    if not _can_guide(edits):
        return [Decoding(stop) for stop in stops]
    if given == (None, None):
        if minimal and not flow.rerank:
            return list(MINIMAL_DECODINGS)
        guidances = RERANK_GUIDANCE if flow.rerank else ((0.0, 0.0),)
        return [Decoding(stop, *guidance) for guidance in guidances for stop in stops]
    guidance, hold = (
        default if value is None else value for value, default in zip(given, DEFAULT_GUIDANCE, strict=True)
    )
    return [Decoding(stop, guidance, hold) for stop in stops]


def _rewrites(
    edits: EditBatch, flow: FlowSettings, of: Sequence[Decoding], bucket: LengthBucket, inputs: tuple[Keys, Given]
) -> Rewrite:
    """Returns the texts that the latents of a batch are decoded to, [b, d, …]."""
    conditioning, rewrite = edits.conditioning, jitted(edits.method, "rewrite", mesh_of(edits.params))
    energy = Sum(energies=(), weights=()) if conditioning.energy is None else conditioning.energy
    keys, given = inputs[0], _at_full_width(inputs[1], edits.batch.tokens.shape[1])
    limits = _limits(edits, flow, of)._replace(guide=word_guide(edits, given, of))
    length = jnp.int32(max(conditioning.length, 0))
    return rewrite(edits.params, keys, given, energy=energy, limits=limits, length=length)


def _at_full_width(given: Given, longest: int) -> Given:
    """Returns what is given of a bucket's texts, with all the positions that their edits may have."""
    wider = lambda leaf: np.pad(leaf, ((0, 0), (0, longest - leaf.shape[1])))
    return given._replace(tokens=wider(given.tokens), fixed=wider(given.fixed))


def _limits(edits: EditBatch, flow: FlowSettings, of: Sequence[Decoding]) -> FlowLimits:
    """Returns how far latents move, as arrays, so that another value needs no recompilation.

    Without a time, a pull or a field, a latent moves until the probability is reached; that of 1 never is, and a latent
    that is to have it, without a choice among several edits, moves for a time.
    """
    stop_of = [decoding.stop for decoding in of]
    stops = sorted(set(stop_of))
    timed = flow.max_time is not None or flow.learned or flow.source_pull or edits.method.sampler.num_noise_averages
    timed = timed or 1 in stops
    return FlowLimits(
        max_time=jnp.float32(flow.energy_time) if timed else None,
        target_probability=jnp.asarray(stops, jnp.float32),
        source_pull=jnp.float32(flow.source_pull),
        field=edits.field,
        decoded=jnp.asarray([stops.index(stop) for stop in stop_of]),
    )


def word_guide(edits: EditBatch, given: Given, of: Sequence[Decoding]) -> WordGuide | None:
    """Returns the guide of decodings of the sources `given`; None if it adds nothing."""
    readings = edits.conditioning.readings
    if readings is None or not any(decoding.guidance or decoding.hold for decoding in of):
        return None
    valid = np.arange(given.tokens.shape[1]) < given.length[:, None] - 1  # without EOS
    return WordGuide(
        energy=readings.energy,
        neutral=jnp.asarray(readings.neutral),
        source=_occurring(given.tokens, valid, len(readings.neutral)),
        strength=jnp.asarray([decoding.guidance for decoding in of], jnp.float32),
        hold=jnp.asarray([decoding.hold for decoding in of], jnp.float32),
    )


_occurring = jax.jit(occurring, static_argnums=2)


def _only_rewrite(row: int, rewrites: Rewrite, edits: EditBatch) -> Choice | None:
    """The one rewrite of a text, with probabilities at its latent; None if its flow failed."""
    before, after = (np.exp(-nats[row, 0]) for nats in (rewrites.before, rewrites.after))
    tokens = tokens_of(np.asarray(rewrites.tokens[row, 0]), edits)
    return Choice(tokens, 0, before, after) if rewrites.solved[row, 0] else None


def _edit_of(row: int, choice: Choice | None, rewrites: Rewrite, edits: EditBatch, target: float, chosen: bool) -> Edit:
    """The chosen edit of a text, or the text itself."""
    names, source = edits.conditioning.names, tokens_of(edits.batch.tokens[row], edits)
    if choice is None:
        before = dict(zip(names, np.exp(-rewrites.before[row, 0]).tolist(), strict=True))
        unchanged = Edit(text_of(source, edits, row), before=before, after=before, distance=0.0, steps=0)
        return unchanged._replace(reached=False, skipped_because=FLOW_FAILED)
    before, after = (dict(zip(names, p.tolist(), strict=True)) for p in (choice.before, choice.after))
    return Edit(
        text_of(choice.tokens, edits, row),
        before=before,
        after=after,
        distance=0.0 if choice.decoded is None else float(rewrites.distance[row, choice.decoded]),
        steps=0 if choice.decoded is None else int(rewrites.steps[row, choice.decoded]),
        reached=_reached(after, target) or (target == 1 and not chosen),
        unneeded=bool(before) and math.prod(before.values()) >= target,
    )


def _reached(after: dict[str, float], target: float) -> bool:
    nats = -sum(math.log(max(p, 1e-38)) for p in after.values())
    return nats <= -REACHED * math.log(max(target, 1e-38))
