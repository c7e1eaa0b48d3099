"""python -m jtextdiff.edit: rewrites texts towards what is wanted of them, one a line and in their order."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jtextdiff.cli.arguments import (
    Parser,
    add_balance,
    add_checkpoint,
    add_control,
    add_flow,
    add_seed,
    check_out,
    flow_of,
    sampler_overrides,
)
from jtextdiff.cli.errors import UserError
from jtextdiff.cli.main import main
from jtextdiff.cli.output import say
from jtextdiff.inference.edit_files import behind, stream

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
    from jtextdiff.control.balancing import weighed
    from jtextdiff.control.controls import together
    from jtextdiff.control.resolve import Asked, asked
    from jtextdiff.inference.editing import check
    from jtextdiff.inference.model import load

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


if __name__ == "__main__":
    main(command)
