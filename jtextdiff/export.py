"""python -m jtextdiff.export: writes a trained model in a published layout, or its sampler as one program."""

import argparse
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from jtextdiff.cli.arguments import Parser, check_step
from jtextdiff.cli.errors import UserError
from jtextdiff.cli.main import main
from jtextdiff.cli.output import say

EXAMPLES = """examples:
  python -m jtextdiff.export runs/masked exported/masked
  python -m jtextdiff.export runs/masked exported/masked --at best
  python -m jtextdiff.export runs/diffusion_lm exported/sampler --program --num 16 --override method.sampler.steps=100

RUN is the directory that a training has written, its --workdir. Two kinds of runs have a published layout: those of
configs/masked.py, written as MDLM, and those of configs/autoregressive.py, written as GPT-2, which transformers reads.
They must have been trained with the settings of the published network, which configs/README.md lists; an error names
the first that differs. OUT then holds model.safetensors, config.json, the tokenizer and a model card, and scores.json
if the run holds one: the JSON of `python -m jtextdiff.evaluate --out RUN/scores.json`. To read OUT back, as the same
model to the bit: python -m jtextdiff.train --config configs/masked.py --config.init=OUT --config.num_steps=0, or with
configs/autoregressive.py for the layout of GPT-2.

With --program, RUN may be a run of any method that generates texts, or a published checkpoint, its folder or hub:NAME.
OUT then holds its whole sampler as one compiled program with its parameters, which jax runs without this library, and
a README.md with the ten lines that do it.
"""

SCORES = "scores.json"


def build_parser() -> Parser:
    parser = Parser(
        prog="python -m jtextdiff.export", description="Writes a trained model for other programs.", epilog=EXAMPLES
    )
    parser.add_argument(
        "run",
        metavar="RUN",
        help="a run's directory, such as runs/masked; with --program also a published checkpoint",
    )
    parser.add_argument("out", metavar="OUT", help="folder to write; it must not hold files yet")
    parser.add_argument("--program", action="store_true", help="write the sampler as a program, from a seed to texts")
    parser.add_argument("--num", type=int, metavar="N", help="with --program: texts that it samples (default: 16)")
    parser.add_argument(
        "--platforms", nargs="+", metavar="NAME", help="with --program: cpu, cuda, rocm, tpu (default: this machine's)"
    )
    parser.add_argument(
        "--override",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="with --program: a setting of the sampler",
    )
    parser.add_argument("--at", default="latest", metavar="STEP", help="latest (default), best, or a checkpoint's step")
    return parser


def command(arguments: Sequence[str]) -> None:
    flags = build_parser().parse_args(arguments)
    check_step(flags.at)
    if flags.program:
        export_program(flags)
        return
    if flags.num is not None or flags.platforms or flags.override:
        raise UserError("--num, --platforms and --override are for --program.")
    import jax

    import jtextdiff as jtd
    from jtextdiff.nets.functional import merged
    from jtextdiff.pretrained.export_files import write_export
    from jtextdiff.pretrained.exported_layouts import layout_of
    from jtextdiff.pretrained.model_card import model_card
    from jtextdiff.pretrained.standalone import is_published
    from jtextdiff.run.config import build
    from jtextdiff.run.workdir import read_config

    if is_published(flags.run):
        raise UserError(
            f"{flags.run} is a published checkpoint already: export takes a run, and either with --program."
        )
    out, run = Path(flags.out), Path(flags.run)
    method = build(read_config(run).method)
    layout = layout_of(method)
    layout.config_of(method)  # raises before parameters are read
    model = jtd.load(run, at=flags.at)
    count = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(merged, model.params)))
    scores = scores_of(run, model.step)
    name = SCORES if scores else None
    card = model_card(out.name, layout, model.config, step=model.step, count=count, scores=name)
    write_export(out, layout, model.method, model.params, model.tokenizer, card, scores)
    say(f"{count:,} parameters of step {model.step} -> {out}")


def scores_of(run: Path, step: int) -> Path | None:
    """Returns the file with the scores of a run at a step, if it has one; says so if its scores are of another step."""
    file = run / SCORES
    if not file.is_file():
        return None
    with contextlib.suppress(ValueError, AttributeError):
        if (scored := json.loads(file.read_text(encoding="utf-8")).get("step")) not in (None, step):
            say(f"note: {file} is left out: it has the scores of step {scored}, and step {step} is exported.")
            return None
    return file


def export_program(flags: argparse.Namespace) -> None:
    """Writes the sampler of a run as one program."""
    import jax

    import jtextdiff as jtd
    from jtextdiff.pretrained.sampler_program import PROGRAM, write_program

    out, model = Path(flags.out), jtd.load(flags.run, at=flags.at, overrides=flags.override)
    platforms = list(dict.fromkeys(flags.platforms or [])) or [
        {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    ]
    num = 16 if flags.num is None else flags.num
    write_program(out, model.method, model.params, model.tokenizer, num=num, platforms=platforms)
    say(f"a sampler of {num} texts for {', '.join(platforms)} -> {out / PROGRAM}")


if __name__ == "__main__":
    main(command)
