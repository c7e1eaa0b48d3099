"""Checkpoints of a run, written atomically with orbax; the newest two and the best one stay.

Each has two parts: `model`, the exponential moving average of the parameters, which is all that sampling reads, and
`training`, the rest of what resuming needs.
"""

import contextlib
import errno
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.sharding import Mesh
from orbax.checkpoint.checkpoint_managers import preservation_policy as preservation

from jtextdiff.cli.errors import UserError
from jtextdiff.cli.output import say
from jtextdiff.devices.sharding import shardings
from jtextdiff.nets.functional import Params

_UNSAFE = re.compile(r"[*?\[\\]|:(?=/|$)")
"""What orbax takes for a pattern or a protocol in a path: it would lose what it writes there."""


WHOLE = (PermissionError, MemoryError, UserError, jax.errors.JaxRuntimeError)
"""Errors of reading a checkpoint that may nevertheless be whole."""


def check_path(workdir: Path) -> None:
    """Raises UserError if checkpoints in `workdir` could not be read again, because of a character of its path."""
    _folder(workdir)
    if found := _unsafe(workdir):
        raise UserError(
            f"Checkpoints in {workdir.absolute()} could not be read again, because of {found} in this path. Choose a "
            "--workdir whose absolute path has no * ? [ or backslash, and no name that ends in a colon."
        )


def _unsafe(workdir: Path) -> str:
    """Returns the unsafe characters in the absolute path of a run, as text; "" if there are none."""
    return " and ".join(sorted(set(map(repr, _UNSAFE.findall(str(workdir.absolute()))))))


@contextlib.contextmanager
def open_checkpoints(workdir: Path) -> Iterator[ocp.CheckpointManager]:
    """Opens the checkpoints of a run for writing; saving is asynchronous."""
    best = preservation.BestN(get_metric_fn=_valid_loss, reverse=True, n=1)
    options = ocp.CheckpointManagerOptions(
        preservation_policy=preservation.AnyPreservationPolicy([preservation.LatestN(2), best]),
        best_fn=_valid_loss,
        best_mode="min",
        cleanup_tmp_directories=True,
        enable_async_checkpointing=True,
    )
    with _quiet_orbax(), ocp.CheckpointManager(_folder(workdir), options=options) as manager:
        yield manager


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
    """Silences the log of orbax: failures are raised as exceptions, which are reported in one line."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def save(manager: ocp.CheckpointManager, step: int, model: Any, training: Any, valid_loss: float) -> None:
    """Starts writing; a crash during the write leaves the earlier checkpoints intact.

    Before writing, the previous checkpoint is verified by reading it. The first checkpoint of a run is verified at
    once, because a fault of the disk would affect all later ones. Raises OSError if that fails, or before anything is
    written if the disk has too little space.
    """
    if step in manager.all_steps():
        return
    first = confirm_newest(manager, model, training) is None
    needed = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((model, training)))
    free = shutil.disk_usage(manager.directory).free
    if free < 1.2 * needed + 2**20:
        reason = f"a checkpoint needs {needed / 2**20:.1f} MiB, {free / 2**20:.1f} MiB are free"
        raise OSError(errno.ENOSPC, reason, str(manager.directory))
    parts = {"model": ocp.args.StandardSave(model), "training": ocp.args.StandardSave(training)}
    manager.save(step, args=ocp.args.Composite(**parts), metrics={"loss": valid_loss})
    if first:
        confirm_newest(manager, model, training)


def confirm_newest(manager: ocp.CheckpointManager, model: Any, training: Any) -> int | None:
    """Waits until the newest checkpoint is written, reads it back, and returns its step; None if there is none.

    `model` and `training` have the shapes and types of its parts. It is read into the memory of the host and discarded;
    with several processes, of which none holds all of it, the shapes alone are read. Raises OSError if that fails.
    """
    manager.wait_until_finished()
    step = manager.latest_step()
    if step is None or not (Path(manager.directory) / str(step)).exists():  # somebody may have removed it since
        return None
    on_host = lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)  # of no size in memory
    try:
        _read(
            Path(manager.directory) / str(step),
            jax.tree.map(on_host, {"model": model, "training": training}),
            only_shapes=jax.process_count() > 1,
        )
    except WHOLE:
        raise
    except Exception as error:  # whatever it is, resuming would fail alike
        others = [other for other in manager.all_steps() if other != step]
        remaining = f"those of steps {sorted(others)} are kept" if others else "there is no other"
        raise OSError(
            f"the checkpoint of step {step}, just written to {manager.directory}, cannot be read back "
            f"({_reason(error)}); {remaining}. Train in a --workdir on another disk."
        ) from error
    return step


def restore(workdir: Path, shapes: dict[str, Any], *, at: int | str = "latest") -> tuple[int, dict[str, Any]] | None:
    """Returns the step of a checkpoint and its parts named in `shapes`, with that layout; None if there is none.

    `at` is "latest", "best" or a step. If a checkpoint cannot be read, a warning is printed and the one before it is
    read. Raises UserError if none can be read, if there is none at the given step, or if it is of another network.
    Raises OSError if one of several processes cannot read its part.
    """
    steps = _candidates(workdir, at)
    for step in steps:
        try:
            return step, _read(_folder(workdir) / str(step), shapes)
        except WHOLE:
            raise  # an older one in its place would lose steps
        except Exception as error:  # a damaged file can raise anything
            message = f"the checkpoint of step {step} in {workdir} cannot be read ({_reason(error)})"
            if jax.process_count() > 1:  # the others may have read theirs, and would resume from another step
                set_aside = f"mv {_folder(workdir)}/{step} {_folder(workdir)}/unreadable-{step}"
                raise OSError(f"{message}. To resume from the one before it: {set_aside}") from None
            say(f"warning: {message}")
    if steps:
        unsafe_part = _unsafe(workdir)
        why = f" Its absolute path has {unsafe_part}: rename that directory and try again." if unsafe_part else ""
        raise UserError(f"No checkpoint in {workdir}/checkpoints can be read; tried those of steps {steps}.{why}")
    return None


def _read(folder: Path, shapes: dict[str, Any], *, only_shapes: bool = False) -> dict[str, Any]:
    """Reads the parts of one checkpoint, none if `only_shapes`. Raises UserError if it is of another network."""
    with _quiet_orbax(), warnings.catch_warnings(), ocp.StandardCheckpointer() as reader:
        warnings.simplefilter("ignore")  # orbax warns of layouts that the target already states
        for name, shape in shapes.items():
            _check_shapes(shape, reader.metadata(folder / name).item_metadata.tree, folder.parent)
        return {} if only_shapes else {name: reader.restore(folder / name, shape) for name, shape in shapes.items()}


def _reason(error: Exception) -> str:
    """Returns the first line of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def load_params(workdir: Path, method: Any, mesh: Mesh, *, at: int | str = "latest") -> tuple[int, Params]:
    """Returns the step of a checkpoint and the parameters of a method in it, divided over `mesh`.

    `at` is "latest", "best" or a step. Raises UserError if there is no checkpoint, or none can be read.
    """
    shapes = jax.eval_shape(method.init, jax.random.key(0))
    restored = restore(workdir, {"model": shapes_of(shapes, shardings(mesh, shapes))}, at=at)
    if restored is None:
        raise UserError(f"There are no checkpoints in {workdir}/checkpoints yet. Let the training reach its first.")
    step, parts = restored
    return step, parts["model"]


