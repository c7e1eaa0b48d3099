"""python -m jtextdiff.harness: scores a run on tasks of the LM Evaluation Harness (package lm-eval)."""

from collections.abc import Sequence
from importlib.util import find_spec

from jtextdiff.cli.arguments import Parser, add_checkpoint, add_seed, check_out, sampler_overrides
from jtextdiff.cli.errors import UserError
from jtextdiff.cli.main import main

EXAMPLES = """examples:
  python -m jtextdiff.harness --checkpoint runs/masked --tasks lambada_openai --limit 100
  python -m jtextdiff.harness --checkpoint runs/autoregressive --tasks my_task --include_path my_tasks --out scores.json

Needs: pip install -e '.[harness]'. A continuation has its exact likelihood under autoregression and a bound, with its
standard error in the result, under masked diffusion, where the length of the text is given. Texts that are generated
are drawn by the run's sampler. Contexts that are longer than the run's texts lose their beginning. Whether greedy
decoding writes a continuation is not computed: it counts as no.
"""


def build_parser() -> Parser:
    parser = Parser(
        prog="python -m jtextdiff.harness", description="Scores a run on tasks of lm-eval.", epilog=EXAMPLES
    )
    add_checkpoint(parser)
    parser.add_argument("--tasks", required=True, metavar="NAME[,NAME]", help="tasks of the harness")
    parser.add_argument("--include_path", metavar="DIR", help="a folder with the YAML files of further tasks")
    parser.add_argument("--num_fewshot", type=int, metavar="N", help="examples in the context (default: the task's)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N documents of each task")
    add_seed(parser, "of all bounds and samples")
    parser.add_argument("--out", metavar="FILE", help="file for the JSON (default: stdout)")
    return parser


def command(arguments: Sequence[str]) -> None:
    flags = build_parser().parse_args(arguments)
    check_out(flags.out)
    if not find_spec("lm_eval"):
        raise UserError("The tasks need the package lm-eval: pip install -e '.[harness]'.")
    from jtextdiff import load
    from jtextdiff.benchmarks.lm_harness import check_method, evaluate_tasks
    from jtextdiff.cli.output import say, write_result

    model = load(flags.checkpoint, at=flags.at, overrides=sampler_overrides(flags))
    check_method(model.method)
    chosen = {"include_path": flags.include_path, "num_fewshot": flags.num_fewshot, "limit": flags.limit}
    table, scores = evaluate_tasks(model, flags.tasks.split(","), seed=flags.seed, **chosen)
    say(table)
    write_result({"checkpoint": flags.checkpoint, **scores}, flags.out)


if __name__ == "__main__":
    main(command)
