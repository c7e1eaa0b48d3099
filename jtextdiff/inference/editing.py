"""Editing texts by diffusion or in latent space."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jtextdiff.cli.errors import UserError
from jtextdiff.control.phrases import known_tokens
from jtextdiff.control.resolve import Conditioning
from jtextdiff.data.batches import Batch
from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.devices.sharding import mesh_of, num_shards
from jtextdiff.diffusion.randomness import Keys, fold_in, keys_for, per_row
from jtextdiff.inference.batched import LengthBucket, jitted, map_batches
from jtextdiff.inference.flow_settings import FlowSettings
from jtextdiff.inference.prompts import check_texts
from jtextdiff.inference.sample_batches import check_tokens, run_batched
from jtextdiff.methods.components.latents import FlowLimits, Rewrite
from jtextdiff.methods.components.types import Given
from jtextdiff.methods.method import Editable, LatentVariableModel, Method
from jtextdiff.metrics.bleu import sentence_bleu
from jtextdiff.nets.functional import Params
from jtextdiff.sampling.energies import Sum
from jtextdiff.sampling.phrases import WordHold, word_terms
from jtextdiff.sampling.rectified_flow import Field

FLOW_FAILED = "the solver found no path through latent space"
"""Why a text is skipped if the solver of the flow reaches its limit of steps."""

UNKNOWN_IN_EDITS = "Each becomes the unknown word, and no edit keeps it."

REACHED = 1.02
"""Times the nats of the target at which it counts as reached: the solver and float32 are not exact."""

EDIT_PURPOSE = 10
"""What the keys of masked positions are derived for, apart from those of a sampler."""

MASKED_FIRST = 10.0
"""Nats of a word's weight against the controls, times this, outweigh the noise that chooses the masked words."""

STOPS = (0.5, 0.8, 0.9, 0.97, 0.99, 0.997, 0.999, 0.9999)
"""Probabilities at which a latent is decoded for reranking."""


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
    before: dict[str, float] = {}  # probability of each control by its own classifier, for the source …
    after: dict[str, float] = {}  # … and for the latent that was decoded; reranked: for the edit, encoded again
    distance: float | None = None  # that the latent moved, in standard deviations of the prior
    steps: int | None = None  # of the solver
    reached: bool = True  # whether all controls together have the target probability in the end, within 2 % of its nats
    skipped_because: str = ""  # the text is then its source
    unknown: tuple[str, ...] = ()  # words of the source that the model does not know


def edit_texts(
    edits: EditBatch,
    *,
    strength: float | None = None,
    hold: Sequence[str] = (),
    flow: FlowSettings | None = None,
    seed: int = 0,
    ids: Sequence[int] | None = None,
    progress: Callable[[int], None] = lambda num_done: None,
) -> list[Edit]:
    """Edits each text. An edit depends on the text, the seed and its number in `ids`, by default 0, 1, ….

    By Gaussian diffusion, a text is noised to the time `strength` in (0, 1], by default 0.5, and denoised again. By
    discrete diffusion, that share of its words is masked and sampled again: with a control those that speak most
    against it, else any. Both keep the length and the words in `hold`. In latent space, a text's latent moves along a
    flow, see `FlowSettings`. `progress` receives the number of texts in each finished batch. Raises UserError for a
    method that cannot edit in this way.
    """
    check_edit(edits.method, edits.conditioning, strength, hold, flow)
    keys = keys_for(
        jax.random.key(seed), jnp.asarray(range(len(edits.batch.tokens)) if ids is None else ids, jnp.int32)
    )
    if isinstance(edits.method, LatentVariableModel):
        return edit_in_latent_space(edits, FlowSettings() if flow is None else flow, keys, progress)
    return edit_by_diffusion(edits, 0.5 if strength is None else strength, hold, keys, progress)


