"""python -m jtextdiff.compare: scores of several models or settings, side by side."""

from collections.abc import Sequence
from pathlib import Path

from jtextdiff.cli.arguments import Parser
from jtextdiff.cli.errors import UserError
from jtextdiff.cli.main import main
from jtextdiff.evaluation.comparison import grouped, read, table

EXAMPLES = """examples:
  python -m jtextdiff.compare scores/diffusion_lm.json scores/autoregressive.json
  python -m jtextdiff.compare scores/*.json --metric nll --metric perplexity_ratio

Reads what jtextdiff.evaluate wrote and prints a Markdown table, one row a file, real text above them: the sampler
and its steps, the network calls that a sample has needed, and the scores. Files NAME.0.json, NAME.1.json, … that were
sampled alike are runs of one recipe with other seeds: they make one row, the mean ± the standard deviation of its
runs; a single run has ± its standard error.
"""

METRICS = ("nll", "excess_nll", "perplexity_ratio", "members", "unigram_entropy", "distinct_bigrams", "diversity_guard")
CONDITIONS = ("text", "split", "num_samples", "judge", "tokenizer")
"""What must be the same for numbers to stand in one table."""


def parser() -> Parser:
    it = Parser(prog="python -m jtextdiff.compare", description="Puts scores side by side.", epilog=EXAMPLES)
    it.add_argument("scores", nargs="+", metavar="FILE", help="JSON that jtextdiff.evaluate wrote")
    it.add_argument(
        "--metric",
        action="append",
        metavar="NAME",
        help=f"a column, repeated for several (default: those of {', '.join(METRICS)} that there are)",
    )
    return it


def command(arguments: Sequence[str]) -> None:
    flags = parser().parse_args(arguments)
    rows = grouped({file: read(file) for file in map(Path, flags.scores)})
    results = [result for of_row in rows.values() for result in of_row]
    found = [name for result in results for name in result["metrics"]]
    names = flags.metric or [name for name in METRICS if name in found]
    for name in names:
        if name not in found:
            raise UserError(f"No file has the metric {name!r}. There are: {', '.join(sorted(set(found)))}.")
    for field in CONDITIONS:
        if len(values := {str(result.get(field)) for result in results}) > 1:
            raise UserError(f"The scores differ in {field} ({', '.join(sorted(values))}) and cannot share a table.")
    print("\n".join(table(rows, names)))


if __name__ == "__main__":
    main(command)
