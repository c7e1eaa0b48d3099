"""python -m jtextdiff.verify: checks a trained model's sampler and likelihood on its own text."""

import sys
from collections.abc import Sequence
from pathlib import Path

from jtextdiff.cli.arguments import Parser, add_checkpoint, add_seed, check_out, sampler_overrides
from jtextdiff.cli.errors import UserError
from jtextdiff.cli.main import main

EXAMPLES = """examples:
  python -m jtextdiff.verify --checkpoint runs/masked
  python -m jtextdiff.verify --checkpoint runs/masked --sampler first_hitting --out checks.json

The checks: samples do not depend on the other samples of a batch; given words and lengths are kept; samples
consist of words; rare words and lengths appear as often as the model predicts; two computations of the likelihood
agree (for an autoregressive model: with and without its cache); and every sampler generates alike at neighbouring
numbers of steps, for each of which a program is compiled. Results go to stderr, JSON to stdout or --out. The exit
status is 1 if a check fails.
"""


def build_parser() -> Parser:
    parser = Parser(prog="python -m jtextdiff.verify", description="Checks a trained model.", epilog=EXAMPLES)
    add_checkpoint(parser)
    add_seed(parser, "of all samples")
    parser.add_argument("--repeats", type=int, default=32, help="draws of each missing word (default: 32)")
    parser.add_argument(
        "--step_counts",
        type=int,
        default=20,
        metavar="N",
        help="try each sampler at N neighbouring numbers of steps, a program each (default: 20; 0: none)",
    )
    parser.add_argument("--out", metavar="FILE", help="file for the JSON (default: stdout)")
    return parser


def command(arguments: Sequence[str]) -> None:
    flags = build_parser().parse_args(arguments)
    if flags.repeats < 1:
        raise UserError(f"--repeats must be at least 1, got {flags.repeats}.")
    if flags.step_counts < 0:
        raise UserError(f"--step_counts must be at least 0, got {flags.step_counts}.")
    check_out(flags.out)
    from jtextdiff import load
    from jtextdiff.cli.output import write_result
    from jtextdiff.evaluation.sampler_checks import verify
    from jtextdiff.run.corpus import open_corpus

    model = load(flags.checkpoint, at=flags.at, overrides=sampler_overrides(flags))
    corpus = open_corpus(model.config, Path(flags.checkpoint))
    result = verify(model, corpus, seed=flags.seed, repeats=flags.repeats, num_step_counts=flags.step_counts)
    write_result(result, flags.out)
    if not result["passes"]:
        sys.exit(1)


if __name__ == "__main__":
    main(command)
