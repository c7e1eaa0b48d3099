"""python -m jtextdiff.compare: scores of several models or settings in one table."""

import sys
from collections.abc import Sequence
from pathlib import Path

from jtextdiff.cli.arguments import Parser
from jtextdiff.cli.main import main
from jtextdiff.evaluation.comparison import DEFAULT_METRICS, compare
from jtextdiff.evaluation.tables import output_width

EXAMPLES = """examples:
  python -m jtextdiff.compare scores/diffusion_lm.json scores/autoregressive.json
  python -m jtextdiff.compare scores/*.json --metric nll --metric perplexity_ratio

Reads files of jtextdiff.evaluate and prints a Markdown table, a row per file, real text first: the sampler and its
steps, the network calls per sample, and the scores. Where that is wider than the terminal (80 columns in a pipe,
$COLUMNS if it is set), there is a row per metric and a column per file instead. Files NAME.0.json, NAME.1.json, …
that were sampled in the same way are runs of one recipe with other seeds: they share a row, the mean ± the standard
deviation over runs. A single run has ± its standard error.
"""


def build_parser() -> Parser:
    parser = Parser(prog="python -m jtextdiff.compare", description="Compares scores in one table.", epilog=EXAMPLES)
    parser.add_argument("scores", nargs="+", metavar="FILE", help="JSON that jtextdiff.evaluate wrote")
    parser.add_argument(
        "--metric",
        action="append",
        metavar="NAME",
        help=f"a metric, repeated for several (default: those of {', '.join(DEFAULT_METRICS)} that there are)",
    )
    return parser


def command(arguments: Sequence[str]) -> None:
    flags = build_parser().parse_args(arguments)
    print("\n".join(compare([*map(Path, flags.scores)], flags.metric, output_width(sys.stdout))))


if __name__ == "__main__":
    main(command)