def set_aside_after(workdir: Path, step: int) -> None:
    """Renames checkpoints later than `step` to unreadable-STEP, since a resumed run will write those steps again.

    Nothing is deleted.
    """
    for later in (other for other in _steps(workdir) if other > step):
        folder = _folder(workdir) / str(later)
        shutil.rmtree(folder.with_name(f"unreadable-{later}"), ignore_errors=True)
        folder.rename(folder.with_name(f"unreadable-{later}"))


def has_checkpoints(workdir: Path) -> bool:
    return bool(_steps(workdir))


def shapes_of(tree: Any, shardings: Any = None) -> Any:
    """Returns the shapes and types of a tree, with its layout on the devices."""
    if shardings is None:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings,
    )


def _check_shapes(expected: Any, stored: Any, folder: Path) -> None:
    """Raises UserError naming the first array whose shape in the checkpoint is not the expected one."""
    stored_shapes, expected_shapes = (
        {_name(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (stored, expected)
    )
    for name in sorted(stored_shapes.keys() | expected_shapes.keys()):
        before, now = stored_shapes.get(name), expected_shapes.get(name)
        if before != now:
            raise UserError(
                f"The checkpoint in {folder} is of another network: the shape of {name} is {before} there, "
                f"{now} here (None: no such array). It was trained on another text or with another method."
            )


def _name(path: Any) -> str:
    """Returns a leaf's dotted path, the same for every kind of node: a stored tuple is restored as a dict or list."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _valid_loss(metrics: dict[str, float]) -> float:
    return metrics["loss"]


def _folder(workdir: Path) -> Path:
    """Returns where the checkpoints are. Raises UserError for a path that orbax cannot open."""
    folder = (workdir / "checkpoints").absolute()
    try:
        str(folder).encode("utf-8")
    except UnicodeEncodeError:
        shown = os.fsencode(folder).decode("ascii", "backslashreplace")
        raise UserError(f"The path of {shown} is not in UTF-8. Rename the folder that is not.") from None
    return folder


def _steps(workdir: Path) -> list[int]:
    """Returns the steps of finished checkpoints, newest first; unfinished ones have other names."""
    folder = _folder(workdir)
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def _candidates(workdir: Path, at: int | str) -> list[int]:
    """Returns the steps to try, in order."""
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
    except (OSError, ValueError, KeyError, TypeError):
        return math.inf
