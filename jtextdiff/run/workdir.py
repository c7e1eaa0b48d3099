"""The directory of a run: its files, its lock, and the config fields that may change on resuming.

config.json · text.json · tokenizer/ · checkpoints/ · metrics.jsonl · events (TensorBoard) · samples/STEP.txt · loss.png
"""

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jtextdiff.cli.errors import UserError
from jtextdiff.cli.output import write_atomically
from jtextdiff.data.tokenizer_builders import same_tokenizer
from jtextdiff.run.config import Config, differences, from_json, to_json

MAY_CHANGE = ("num_steps", "every", "mesh", "method.sampler")
"""The fields of a config that may differ when a run is resumed."""

FROM_TEXT = ("method.text_spec.", "method.values", "method.kind")
"""The fields that follow from the text."""


def default_workdir(config_path: str) -> Path:
    """Returns runs/X for `configs/X.py`, and runs/X-preset for `configs/X.py:preset`."""
    file, _, preset = config_path.partition(":")
    return Path("runs") / (Path(file).stem + (f"-{preset}" if preset else ""))


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Locks the run for one writer; the system releases the lock however the process ends.

    Raises UserError if another process holds it. Folders that this has made are removed again if a UserError ends the
    body while they are empty.
    """
    folder = workdir.resolve()  # "new/../other" does not exist without "new", but "other" may
    made = [part for part in (folder, *folder.parents) if not part.exists()]
    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / "lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"Another process is training in {workdir}. Wait for it, or give this run its own --workdir."
            ) from None
        try:
            yield
        except UserError:
            if made and [path.name for path in folder.iterdir()] == ["lock"]:
                (folder / "lock").unlink()
                for part in made:
                    with contextlib.suppress(OSError):  # it holds something else by now
                        part.rmdir()
            raise


def read_config(workdir: Path) -> Config:
    """Returns the config that a run was started with. Raises UserError if there is no run, or its file is damaged."""
    file = workdir / "config.json"
    if not file.is_file():
        raise UserError(
            f"There is no trained run in {workdir} ({file} is missing). "
            f"Train one with: python -m jtextdiff.train --config configs/diffusion_lm.py --workdir {workdir}"
        )
    try:
        config = from_json(file.read_text(encoding="utf-8"))
    except (ValueError, TypeError, AttributeError, ImportError, RecursionError) as error:
        raise UserError(
            f"{file} cannot be read as the config of a run, or of a published checkpoint: {error}."
        ) from None
    for part in ("text", "method", "optim"):
        if part not in config:
            raise UserError(f"{file} is not the config of a run: it has no {part!r}.")
    return config


def store_config(workdir: Path, config: Config, text: dict[str, str], *, resumed: bool) -> None:
    """Stores the config of a run and the digest of each split of its `text`.

    If the run is `resumed`, checks first that they agree with the stored ones. Raises UserError naming the first field
    that differs and may not change, or the splits that have changed. A run without stored digests is not checked.
    """
    if resumed:
        stored = read_config(workdir)
        same = ["text.tokenizer"] if same_tokenizer(stored.text.tokenizer, config.text.tokenizer) else []
        changed = differences(stored, config, [*MAY_CHANGE, *same])
        changed = [field for field in changed if field[:2] != ("optim.decay_steps", None)]  # it has not trained yet
        _refuse(workdir, [field for field in changed if not field[0].startswith(FROM_TEXT)])
        _check_text(workdir, text)
        _refuse(workdir, changed)
    write_atomically(workdir / "text.json", json.dumps(text, indent=2) + "\n")
    write_atomically(workdir / "config.json", to_json(config))


def _refuse(workdir: Path, changed: list[tuple[str, Any, Any]]) -> None:
    """Raises UserError if any fields have changed."""
    if not changed:
        return
    name, old, new = changed[0]
    more = f" ({len(changed) - 1} more fields differ)" if len(changed) > 1 else ""
    raise UserError(
        f"{workdir} was started with {name} = {old!r}, not {new!r}{more}. "
        f"Only {', '.join(MAY_CHANGE)} may change on resuming; start anew with another --workdir."
    )


def _check_text(workdir: Path, text: dict[str, str]) -> None:
    """Raises UserError if the run was started with another text."""
    file = workdir / "text.json"
    try:
        stored = dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else text
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{file} cannot be read: {error}. Remove it to resume without comparing the text.") from None
    if changed := sorted(split for split in stored.keys() | text.keys() if stored.get(split) != text.get(split)):
        raise UserError(
            f"The text has changed since {workdir} was started: there are other texts or labels in "
            f"{' and '.join(changed)}. Start anew with another --workdir, from the parameters of this run with "
            f"--config.warm_start={workdir}, or put the former text back."
        )


def truncate_metrics(file: Path, step: int) -> None:
    """Removes the lines of metrics.jsonl after `step`, and a last line cut short by a crash."""
    if not file.is_file():
        return
    remaining = []
    for line in file.read_bytes().splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if json.loads(line)["step"] <= step:
                remaining.append(line.decode("utf-8") + "\n")
    write_atomically(file, "".join(remaining))
