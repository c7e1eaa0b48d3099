"""Editing texts by diffusion or in latent space."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jtextdiff.cli.errors import UserError
from jtextdiff.control.phrases import known_tokens
from jtextdiff.control.resolve import Conditioning
from jtextdiff.diffusion.randomness import Keys, fold_in, keys_for, per_row
from jtextdiff.inference.editing.flow_settings import FlowSettings
from jtextdiff.inference.editing.latent import edit_in_latent_space
from jtextdiff.inference.editing.types import EMPTY, UNKNOWN, Edit, EditBatch, rows_of
from jtextdiff.inference.editing.unknown_words import text_of
from jtextdiff.inference.prompts import check_texts
from jtextdiff.inference.sample_batches import run_batched
from jtextdiff.methods.components.types import Given
from jtextdiff.methods.method import Editable, LatentVariableModel, Method
from jtextdiff.sampling.energies import Sum
from jtextdiff.sampling.phrases import word_terms

UNKNOWN_IN_EDITS = "The model reads each as the unknown word; an edit keeps those that it does not replace."

EDIT_PURPOSE = 10
"""What the keys of masked positions are derived for, apart from those of a sampler."""

MASKED_FIRST = 10.0
"""Nats of a word's weight against the controls, times this, outweigh the noise that chooses the masked words."""


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
    method that cannot edit in this way. A text without known words is skipped: nothing of it would be in its edit.
    """
    check_edit(edits.method, edits.conditioning, strength, hold, flow)
    reasons = skip_reasons(edits)
    rows = [row for row, reason in enumerate(reasons) if not reason]
    numbers = jnp.asarray(range(len(reasons)) if ids is None else ids, jnp.int32)[jnp.asarray(rows, jnp.int32)]
    keys, editable = keys_for(jax.random.key(seed), numbers), rows_of(edits, rows)
    progress(len(reasons) - len(rows))
    if isinstance(edits.method, LatentVariableModel):
        edited = edit_in_latent_space(editable, FlowSettings() if flow is None else flow, keys, progress)
    else:
        edited = edit_by_diffusion(editable, 0.5 if strength is None else strength, hold, keys, progress)
    edit_of = dict(zip(rows, edited, strict=True))
    return [edit_of[row] if not reason else _skipped(edits, row, reason) for row, reason in enumerate(reasons)]


def skip_reasons(edits: EditBatch) -> list[str]:
    """Returns why each text cannot be edited, "" if it can."""
    words = edits.batch.valid & (edits.batch.tokens != edits.tokenizer.eos)
    known = words if edits.tokenizer.unk is None else words & (edits.batch.tokens != edits.tokenizer.unk)
    return [
        "" if has_known else UNKNOWN if has_words else EMPTY
        for has_words, has_known in zip(words.any(-1), known.any(-1), strict=True)
    ]


def _skipped(edits: EditBatch, row: int, reason: str) -> Edit:
    return Edit(text_of(edits.batch.tokens[row].tolist(), edits, row), skipped_because=reason)


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
        weights = conditioning.energy.weights if isinstance(conditioning.energy, Sum) else ()
        if idle := [name for name, weight in zip(conditioning.names, weights, strict=False) if weight == 0]:
            raise UserError(
                f"{' and '.join(idle)} with a weight of 0 moves no latent: leave it out, or raise the weight."
            )
        if flow is not None:
            check_flow(flow, conditioning)
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


def check_flow(flow: FlowSettings, conditioning: Conditioning) -> None:
    """Raises UserError for settings out of range, or that the controls cannot follow."""
    flow_names = ", ".join(FlowSettings._fields)
    if conditioning.energy is None:
        given = [field for field, value in flow._asdict().items() if value != getattr(FlowSettings(), field)]
        raise UserError(
            f"{', '.join(given) or flow_names}: no control moves a latent; a length or the label of a "
            "CVAE is enforced exactly. Give --control, or leave the settings out."
        )
    flow.check()
    if (flow.word_guidance or flow.word_hold or flow.minimal) and (
        conditioning.readings is None or not conditioning.readings.guides
    ):
        raise UserError(
            "word_guidance, word_hold and minimal need controls of labels, all of which have learned words: "
            "values such as food=Thai, excluded ones, and their sums. keyword and regex have no words, nor has "
            "a control that was fitted before controls learned words: remove its folder, and fit it again."
        )
    if flow.learned and not flow.energy_time and len(conditioning.names) > 1:
        raise UserError(
            f"learned follows the field of one label, and {' and '.join(conditioning.names)} require more: "
            "give max_time too, the time for which their energies are followed."
        )


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
    return [Edit(text_of(tokens.tolist(), edits, row)) for row, tokens in enumerate(output.tokens)]


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
