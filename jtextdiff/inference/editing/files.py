"""Editing a stream of lines, with resumable JSONL output."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from jtextdiff.cli.errors import UserError
from jtextdiff.cli.output import one_line, progress_bar, say, to_json_text
from jtextdiff.data.lines import parse_json
from jtextdiff.inference.editing.types import EMPTY

CHUNK_SIZE = 64
"""Lines edited together."""

LONGER = "longer than"
"""The beginning of why a long text is left as it is."""

LINE_START = b'{"source": '
"""The first bytes of each line of --out."""


def edit_stream(
    edit_texts: Callable[..., list[Any]],
    model: Any,
    lines: Iterator[str],
    num_done: int,
    out: TextIO,
    *,
    made_with: str | None,
    any_length: bool = False,
) -> None:
    """Edits the remaining lines and writes them to `out`; reports failed and short flows, and unknown words.

    `edit_texts(texts, ids=…)` edits some texts, given the numbers of their lines. `num_done` lines are done already.
    With `made_with`, the digest of all settings, each line is a JSON object that ends with it; else it is the edit.
    """
    from rich.progress import TextColumn, TimeElapsedColumn

    from jtextdiff.inference.editing.edits import UNKNOWN_IN_EDITS
    from jtextdiff.inference.prompts import note_on_unknown
    from jtextdiff.methods.method import LatentVariableModel

    # Lines are not counted beforehand: the input may be a stream.
    columns = TextColumn("{task.completed} texts edited"), TimeElapsedColumn()
    left: Counter[str] = Counter()
    num_short, latent = 0, isinstance(model.method, LatentVariableModel)
    unknown: list[list[str]] = []
    with progress_bar(*columns, disable=out.isatty()) as bar:
        task = bar.add_task("", total=None, completed=num_done)
        for first, texts in chunks(lines, num_done):
            rows = edit_rows(edit_texts, model, texts, first, any_length)
            left.update(row["left"] for row in rows if row.get("left", EMPTY) != EMPTY)
            num_short += sum(not row.get("reached", True) for row in rows)
            unknown += [row.get("unknown", []) for row in rows]
            write_rows(out, rows, made_with)
            bar.advance(task, len(texts))
    if num_short:
        say(f"warning: {num_short} edits end below the target probability; --out FILE says which (reached: false).")
    for reason, num_left in left.items():
        hint = " --pieces edits long ones piece by piece." if latent and reason.startswith(LONGER) else ""
        say(f"warning: {num_left} texts were not edited: {reason}.{hint}")
    if note := note_on_unknown(unknown):
        say(f"warning: {note} {UNKNOWN_IN_EDITS}")


def chunks(lines: Iterator[str], first: int) -> Iterator[tuple[int, list[str]]]:
    """Yields `CHUNK_SIZE` lines at a time, with the number of the first of them."""
    while texts := list(islice(lines, CHUNK_SIZE)):
        yield first, texts
        first += len(texts)


def edit_rows(
    edit_texts: Callable[..., list[Any]], model: Any, texts: list[str], first: int, any_length: bool = False
) -> list[dict[str, Any]]:
    """Returns one JSON object per text: its source, its edit, flow statistics and, if it was skipped, why (`left`).

    Words of the source that the model does not know are `unknown`.
    """
    skipped = skip_reasons(model, texts, any_length)
    editable = [row for row, reason in enumerate(skipped) if not reason]
    edits = edit_texts([texts[row] for row in editable], ids=[first + row for row in editable]) if editable else []
    edit_of_row = dict(zip(editable, edits, strict=True))
    rows = []
    for row, (text, reason) in enumerate(zip(texts, skipped, strict=True)):
        if reason := reason or edit_of_row[row].skipped_because:
            rows.append({"source": text, "rewrite": text, "left": reason})
        else:
            edit = edit_of_row[row]
            unknown = {"unknown": list(edit.unknown)} if edit.unknown else {}
            rows.append({"source": text, "rewrite": edit.text, **flow_stats(edit), **unknown})
    return rows


def skip_reasons(model: Any, texts: list[str], any_length: bool) -> list[str]:
    """Returns why each text cannot be edited, "" if it can."""
    longest = model.method.text_spec.length
    too_long = f"{LONGER} {longest - 1} tokens"
    return [too_long if size > longest and not any_length else "" for size in model.num_tokens(texts)]


def flow_stats(edit: Any) -> dict[str, Any]:
    """Returns how a latent moved; nothing for an edit by diffusion."""
    if edit.distance is None:
        return {}
    moved = {"p_before": edit.before, "p_after": edit.after, "moved": edit.distance, "steps": edit.steps}
    return moved if edit.reached else moved | {"reached": False}


def write_rows(out: TextIO, rows: list[dict[str, Any]], made_with: str | None) -> None:
    """Writes rows as JSON lines, or their edited texts one per line."""
    for row in rows:
        as_json = made_with and to_json_text(row | {"made_with": made_with})
        print(as_json or one_line(row["rewrite"]), file=out)
    out.flush()


def digest(settings: dict[str, Any]) -> str:
    """Returns twelve digits of the settings of an edit."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def resume_output(out: Path, lines: Iterator[str], made_with: str) -> int:
    """Returns how many of the lines `out` has edits of already, and takes these from `lines`.

    A last line that was cut short is removed. Raises UserError, and changes nothing, if the file holds anything else,
    such as edits of other texts or edits made with other settings.
    """
    if not out.exists():
        return 0
    num_done = end = 0
    with open(out, "rb+") as file:
        for line in file:
            is_complete, row = line.endswith(b"\n"), _row_of(line)
            if line[: len(LINE_START)] != LINE_START[: len(line)] or (is_complete and row is None):
                raise UserError(
                    f"--out {out}: line {num_done + 1} is not an edit written by this command. Name another file: "
                    "this one would be lost."
                )
            if not is_complete:
                file.truncate(end)
                break
            num_done, end = num_done + 1, end + len(line)
            if row["source"] != next(lines, None):
                raise UserError(
                    f"--out {out}: line {num_done} is the edit of another text than --input and --num give. Continue "
                    "with the same input, or name another file."
                )
            if "made_with" not in row:
                raise UserError(
                    f"--out {out}: line {num_done} has no made_with, the settings of its edit. Name another file."
                )
            if row["made_with"] != made_with:
                raise UserError(
                    f"--out {out}: line {num_done} was made with other settings than this command gives: another "
                    "checkpoint or step, sampler, --control, --seed or other flag. Continue with the same settings, or "
                    "name another file."
                )
    return num_done


def _row_of(line: bytes) -> Any:
    """The object in a line of --out, None for any other line."""
    try:
        row = parse_json(line.decode("utf-8"), "")
    except ValueError:
        return None
    return row if isinstance(row, dict) and "source" in row else None
