"""Records the denoising trajectory of a sample."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import Control
from jtextdiff.control.resolve import resolve
from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.devices.sharding import mesh_of
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.inference.batched import BATCH_SIZES, jitted
from jtextdiff.inference.model import Model
from jtextdiff.inference.sample_batches import check_tokens
from jtextdiff.methods.components.types import Sample
from jtextdiff.methods.method import LatentVariableModel
from jtextdiff.sampling.energies import Energy
from jtextdiff.visualization.trajectory import Curve, Trajectory


def record(
    model: Model,
    num: int = 3,
    *,
    seed: int = 0,
    template: str | None = None,
    control: Control | None = None,
    text: str | None = None,
    **sampler: Any,
) -> Trajectory:
    """Returns the trajectories of the samples that `Model.sample` draws, with the energies of a control at each state.

    With `text`, returns instead the trajectory of the latent edit of that text. Raises UserError if the model has no
    latents or the control has no energy.
    """
    method = model.with_sampler(sampler)
    size = next((size for size in BATCH_SIZES if size >= num), num)
    keys = keys_for(jax.random.key(seed), jnp.arange(size))
    given, (energy,) = model.inputs(template, control, size)
    guidance_terms = {} if energy is None else {"energy": energy}
    start = {} if text is None else {"start": _latent_of(model, text, size, energy)}
    result = jitted(method, "sample", mesh_of(model.params), keep_path=True)(
        model.params, keys, given, **guidance_terms, **start
    )
    check_tokens(np.asarray(result.tokens))
    has_latents = isinstance(method, LatentVariableModel)
    trajectory = trajectory_of(type(model.method).__name__, result, num, model.tokenizer, redecoded=has_latents)
    if control is None or energy is None:
        return trajectory
    guidance = getattr(method.sampler, "guidance", None)
    guided = (1.0, 0.0) if guidance is None else (guidance.start, guidance.stop) if guidance.updates else None
    return with_energies(trajectory, result, resolve(control, model).names, guided)


def _latent_of(model: Model, text: str, num: int, energy: Energy | None) -> Any:
    """Returns the latent of a text, `num` times. Raises UserError without latents or without an energy to follow."""
    if not isinstance(model.method, LatentVariableModel) or energy is None:
        raise UserError(
            "The trajectory of a text is that of its latent while a control edits it: it needs a run of TextVAE and a "
            "--control with an energy."
        )
    tokens, valid = map(jnp.asarray, model.batch([text])[:2])
    return jnp.repeat(model.method.encode(model.params, tokens, valid), num, axis=0)


def trajectory_of(
    method_name: str, sample: Sample, num: int, tokenizer: Tokenizer, *, redecoded: bool = False
) -> Trajectory:
    """Returns the first `num` rows of a sample with a stored path, every state decoded word by word.

    A state has as many words as the last one. If each state is `redecoded` from its latent, it has its own length.
    """

    @functools.cache
    def word_of(token: int) -> str:
        if token == tokenizer.pad or token == tokenizer.eos:
            return "" if token == tokenizer.pad else "⏎"
        return tokenizer.decode([token]).strip() or "␣"

    path = np.asarray(sample.path)[:, :num]
    changes = np.flatnonzero((path[1:] != path[:-1]).any(axis=(1, 2)))
    path = path[: 1 + max([int(sample.calls[:num].max()), *(changes + 1)])]  # after that nothing changes
    valid = (path if redecoded else np.asarray(sample.tokens)[None, :num]) != tokenizer.pad
    length = np.maximum(valid.any(0).sum(-1), 1)
    words = tuple(
        tuple(tuple(word_of(int(token)) for token in frame[row, : length[row]]) for frame in path) for row in range(num)
    )
    times = tuple(float(t) for t in np.linspace(1.0, 0.0, len(path)))
    kind = "Latent" if redecoded else "Denoising"
    return Trajectory(f"{kind} trajectory of {method_name}, {len(path) - 1} steps", times, words)


def with_energies(
    trajectory: Trajectory, sample: Sample, names: Sequence[str], guided: tuple[float, float] | None
) -> Trajectory:
    """Returns the trajectory with the stored energies of its sample, in nats, one curve for each of the `names`.

    `guided`: the times between which guidance acted.
    """
    energies = np.asarray(sample.energies, np.float64)[: len(trajectory.times), : len(trajectory.words)]
    parts = zip(names, energies.transpose(2, 1, 0).tolist(), strict=True)
    curves = tuple(Curve(name, tuple(map(tuple, nats))) for name, nats in parts)
    return trajectory._replace(energies=curves, guided=guided)
