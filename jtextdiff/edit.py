"""python -m jtextdiff.edit: edits texts, one per line, towards controls."""

import json
import sys
from collections.abc import Iterator, Sequence
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
    sampler_overrides,
)
from jtextdiff.cli.errors import UserError, mistakes
from jtextdiff.cli.main import main
from jtextdiff.cli.output import say

EXAMPLES = """examples:
  echo "The Mill is a cheap pub ." | python -m jtextdiff.edit --checkpoint runs/diffusion_lm --control food=Japanese
  python -m jtextdiff.edit --checkpoint runs/diffusion_lm --input texts.txt --strength 0.7 --control food!=Thai
  python -m jtextdiff.edit --checkpoint runs/diffusion_lm --input texts.txt --out edits.jsonl --hold Mill
  python -m jtextdiff.edit --checkpoint runs/latent_ops --input texts.txt --control sentiment=positive --rerank
  python -m jtextdiff.edit --checkpoint runs/latent_ops --input texts.txt --control length=8 --sampler sample --num 3

Diffusion-LM noises each text to --strength and denoises it, with its length, towards the controls. Masked diffusion,
D3PM and CMLM mask a share --strength of its words and sample them again: with controls those that speak most against
them, else any. A text VAE edits in latent space: controls move the latent of a text, for at most --max_time, and the
text is decoded from there. Changes that --target_probability does not need, by the model's own classifiers, are left
out again; with --no-minimal the latent stops at that probability instead, and all changes stay. Empty lines stay
empty, and a text without words that the model knows stays as it is. So does one that is too long for the model or, with
--pieces, it is edited piece by piece. With --out, each line is a JSON object with the source, the edit (rewrite), how
the latent moved, words that the model does not know (unknown) and, if the text was skipped, why (left). An interrupted
run continues after the last complete line, with the same settings (made_with).
"""


def build_parser() -> Parser:
    parser = Parser(prog="python -m jtextdiff.edit", description="Edits texts.", epilog=EXAMPLES)
    add_checkpoint(parser)
    parser.add_argument("--input", default="-", metavar="FILE", help="texts, one per line (default: -, standard input)")
    add_control(parser)
    add_balance(parser)
    parser.add_argument(
        "--strength",
        type=float,
        metavar="T",
        help="diffusion: 0 to 1, the time to which a text is noised, or the share of its words that is masked "
        "(default: 0.5)",
    )
    parser.add_argument("--hold", action="append", default=[], metavar="WORD", help="diffusion: a word that stays")
    add_flow(parser)
    parser.add_argument(
        "--pieces",
        action="store_true",
        help="latent editing: cut a text that is too long after sentences or clauses and edit it piece by piece",
    )
    parser.add_argument("--num", type=int, default=1, metavar="N", help="edits of each text, one per line (default: 1)")
    parser.add_argument("--out", metavar="FILE", help="write JSON lines to FILE instead of texts to standard output")
    add_seed(parser, "the same seed gives the same edits")
    return parser


def command(arguments: Sequence[str]) -> None:
    flags = build_parser().parse_args(arguments)
    check_flags(flags)
    import functools

    from jtextdiff import load
    from jtextdiff.control.balancing import balance_if
    from jtextdiff.control.consistency import check_values
    from jtextdiff.control.controls import parse_controls
    from jtextdiff.control.fields import learned_field
    from jtextdiff.control.resolve import resolve
    from jtextdiff.inference.editing.edits import check_edit
    from jtextdiff.inference.editing.flow_settings import flow_settings
    from jtextdiff.inference.editing.pieces import check_pieces
    from jtextdiff.methods.method import LatentVariableModel

    model = load(flags.checkpoint, at=flags.at, overrides=sampler_overrides(flags))
    if flags.num > 1 and model.method.sampler.name in ("greedy", "beam"):
        say(f"note: {model.method.sampler.name} decoding is deterministic; --sampler sample makes edits differ.")
    if flags.num > 1 and isinstance(model.method, LatentVariableModel) and flags.minimal is not False:
        say("note: minimal edits of one text are often the same; --no-minimal writes each as it is drawn.")
    flow = flow_settings(flags)
    if flags.balance and flow is not None and flow.learned and not flow.energy_time:
        raise UserError("--balance weighs energies, which --learned leaves out: give --max_time too.")
    control = balance_if(flags.balance, model, parse_controls(flags.control))
    check_edit(model.method, resolve(control, model), flags.strength, flags.hold, flow)  # before a file is touched
    check_values(control, model)
    if flags.pieces:
        check_pieces(model.method, control)
    if flow is not None and flow.learned:
        learned_field(control, model, flow.push)
    if control is None and isinstance(model.method, LatentVariableModel):
        say("note: without --control, texts are only reconstructed from their latents.")
    settings = {"control": control, "strength": flags.strength, "hold": flags.hold, "flow": flow, "seed": flags.seed}
    edit_texts = functools.partial(model.edit_texts, pieces=flags.pieces, **settings)
    write_edits(flags, model, edit_texts, settings_of(flags, model))


