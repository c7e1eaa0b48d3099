"""Editing a stream of lines, with resumable JSONL output."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from jtextdiff.cli.errors import UserError
from jtextdiff.cli.output import say

AT_ONCE = 64
HEAD = b'{"source": '
"""How each line of --out begins."""


def stream(model: Any, lines: Iterator[str], done: int, out: TextIO, asked: dict[str, Any], *, as_json: bool) -> None:
    """Rewrites the lines, the first of which has the number `done`, and tells how many could not be moved."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    from jtextdiff.inference.editing import NOWHERE

    # Lines are not counted beforehand: the input may be a stream.
    columns, unmoved = (TextColumn("{task.completed} texts rewritten"), TimeElapsedColumn()), 0
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=out.isatty()) as bar:
        task = bar.add_task("", total=None, completed=done)
        for first, texts in chunks(lines, done):
            rows = rewritten(model, texts, first, asked)
            unmoved += sum(row.get("left") == NOWHERE for row in rows)
            hand_on(out, rows, as_json=as_json)
            bar.advance(task, len(texts))
    if unmoved:
        say(f"warning: {unmoved} texts were left as they are: {NOWHERE}.")


def chunks(lines: Iterator[str], first: int) -> Iterator[tuple[int, list[str]]]:
    """Some lines at once, with the number of the first."""
    while texts := list(islice(lines, AT_ONCE)):
        yield first, texts
        first += len(texts)


def rewritten(model: Any, texts: list[str], first: int, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """For each text its source, rewrite, what its way was like and, if it was left as it is, why."""
    most = model.method.language.length
    left = ["empty" if not text.strip() else "" for text in texts]
    sizes = model.num_tokens([text if not why else "" for text, why in zip(texts, left, strict=True)])
    left = [why or (f"longer than {most - 1} tokens" if n > most else "") for why, n in zip(left, sizes, strict=True)]
    rows = [row for row, why in enumerate(left) if not why]
    ids = [first + row for row in rows]
    found = model.rewritten([texts[row] for row in rows], ids=ids, **asked) if rows else []
    rewrites = dict(zip(rows, found, strict=True))
    told = []
    for row, (text, why) in enumerate(zip(texts, left, strict=True)):
        if why or rewrites[row].left:
            told.append({"source": text, "rewrite": text, "left": why or rewrites[row].left})
        else:
            told.append({"source": text, "rewrite": rewrites[row].text, **way(rewrites[row])})
    return told


def way(of: Any) -> dict[str, Any]:
    """What is told of a latent's way; nothing of texts that have none."""
    if of.moved is None:
        return {}
    return {"p_before": of.before, "p_after": of.after, "moved": of.moved, "steps": of.steps}


def hand_on(out: TextIO, rows: list[dict[str, Any]], *, as_json: bool) -> None:
    from jtextdiff.cli.output import one_line

    for row in rows:
        print(json.dumps(row, ensure_ascii=False) if as_json else one_line(row["rewrite"]), file=out)
    out.flush()


def behind(out: Path, lines: Iterator[str]) -> int:
    """How many of the lines `out` holds a rewrite of already; they are taken from `lines`.

    Half a line at its end, of a run that was interrupted, is taken away. Raises UserError, and changes nothing, if it
    holds anything else.
    """
    if not out.exists():
        return 0
    done = end = 0
    with open(out, "rb+") as file:
        for line in file:
            whole, source = line.endswith(b"\n"), _source(line)
            if line[: len(HEAD)] != HEAD[: len(line)] or (whole and source is None):
                raise UserError(
                    f"--out {out}: line {done + 1} is no rewrite of ours, which would be lost. Name another."
                )
            if not whole:
                file.truncate(end)
                break
            done, end = done + 1, end + len(line)
            if source != next(lines, None):
                raise UserError(
                    f"--out {out}: line {done} is the rewrite of another text than --input and --num give. Go on with "
                    "the same, or name another file."
                )
    return done


def _source(line: bytes) -> str | None:
    """The source of a line of --out; None for what is none."""
    try:
        return json.loads(line)["source"]
    except (ValueError, TypeError, KeyError):
        return None
