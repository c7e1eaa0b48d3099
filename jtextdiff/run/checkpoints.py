"""Checkpoints: the state of a run on disk, whole or not at all; the newest and the best are kept.

Two parts: `model`, the running mean of the parameters, which is all that sampling reads, and `training`, the
rest of what resuming needs.
"""

import errno
import json
import math
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint.checkpoint_managers import preservation_policy as preservation

from jtextdiff.cli.errors import UserError

logging.set_verbosity(logging.FATAL)  # what goes wrong is told here, in one line


def open_checkpoints(workdir: Path) -> ocp.CheckpointManager:
    """The checkpoints of a run, for a writer; saving is asynchronous."""
    best = preservation.BestN(get_metric_fn=_valid_loss, reverse=True, n=1)
    options = ocp.CheckpointManagerOptions(
        preservation_policy=preservation.AnyPreservationPolicy([preservation.LatestN(2), best]),
        best_fn=_valid_loss,
        best_mode="min",
        cleanup_tmp_directories=True,
        enable_async_checkpointing=True,
    )
    return ocp.CheckpointManager((workdir / "checkpoints").absolute(), options=options)


def save(manager: ocp.CheckpointManager, step: int, model: Any, training: Any, valid_loss: float) -> None:
    """Starts writing; a crash while it lasts leaves the earlier checkpoints as they were.

    Raises OSError before anything is written if the disk has no room.
    """
    if step in manager.all_steps():
        return
    needed = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((model, training)))
    free = shutil.disk_usage(manager.directory).free
    if free < 1.2 * needed + 2**20:
        reason = f"a checkpoint needs {needed / 2**20:.1f} MiB, {free / 2**20:.1f} MiB are free"
        raise OSError(errno.ENOSPC, reason, str(manager.directory))
    parts = {"model": ocp.args.StandardSave(model), "training": ocp.args.StandardSave(training)}
    manager.save(step, args=ocp.args.Composite(**parts), metrics={"loss": valid_loss})


def restore(
    workdir: Path, shapes: dict[str, Any], *, at: int | str = "latest", tell: Callable[[str], None]
) -> tuple[int, dict[str, Any]] | None:
    """Reads the named parts of a checkpoint, laid out as `shapes` says; None if there is none at all.

    `at` is "latest", "best" or a step. A checkpoint that cannot be read is told of and the one before it is
    used. Raises UserError if none can be read, there is none at the step asked for, or it is of another network; of
    many processes OSError if this one cannot read its own part.
    """
    for step in (steps := _candidates(workdir, at)):
        try:
            with warnings.catch_warnings(), ocp.StandardCheckpointer() as reader:
                warnings.simplefilter("ignore")  # orbax warns of layouts that the target already states
                folder = _folder(workdir) / str(step)
                for name, shape in shapes.items():
                    _fits(shape, reader.metadata(folder / name).item_metadata.tree, folder)
                return step, {name: reader.restore(folder / name, shape) for name, shape in shapes.items()}
        except (PermissionError, MemoryError, UserError, jax.errors.JaxRuntimeError):
            raise  # the checkpoint may be whole: an older one in its place would lose steps
        except Exception as error:  # a damaged file can raise anything
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            told = f"the checkpoint of step {step} in {workdir} cannot be read ({reason})"
            if jax.process_count() > 1:  # the others may be reading theirs, and would go on from another step
                aside = f"mv {_folder(workdir)}/{step} {_folder(workdir)}/unreadable-{step}"
                raise OSError(f"{told}. To go on from the one before it: {aside}") from None
            tell(f"warning: {told}")
    if steps:
        raise UserError(f"No checkpoint in {workdir}/checkpoints can be read; tried those of steps {steps}.")
    return None


def set_aside_after(workdir: Path, step: int) -> None:
    """Renames checkpoints later than `step` to unreadable-STEP: a resumed run will write those steps again, and
    nothing is deleted."""
    for later in (found for found in _steps(workdir) if found > step):
        folder = _folder(workdir) / str(later)
        shutil.rmtree(folder.with_name(f"unreadable-{later}"), ignore_errors=True)
        folder.rename(folder.with_name(f"unreadable-{later}"))


def has_checkpoints(workdir: Path) -> bool:
    return bool(_steps(workdir))


def shapes_of(tree: Any, shardings: Any = None) -> Any:
    """Shapes and types of a tree, with its layout on the devices."""
    if shardings is None:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings,
    )


def _fits(wanted: Any, stored: Any, folder: Path) -> None:
    """Raises UserError naming the first array whose shape in the checkpoint is not the one wanted."""
    there, here = (
        {_name(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (stored, wanted)
    )
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise UserError(
                f"The checkpoint in {folder} is of another network: the shape of {name} is {there.get(name)} there, "
                f"{here.get(name)} here (None: no such array). Its text or its method was another."
            )


def _name(path: Any) -> str:
    """A leaf's place, dot by dot, however its tree spells it: a stored tuple comes back as a dict or a list."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _valid_loss(metrics: dict[str, float]) -> float:
    return metrics["loss"]


def _folder(workdir: Path) -> Path:
    return (workdir / "checkpoints").absolute()


def _steps(workdir: Path) -> list[int]:
    """The steps of finished checkpoints, newest first; unfinished ones have other names."""
    folder = _folder(workdir)
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def _candidates(workdir: Path, at: int | str) -> list[int]:
    """The steps to try, in order."""
    steps = _steps(workdir)
    if at == "latest":
        return steps
    if at == "best":
        losses = {step: _stored_loss(_folder(workdir) / str(step) / "metrics" / "metrics") for step in steps}
        return sorted(steps, key=lambda step: losses[step])
    if int(at) not in steps:
        raise UserError(f"{workdir} has no checkpoint of step {at}; it has those of steps {sorted(steps)}.")
    return [int(at)]


def _stored_loss(file: Path) -> float:
    try:
        return _valid_loss(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError):
        return math.inf