def settings_of(flags: Any, model: Any) -> dict[str, Any]:
    """Returns what decides an edit: the model, its step and sampler, its controls and fields, all flags but files."""
    from jtextdiff.control.controls import parse_controls
    from jtextdiff.control.trained import FIELDS, control_dir, stored_state
    from jtextdiff.run.config import to_json

    config = json.loads(to_json(model.config))
    for name in ("num_steps", "every", "mesh"):  # they may change when a run is resumed
        config.pop(name, None)
    control = parse_controls(flags.control)
    names = {leaf.name for leaf in control.leaves()} if control else set()
    trained = {name: stored_state(control_dir(flags.checkpoint, name)) for name in sorted(names)}
    fields = {name: stored_state(Path(flags.checkpoint) / FIELDS / name) for name in sorted(names) if flags.learned}
    settings = {name: value for name, value in vars(flags).items() if name not in ("checkpoint", "at", "input", "out")}
    return {"config": config, "step": model.step, "trained": trained, "fields": fields, **settings}


def write_edits(flags: Any, model: Any, edit_texts: Any, settings: dict[str, Any]) -> None:
    """Edits the lines of --input that --out does not have yet."""
    from jtextdiff.inference.editing.files import digest, edit_stream, resume_output

    made_with = digest(settings)
    with ExitStack() as files:
        lines = input_lines(flags.input, flags.num)
        num_done = resume_output(Path(flags.out), lines, made_with) if flags.out else 0
        if num_done:
            say(f"Continuing after the {num_done} edits in {flags.out}.")
        out = files.enter_context(open(flags.out, "a", encoding="utf-8")) if flags.out else sys.stdout
        stored = made_with if flags.out else None
        edit_stream(edit_texts, model, lines, num_done, out, made_with=stored, any_length=flags.pieces)


def input_lines(source: str, num: int) -> Iterator[str]:
    """Yields each line of --input `num` times. Raises UserError, with the line, for what is no text."""
    from jtextdiff.data.lines import lines_of, read_lines

    with mistakes(ValueError):
        lines = read_lines(sys.stdin.buffer, "standard input") if source == "-" else lines_of(Path(source))
        yield from (line for _, line in lines for _ in range(num))


def check_flags(flags: Any) -> None:
    """Raises UserError for arguments that cannot be used, before anything is loaded."""
    check_out(flags.out)
    if flags.num < 1:
        raise UserError(f"--num must be at least 1, got {flags.num}.")
    if flags.input == "-" and sys.stdin is None:
        raise UserError("Standard input is closed: pipe texts into this command, or name a file with --input.")
    source = Path(flags.input)  # it may be a pipe
    if flags.input != "-" and not source.exists():
        raise UserError(f"--input {flags.input}: there is no such file.")
    if flags.input != "-" and source.is_dir():
        raise UserError(f"--input {flags.input} is a directory; expected a file of texts, one per line.")
    if flags.input != "-" and source.is_file() and source.stat().st_size == 0:
        raise UserError(f"--input {flags.input} is empty; expected texts, one per line.")
    if flags.out and flags.input != "-" and Path(flags.out).resolve() == Path(flags.input).resolve():
        raise UserError(f"--out {flags.out} is --input itself: name another file.")


if __name__ == "__main__":
    main(command)