def check_edit(
    method: Method,
    conditioning: Conditioning,
    strength: float | None = None,
    hold: Sequence[str] = (),
    flow: FlowSettings | None = None,
) -> None:
    """Raises UserError for a method that cannot edit, or not with these settings."""
    name, flow_names = type(method).__name__, ", ".join(FlowSettings._fields)
    check_texts(hold, "hold")
    if isinstance(method, LatentVariableModel):
        if strength is not None or hold:
            raise UserError(f"{name} edits in latent space, by {flow_names}: leave out strength and hold.")
        if flow is not None and conditioning.energy is None:
            raise UserError(
                f"{flow_names} set how far controls move a latent, but none of the controls moves it: a length or a "
                "label is enforced exactly. Leave the settings out."
            )
        if flow is not None:
            flow.check()
            if flow.word_hold and conditioning.neutral is None:
                raise UserError(
                    "word_hold needs controls that read words, and these do not. Train one that does: "
                    "--config.latent.reads=words."
                )
            if flow.learned and not flow.energy_time and len(conditioning.names) > 1:
                raise UserError(
                    f"learned follows the field of one label, and {' and '.join(conditioning.names)} require more: "
                    "give max_time too, the time for which their energies are followed."
                )
        return
    if not isinstance(method, Editable) and method.prefix_only:
        raise UserError(
            f"{name} samples from left to right: it cannot edit a text. DiffusionLM, TextVAE, Masked, D3PM, CMLM can."
        )
    if flow is not None:
        raise UserError(f"{name} edits by diffusion, by strength and hold: leave out {flow_names}.")
    if strength is not None and not (not isinstance(strength, str) and 0 < strength <= 1):
        raise UserError(f"strength must be above 0 and at most 1, got {strength!r}.")
    if conditioning.length > 0:
        raise UserError("An edit by diffusion keeps the length of its text: leave out controls that set one.")


def edit_by_diffusion(
    edits: EditBatch, strength: float, hold: Sequence[str], keys: Keys, progress: Callable[[int], None]
) -> list[Edit]:
    """Noises or masks each text and samples it again, with its length and the words in `hold`; see `edit_texts`."""
    tokens, valid = edits.batch.tokens, edits.batch.valid
    fixed = np.isin(tokens, known_tokens(hold, edits.tokenizer)) & valid
    name, settings = "edit", {"strength": jnp.float32(strength)}
    if not isinstance(edits.method, Editable):
        noise = np.asarray(per_row(jax.random.uniform, fold_in(keys, EDIT_PURPOSE), tokens.shape))
        if edits.conditioning.energy is not None:
            for term, weight in word_terms(edits.conditioning.energy):
                noise = noise + MASKED_FIRST * np.asarray(weight * term.token_weights())[tokens]
        fixed, name, settings = (
            ~masked_words(tokens, valid & ~fixed, edits.tokenizer.eos, strength, noise),
            "sample",
            {},
        )
    given = Given(*map(jnp.asarray, (tokens, fixed & valid, valid.sum(-1))))
    energies = [edits.conditioning.energy]
    output = run_batched(edits.method, name, edits.params, keys, given, energies, progress, **settings)
    return [Edit(edits.tokenizer.decode(row)) for row in output.tokens]


def masked_words(
    tokens: Int[np.ndarray, "b l"],
    free: Bool[np.ndarray, "b l"],
    eos: int,
    strength: float,
    noise: Float[np.ndarray, "b l"],
) -> Bool[np.ndarray, "b l"]:
    """Returns which words of each text are masked: a share `strength` of those that are `free`, rounded up.

    They are those with the least `noise`. EOS is no word.
    """
    free = free & (tokens != eos)
    rank = np.argsort(np.argsort(np.where(free, noise, np.inf), axis=-1), axis=-1)
    return free & (rank < np.ceil(strength * free.sum(-1))[:, None])


