"""python -m jtextdiff.verify: a certificate of a trained model's sampler and likelihood, on the user's own text."""

import sys
from collections.abc import Sequence
from pathlib import Path

from jtextdiff.cli.arguments import Parser, add_checkpoint, add_seed, check_out, sampler_overrides
from jtextdiff.cli.errors import UserError
from jtextdiff.cli.main import main
from jtextdiff.cli.output import say

EXAMPLES = """examples:
  python -m jtextdiff.verify --checkpoint runs/masked
  python -m jtextdiff.verify --checkpoint runs/masked --sampler first_hitting --out certificate.json

What is checked: a sample is the same whatever it is drawn beside; given words and lengths stay; nothing but words is
written; rare words and lengths come as often as they should; and two ways to find the likelihood agree (for an
autoregressive model: with and without its cache). Figures go to stderr, JSON to stdout or --out; the exit status is 1
if a check fails.
"""


def parser() -> Parser:
    it = Parser(prog="python -m jtextdiff.verify", description="Checks a trained model.", epilog=EXAMPLES)
    add_checkpoint(it)
    add_seed(it, "of all draws")
    it.add_argument("--repeats", type=int, default=32, help="draws of each missing word (default: 32)")
    it.add_argument("--out", metavar="FILE", help="where the JSON goes (default: stdout)")
    return it


def command(arguments: Sequence[str]) -> None:
    flags = parser().parse_args(arguments)
    if flags.repeats < 1:
        raise UserError(f"--repeats must be at least 1, got {flags.repeats}.")
    check_out(flags.out)
    from jtextdiff.cli.output import hand_over
    from jtextdiff.evaluation.sampler_checks import ROWS, certify
    from jtextdiff.inference.model import load
    from jtextdiff.run.corpus import open_corpus

    model = load(flags.checkpoint, at=flags.at, overrides=sampler_overrides(flags))
    corpus = open_corpus(model.config, Path(flags.checkpoint))
    real = model.batch(corpus.splits["valid"].texts(corpus.splits["valid"].evenly(ROWS)))
    if len(real.tokens) < 2:
        raise UserError("The text's valid split has a single text; a certificate needs at least 2.")
    name = f"{type(model.method).__name__} at step {model.step}, {model.method.sampler.name}"
    say(f"{name}; real texts: {len(real.tokens)} of valid; seed {flags.seed}")
    checks = []
    for check in certify(model.method, model.params, real, seed=flags.seed, repeats=flags.repeats):
        verdict = "passes" if check.passes else "FAILS "
        say(f"{verdict}  {check.name:<16} {check.value:<8.3g} (limit {check.limit:g} {check.unit})  {check.how}")
        checks.append(check._asdict() | {"passes": check.passes})
    failed = [check["name"] for check in checks if not check["passes"]]
    result = {"method": type(model.method).__name__, "step": model.step, "sampler": model.method.sampler.name}
    hand_over(result | {"seed": flags.seed, "passes": not failed, "checks": checks}, flags.out)
    if failed:
        say(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}.")
        sys.exit(1)


if __name__ == "__main__":
    main(command)
