"""python -m jtextdiff.evaluate: scores a trained model, each number beside the same number of real text."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jtextdiff.cli.arguments import (
    Parser,
    add_balance,
    add_checkpoint,
    add_choice,
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

EXAMPLES = """examples:
  python -m jtextdiff.evaluate --checkpoint runs/diffusion_lm
  python -m jtextdiff.evaluate --checkpoint runs/diffusion_lm --judge runs/autoregressive --num 512
  python -m jtextdiff.evaluate --checkpoint runs/diffusion_lm --judge runs/autoregressive --steps 50 --out scores.json
  python -m jtextdiff.evaluate --checkpoint runs/diffusion_lm --targets food+length:200 --num 2000
  python -m jtextdiff.evaluate --checkpoint runs/latent_ops --edits sentiment --judge_text other_reviews/ --until 0.999

Samples, their likelihood under a judge, their variety, and what share of them stands in the training text or,
for the embedded grammar, belongs to it; and the likelihood of real text. With --edits, rewrites of real texts to
another value of a label instead, beside copies of them and texts read and written with nothing asked. The table
goes to stderr, JSON to stdout or to --out.
"""


def parser() -> Parser:
    it = Parser(prog="python -m jtextdiff.evaluate", description="Scores a trained model.", epilog=EXAMPLES)
    add_checkpoint(it)
    it.add_argument("--judge", metavar="DIR", help="a trained autoregressive run that judges the samples")
    add_control(it)
    add_balance(it)
    it.add_argument(
        "--targets",
        metavar="FILE|NAME:N",
        help="a control for each sample in turn, from JSON lines such as "
        '{"control": "food=Thai"}, or the values that N texts of the split have, such as pos:200 or food+length:200',
    )
    add_choice(it)
    it.add_argument("--edits", metavar="LABEL", help="rewrite --num texts of the split to another value of this label")
    it.add_argument(
        "--judge_text",
        metavar="PATH",
        help="labelled text whose n-grams judge the label of edits (default: the model's own text) or of steered "
        "samples (default: telling phrases of the model's own); the grammar needs none",
    )
    it.add_argument(
        "--references",
        metavar="FILE",
        help='the texts to rewrite, JSON lines of "text", the value "wanted" and another\'s rewrite, "reference"',
    )
    add_flow(it)
    it.add_argument(
        "--interference",
        action="store_true",
        help="by latents: what pushing each control does to the others",
    )
    it.add_argument("--split", default="valid", help="the real text to score: valid (default), test or train")
    it.add_argument(
        "--num", type=int, default=512, help="samples, and sentences of real text beside them (default: 512)"
    )
    add_seed(it, "of the samples and of the bound's noise")
    it.add_argument("--out", metavar="FILE", help="where the JSON goes (default: stdout)")
    return it


def command(arguments: Sequence[str]) -> None:
    flags = parser().parse_args(arguments)
    if flags.num < 2:
        raise UserError(f"--num must be at least 2, got {flags.num}.")
    check_out(flags.out)
    from rich.console import Console
    from rich.progress import Progress

    from jtextdiff.cli.output import hand_over
    from jtextdiff.control.balancing import check, interference, weighed
    from jtextdiff.control.requests import wishes
    from jtextdiff.evaluation.likelihood import load_judge
    from jtextdiff.evaluation.samples import report, score, table
    from jtextdiff.inference.model import load
    from jtextdiff.inference.reranking import choice
    from jtextdiff.run.corpus import open_corpus

    agree(flags)
    wish = choice(flags)
    model = load(flags.checkpoint, at=flags.at, overrides=sampler_overrides(flags))
    judge = load_judge(flags.judge, model, flags.checkpoint) if flags.judge else None
    corpus = open_corpus(model.config, Path(flags.checkpoint))
    if flags.split not in corpus.splits:
        raise UserError(f"The text has no split {flags.split!r}; it has {sorted(corpus.splits)}.")
    if len(corpus.splits[flags.split]) < 2:
        raise UserError(f"The split {flags.split!r} has one text: scores compare texts. Give it two at least.")
    if flags.num < 512 and not flags.references:
        say(f"note: {flags.num} samples are few; scores to be quoted need at least 512.")
    if flags.interference:
        check(model, wish.control)
    wish = wish._replace(control=weighed(model, wish.control, flags.balance))
    if flags.edits:
        edits(flags, model, corpus, judge)
        return
    if flags.targets:
        spelled = f"{flags.targets} of {flags.split}"
        wish = wish._replace(targets=wishes(flags.targets, corpus, flags.split), spelling=spelled)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        alike = {"split": flags.split, "num": flags.num, "seed": flags.seed, "wish": wish}
        metrics, calls = score(model, corpus, judge=judge, bar=bar, judge_text=flags.judge_text, **alike)
    result = report(model, metrics, calls, load=os.getloadavg()[0], judge=flags.judge, **alike)
    Console(stderr=True).print(table(result))
    if flags.interference and wish.control is not None:
        result["interference"] = interference(model, wish.control, seed=flags.seed)._asdict()
    hand_over(result, flags.out)


def agree(flags: Any) -> None:
    """Raises UserError for arguments that do not go together."""
    from jtextdiff.inference.editing import Flow

    if flags.edits and (flags.control or flags.targets or flags.interference or flags.best_of > 1 or flags.mbr > 1):
        raise UserError("--edits asks for another value of its label and nothing else: leave out what is of samples.")
    if not flags.edits and flow_of(flags):
        raise UserError("--until, --tau, --keep and --rerank are of rewrites: give --edits LABEL.")
    if flags.references and not flags.edits:
        raise UserError("--references are of rewrites: give --edits LABEL.")
    if flags.judge_text and not (flags.edits or flags.control or flags.targets):
        raise UserError("--judge_text judges what was asked for: give --edits, --control or --targets.")
    Flow(**flow_of(flags)).check()
    if flags.targets and (flags.control or flags.best_of > 1):
        raise UserError("--targets say what is wanted of each sample: leave out --control and --best_of.")


def edits(flags: Any, model: Any, corpus: Any, judge: Any) -> None:
    """Scores rewrites, and hands them over."""
    from rich.console import Console
    from rich.progress import Progress

    from jtextdiff.cli.output import hand_over
    from jtextdiff.evaluation.edits import asked, asked_of, scored, told

    given, flow = flags.references, flow_of(flags)
    if given:
        wanted = asked_of(given, model, corpus, flags.edits)
    else:
        wanted = asked(corpus, flags.split, flags.edits, flags.num)
    alike = {"judge": judge, "judge_text": flags.judge_text, "split": flags.split, "seed": flags.seed}
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("rewriting", total=len(wanted.texts))
        rows = scored(model, corpus, wanted, flow=flow, progress=lambda done: bar.advance(task, done), **alike)
    Console(stderr=True).print(told(rows))
    about = {"method": type(model.method).__name__, "step": model.step, "split": flags.split, "seed": flags.seed}
    hand_over(about | {"label": flags.edits, "num": len(wanted.texts), "flow": flow, "rows": rows}, flags.out)


if __name__ == "__main__":
    main(command)