def edit_in_latent_space(
    edits: EditBatch, flow: FlowSettings, keys: Keys, progress: Callable[[int], None]
) -> list[Edit]:
    """Moves the latent of each text along the energy's flow and decodes it. Keeps a text whose flow failed.

    With `rerank`, latents are decoded at each of `STOPS`. The model's own controls choose, then BLEU with the source.
    """
    params, conditioning, mesh = edits.params, edits.conditioning, mesh_of(edits.params)
    energy = Sum(energies=(), weights=()) if conditioning.energy is None else conditioning.energy
    rewrite, latent_energies = (jitted(edits.method, name, mesh) for name in ("rewrite", "latent_energies"))
    settings = {"energy": energy, "length": jnp.int32(max(conditioning.length, 0))}
    stops = [_limits(flow, stop, edits) for stop in (STOPS if flow.rerank else (flow.target_probability,))]

    def rewrites_at_stops(bucket: LengthBucket, inputs: tuple[Keys, Given]) -> list[Rewrite]:
        rewrites = [rewrite(params, *inputs, limits=limits, **settings) for limits in stops]
        if not flow.rerank:
            return rewrites
        return [item._replace(after=latent_energies(params, item.tokens, energy=energy)) for item in rewrites]

    (num, longest), lengths = edits.batch.tokens.shape, edits.batch.valid.sum(-1)
    if num == 0:
        return []
    label = np.full(num, conditioning.label, np.int32)
    given = Given(*map(jnp.asarray, (edits.batch.tokens, np.zeros((num, longest), bool), lengths, label)))
    full, shards = np.full(num, longest), num_shards(mesh)
    rewrites = map_batches(rewrites_at_stops, (keys, given), full, longest=longest, shards=shards, progress=progress)
    for item in rewrites:
        check_tokens(item.tokens[item.solved])
    sources = [edits.tokenizer.decode(row) for row in edits.batch.tokens]
    candidates = ([_edit_of(row, item, edits) for item in rewrites] for row in range(num))
    best = [_best(row, source, flow.target_probability) for row, source in zip(candidates, sources, strict=True)]
    return [edit._replace(reached=_reached(edit, flow.target_probability)) for edit in best]


def _limits(flow: FlowSettings, target_probability: float, edits: EditBatch) -> FlowLimits:
    """Returns how far latents move, as arrays, so that another value needs no recompilation.

    Without a time, a pull or a field, a latent moves until the probability is reached; that of 1 never is.
    """
    timed = flow.max_time is not None or flow.learned or flow.source_pull or edits.method.sampler.num_noise_averages
    timed = timed or np.float32(target_probability) == 1
    return FlowLimits(
        max_time=jnp.float32(flow.energy_time) if timed else None,
        target_probability=jnp.float32(target_probability),
        source_pull=jnp.float32(flow.source_pull),
        field=edits.field,
        hold=word_hold(edits, flow.word_hold) if flow.word_hold else None,
    )


def word_hold(edits: EditBatch, weight: float) -> WordHold:
    """Returns the hold of the words that say nothing of the controls."""
    method, neutral = edits.method, edits.conditioning.neutral
    assert isinstance(method, LatentVariableModel) and neutral is not None  # see `check_edit`
    return WordHold(
        params=method.word_params(edits.params),
        neutral=jnp.asarray(neutral),
        weight=jnp.float32(weight),
        presence=method.word_presence,
    )


def _edit_of(row: int, rewrite: Rewrite, edits: EditBatch) -> Edit:
    """One row of a batch of rewrites; energies become probabilities."""
    names = edits.conditioning.names
    before, after = (
        {name: float(np.exp(-energy)) for name, energy in zip(names, nats[row], strict=True)}
        for nats in (rewrite.before, rewrite.after)
    )
    return Edit(
        edits.tokenizer.decode(np.asarray(rewrite.tokens[row])) if rewrite.solved[row] else "",
        before=before,
        after=after,
        distance=float(rewrite.distance[row]),
        steps=int(rewrite.steps[row]),
        skipped_because="" if rewrite.solved[row] else FLOW_FAILED,
    )


def _reached(edit: Edit, target_probability: float) -> bool:
    nats = -sum(math.log(max(p, 1e-38)) for p in edit.after.values())
    return target_probability == 1 or nats <= -REACHED * math.log(max(target_probability, 1e-38))


def _best(candidates: list[Edit], source: str, target_probability: float) -> Edit:
    """Returns the edit closest to its source among those that reach the target, else the one that comes nearest to it.

    The source itself is returned if every flow failed.
    """
    solved = [edit for edit in candidates if not edit.skipped_because] or [candidates[0]._replace(text=source)]
    if len(solved) == 1:
        return solved[0]
    probabilities = [math.prod(edit.after.values()) for edit in solved]
    reached = [edit for edit, p in zip(solved, probabilities, strict=True) if p >= target_probability]
    if not reached:
        return solved[int(np.argmax(probabilities))]
    return max(reached, key=lambda edit: sentence_bleu(edit.text, source))
