"""Checkpoints: the state of a run on disk, whole or not at all; the newest and the best are kept.

Two parts: `model`, the running mean of the parameters, which is all that sampling reads, and `training`, the
rest of what resuming needs.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint.checkpoint_managers import preservation_policy as preservation

from jtextdiff.run.command import UserError

logging.set_verbosity(logging.ERROR)  # orbax tells of every option it was given


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
    """Starts writing; a crash while it lasts leaves the earlier checkpoints as they were."""
    if step in manager.all_steps():
        return
    parts = {"model": ocp.args.StandardSave(model), "training": ocp.args.StandardSave(training)}
    manager.save(step, args=ocp.args.Composite(**parts), metrics={"loss": valid_loss})


def restore(
    workdir: Path, shapes: dict[str, Any], *, at: int | str = "latest", tell: Callable[[str], None]
) -> tuple[int, dict[str, Any]] | None:
    """Reads the named parts of a checkpoint, laid out as `shapes` says; None if there is none at all.

    `at` is "latest", "best" or a step. A checkpoint that cannot be read is told of and the one before it is
    used; with a step given, it is a UserError.
    """
    manager = _reader(workdir, tuple(shapes))
    steps = sorted(manager.all_steps(), reverse=True)
    if at == "best":
        best = manager.best_step()
        steps = [best] if best is not None else steps
    elif at != "latest":
        if int(at) not in steps:
            raise UserError(f"{workdir} has no checkpoint at step {at}; it has {sorted(steps)}.")
        steps = [int(at)]
    for step in steps:
        try:
            parts = {name: ocp.args.StandardRestore(shape) for name, shape in shapes.items()}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # orbax warns of layouts that the target already states
                restored = manager.restore(step, args=ocp.args.Composite(**parts))
            return step, {name: restored[name] for name in shapes}
        except Exception as error:  # a damaged file can raise anything
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            tell(f"The checkpoint at step {step} of {workdir} cannot be read: {reason}")
    if steps:
        raise UserError(f"No checkpoint under {workdir}/checkpoints can be read (tried steps {steps}).")
    return None


def forget_after(manager: ocp.CheckpointManager, step: int) -> None:
    """Deletes checkpoints later than `step`: damaged ones, which a resumed run will write again."""
    for later in [s for s in manager.all_steps() if s > step]:
        manager.delete(later)


def shapes_of(tree: Any, shardings: Any = None) -> Any:
    """Shapes and types of a tree, with its layout on the devices."""
    if shardings is None:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings,
    )


def _valid_loss(metrics: dict[str, float]) -> float:
    return metrics["loss"]


def _reader(workdir: Path, parts: tuple[str, ...]) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        read_only=True,
        create=False,
        preservation_policy=preservation.PreserveAll(),
        best_fn=_valid_loss,
        best_mode="min",
    )
    directory = (workdir / "checkpoints").absolute()
    if not directory.is_dir():
        raise UserError(f"There are no checkpoints under {workdir}. Has the run been trained?")
    return ocp.CheckpointManager(directory, options=options)
