"""python -m jtextdiff.edit: rewrites texts towards what is wanted of them, one a line and in their order."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from jtextdiff.run.command import (
    Parser,
    UserError,
    add_balance,
    add_checkpoint,
    add_control,
    add_flow,
    add_seed,
    check_out,
    flow_of,
    main,
    sampler_overrides,
    say,
)

EXAMPLES = """examples:
  echo "The Mill is a cheap pub ." | python -m jtextdiff.edit --checkpoint runs/diffusion_lm --control food=Japanese
  python -m jtextdiff.edit --checkpoint runs/diffusion_lm --input texts.txt --strength 0.7 --control food!=Thai
  python -m jtextdiff.edit --checkpoint runs/diffusion_lm --input texts.txt --out rewrites.jsonl --hold Mill
  python -m jtextdiff.edit --checkpoint runs/latent_ops --input texts.txt --control sentiment=positive --until 0.999
  python -m jtextdiff.edit --checkpoint runs/latent_ops --input texts.txt --control length=8 --sampler sample --num 3

By diffusion, a text is noised to --strength and written anew, with its length, in the direction of the controls. By
latents, of a text VAE, it is written anew from where the controls have taken its latent: until they have the
probability --until, by the model's own classifiers, and at most for the time --tau. Empty lines stay empty; a text that
is too long for the model stays as it is. With --out, each line is a JSON object with the source, the rewrite, what its
way through latent space was like and, where a text was left as it is, why; a run that was interrupted goes on behind
the last of them.
"""

AT_ONCE = 64

HEAD = b'{"source": '
"""How each line of --out begins."""


def parser() -> Parser:
    it = Parser(prog="python -m jtextdiff.edit", description="Rewrites texts.", epilog=EXAMPLES)
    add_checkpoint(it)
    it.add_argument("--input", default="-", metavar="FILE", help="texts, one a line (default: -, standard input)")
    add_control(it)
    add_balance(it)
    it.add_argument(
        "--strength", type=float, metavar="T", help="by diffusion: from 0, no change, to 1, nothing left (default: 0.5)"
    )
    it.add_argument("--hold", action="append", default=[], metavar="WORD", help="by diffusion: a word that stays")
    add_flow(it)
    it.add_argument("--num", type=int, default=1, metavar="N", help="rewrites of each text, one a line (default: 1)")
    it.add_argument("--out", metavar="FILE", help="JSON lines instead of texts on standard output")
    add_seed(it, "the same seed gives the same rewrites")
    return it


def command(arguments: Sequence[str]) -> None:
    flags = parser().parse_args(arguments)
    agree(flags)
    from jtextdiff.run.balancing import weighed
    from jtextdiff.run.controls import together
    from jtextdiff.run.model import load
    from jtextdiff.run.rewriting import check
    from jtextdiff.run.steering import Asked, asked

    model = load(flags.checkpoint, at=flags.at, overrides=sampler_overrides(flags))
    if flags.num > 1 and model.method.sampler.name in ("greedy", "beam"):
        say(f"note: {model.method.sampler.name} writing has no chance in it; --sampler sample makes rewrites differ.")
    control = weighed(model, together(flags.control), flags.balance)
    how = {name: getattr(flags, name) for name in ("strength", "hold")} | flow_of(flags)
    wanted = Asked(None, 0) if control is None else asked(control, model.steered)
    check(model.method, wanted, **how)  # before a file is touched
    with ExitStack() as files:
        source = sys.stdin if flags.input == "-" else files.enter_context(open(flags.input, encoding="utf-8"))
        lines = (line.rstrip("\r\n") for line in source for _ in range(flags.num))
        try:
            done = behind(Path(flags.out), lines) if flags.out else 0
            if done:
                say(f"Going on behind the {done} rewrites in {flags.out}.")
            out = files.enter_context(open(flags.out, "a", encoding="utf-8")) if flags.out else sys.stdout
            stream(model, lines, done, out, {"control": control, "seed": flags.seed, **how}, as_json=bool(flags.out))
        except UnicodeDecodeError as error:
            raise UserError(
                f"--input {flags.input} is no text in UTF-8: {error.reason} at byte {error.start}."
            ) from None


def agree(flags: Any) -> None:
    """Raises UserError for arguments that cannot be, before anything is loaded."""
    check_out(flags.out)
    if flags.num < 1:
        raise UserError(f"--num must be at least 1, got {flags.num}.")
    if flags.input != "-" and not Path(flags.input).is_file():
        raise UserError(f"--input {flags.input}: there is no such file.")
    if flags.out and flags.input != "-" and Path(flags.out).resolve() == Path(flags.input).resolve():
        raise UserError(f"--out {flags.out} is --input itself: name another file.")


def stream(model: Any, lines: Iterator[str], done: int, out: TextIO, asked: dict[str, Any], *, as_json: bool) -> None:
    """Rewrites the lines, the first of which has the number `done`, and tells how many could not be moved."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    from jtextdiff.run.rewriting import NOWHERE

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
    from jtextdiff.run.report import one_line

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


if __name__ == "__main__":
    main(command)
