"""Editing texts in latent space: along the flows of controls, and choosing among several edits."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jtextdiff.control.resolve import Conditioning
from jtextdiff.data.batches import Batch
from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.devices.sharding import mesh_of, num_shards
from jtextdiff.diffusion.randomness import Keys
from jtextdiff.inference.batched import LengthBucket, jitted, map_batches
from jtextdiff.inference.editing.flow_settings import FlowSettings
from jtextdiff.inference.sample_batches import check_tokens
from jtextdiff.methods.components.latents import FlowLimits, Rewrite
from jtextdiff.methods.components.types import Given
from jtextdiff.methods.method import Method
from jtextdiff.metrics.bleu import sentence_bleu
from jtextdiff.nets.functional import Params
from jtextdiff.sampling.energies import Energy, Sum, energy_terms
from jtextdiff.sampling.phrases import WordGuide, occurring
from jtextdiff.sampling.rectified_flow import Field

FLOW_FAILED = "the solver found no path through latent space"
"""Why a text is skipped if the solver of the flow reaches its limit of steps."""

REACHED = 1.02
"""Times the nats of the target at which it counts as reached: the solver and float32 are not exact."""

STOPS = (0.5, 0.8, 0.9, 0.97, 0.99, 0.997, 0.999, 0.9999)
"""Probabilities at which a latent is decoded for reranking."""

DEFAULT_GUIDANCE = (2.0, 1.0)
"""Word guidance and hold of edits by controls that have learned words, unless they are given."""

RERANK_GUIDANCE = ((0.0, 0.0), (2.0, 1.0), (4.0, 1.0))
"""Word guidance and hold of the candidates of reranking, unless one of them is given."""

NEARLY_BEST = 0.95
"""If no candidate has the target probability, those with this share of the highest one count as having it."""


class EditBatch(NamedTuple):
    """Texts to edit, the model, and what the edits are conditioned on."""

    method: Method
    params: Params
    tokenizer: Tokenizer
    batch: Batch
    conditioning: Conditioning
    field: Field | None = None  # with strength, if a learned one is followed


class Edit(NamedTuple):
    """An edited text and, for latent editing, how far its latent moved."""

    text: str
    # The probability of each control by its own classifier, for the source and for the latent that was decoded.
    # Reranked: for the words of the source and of the edit, see `_rewrites`.
    before: dict[str, float] = {}
    after: dict[str, float] = {}
    distance: float | None = None  # that the latent moved, in standard deviations of the prior
    steps: int | None = None  # of the solver
    reached: bool = True  # whether all controls together have the target probability in the end, within 2 % of its nats
    skipped_because: str = ""  # the text is then its source
    unknown: tuple[str, ...] = ()  # words of the source that the model does not know


def edit_in_latent_space(
    edits: EditBatch, flow: FlowSettings, keys: Keys, progress: Callable[[int], None]
) -> list[Edit]:
    """Moves the latent of each text along the energy's flow and decodes it. Keeps a text whose flow failed.

    With `rerank`, latents are decoded at each of `STOPS`, with each of the `_guidances`. Of those that the model's own
    controls judge to have the target probability, that with the highest BLEU with the source is chosen.
    """
    (num, longest), lengths = edits.batch.tokens.shape, edits.batch.valid.sum(-1)
    if num == 0:
        return []
    label = np.full(num, edits.conditioning.label, np.int32)
    given = Given(*map(jnp.asarray, (edits.batch.tokens, np.zeros((num, longest), bool), lengths, label)))
    full, shards = np.full(num, longest), num_shards(mesh_of(edits.params))
    rewrites_of = functools.partial(_rewrites, edits, flow)
    rewrites = map_batches(rewrites_of, (keys, given), full, longest=longest, shards=shards, progress=progress)
    check_tokens(rewrites.tokens[rewrites.solved])
    sources = [edits.tokenizer.decode(row) for row in edits.batch.tokens]
    candidates = (
        [_edit_of(row, stop, rewrites, edits) for stop in range(rewrites.solved.shape[1])] for row in range(num)
    )
    best = [_best(row, source, flow.target_probability) for row, source in zip(candidates, sources, strict=True)]
    return [edit._replace(reached=_reached(edit, flow.target_probability)) for edit in best]


def _guidances(edits: EditBatch, flow: FlowSettings) -> list[tuple[float, float]]:
    """Returns the word guidance and hold with which latents are decoded at each stop, (0, 0) for none."""
    readings, given = edits.conditioning.readings, (flow.word_guidance, flow.word_hold)
    if readings is None or not readings.guides:
        return [(0.0, 0.0)]
    if flow.rerank and given == (None, None):
        return list(RERANK_GUIDANCE)
    strength, hold = (
        default if value is None else value for value, default in zip(given, DEFAULT_GUIDANCE, strict=True)
    )
    return [(strength, hold)]


def _rewrites(edits: EditBatch, flow: FlowSettings, bucket: LengthBucket, inputs: tuple[Keys, Given]) -> Rewrite:
    """Returns the rewrites of a batch at all stops with all guidances, [b, s, …].

    If there are several, `after` is what decides between them: the controls as read from the words of each rewrite or,
    of controls that have learned none, from its latent. `before` is then that of the source.
    """
    mesh, conditioning = mesh_of(edits.params), edits.conditioning
    rewrite, latent_energies = (jitted(edits.method, name, mesh) for name in ("rewrite", "latent_energies"))
    energy = Sum(energies=(), weights=()) if conditioning.energy is None else conditioning.energy
    limits, length = _limits(flow, edits), jnp.int32(max(conditioning.length, 0))
    guides = [word_guide(edits, inputs[1], *guidance) for guidance in _guidances(edits, flow)]
    candidates = [
        rewrite(edits.params, *inputs, energy=energy, limits=limits._replace(guide=guide), length=length)
        for guide in guides
    ]
    rewrites: Rewrite = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *candidates)
    if rewrites.solved.shape[1] == 1:
        return rewrites
    tokens = rewrites.tokens.reshape(-1, rewrites.tokens.shape[-1])
    if conditioning.readings is None:
        after = latent_energies(edits.params, tokens, energy=energy)
        return rewrites._replace(after=after.reshape(rewrites.after.shape))
    before, after = (_text_energies(conditioning.readings.energy, x) for x in (inputs[1].tokens, tokens))
    after = after.reshape(rewrites.after.shape)
    return rewrites._replace(before=jnp.broadcast_to(before[:, None], after.shape), after=after)


@jax.jit
def _text_energies(energy: Energy, tokens: Int[Array, "n l"]) -> Float[Array, "n parts"]:
    return energy_terms(energy, tokens, 0.0)


def _limits(flow: FlowSettings, edits: EditBatch) -> FlowLimits:
    """Returns how far latents move, as arrays, so that another value needs no recompilation.

    Without a time, a pull or a field, a latent moves until the probability is reached; that of 1 never is.
    """
    stops = np.asarray(STOPS if flow.rerank else [flow.target_probability], np.float32)
    timed = flow.max_time is not None or flow.learned or flow.source_pull or edits.method.sampler.num_noise_averages
    timed = timed or np.any(stops == 1)
    return FlowLimits(
        max_time=jnp.float32(flow.energy_time) if timed else None,
        target_probability=jnp.asarray(stops),
        source_pull=jnp.float32(flow.source_pull),
        field=edits.field,
    )


def word_guide(edits: EditBatch, given: Given, strength: float, hold: float) -> WordGuide | None:
    """Returns the guide of decoding for the sources `given`; None if it adds nothing."""
    readings = edits.conditioning.readings
    if readings is None or not (strength or hold):
        return None
    valid = jnp.arange(given.tokens.shape[1]) < given.length[:, None] - 1  # without EOS
    return WordGuide(
        energy=readings.energy,
        neutral=jnp.asarray(readings.neutral),
        source=occurring(given.tokens, valid, len(readings.neutral)),
        strength=jnp.float32(strength),
        hold=jnp.float32(hold),
    )


def _edit_of(row: int, stop: int, rewrites: Rewrite, edits: EditBatch) -> Edit:
    """One rewrite of a text; energies become probabilities."""
    before, after = (
        {name: float(np.exp(-energy)) for name, energy in zip(edits.conditioning.names, nats[row, stop], strict=True)}
        for nats in (rewrites.before, rewrites.after)
    )
    solved = bool(rewrites.solved[row, stop])
    return Edit(
        edits.tokenizer.decode(np.asarray(rewrites.tokens[row, stop])) if solved else "",
        before=before,
        after=after,
        distance=float(rewrites.distance[row, stop]),
        steps=int(rewrites.steps[row, stop]),
        skipped_because="" if solved else FLOW_FAILED,
    )


def _reached(edit: Edit, target_probability: float) -> bool:
    nats = -sum(math.log(max(p, 1e-38)) for p in edit.after.values())
    return target_probability == 1 or nats <= -REACHED * math.log(max(target_probability, 1e-38))


def _best(candidates: list[Edit], source: str, target_probability: float) -> Edit:
    """Returns the edit closest to its source among those that have the target probability.

    If none has it, among those that are `NEARLY_BEST`. The source itself is returned if every flow failed.
    """
    solved = [edit for edit in candidates if not edit.skipped_because] or [candidates[0]._replace(text=source)]
    if len(solved) == 1:
        return solved[0]
    probabilities = [math.prod(edit.after.values()) for edit in solved]
    best = max(probabilities)
    least = target_probability if best >= target_probability else NEARLY_BEST * best
    reached = [edit for edit, p in zip(solved, probabilities, strict=True) if p >= least]
    return max(reached, key=lambda edit: sentence_bleu(edit.text, source))
