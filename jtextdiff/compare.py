"""python -m jtextdiff.compare: scores of several models or settings in one table."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jtextdiff.cli.arguments import Parser
from jtextdiff.cli.errors import UserError
from jtextdiff.cli.main import main
from jtextdiff.cli.tables import output_width
from jtextdiff.evaluation.comparison import (
    DEFAULT_METRICS,
    at_real_entropy,
    compare,
    frontier_metric,
    frontiers,
    read_scores,
)
from jtextdiff.evaluation.editing.comparison import EDIT_METRICS, compare_edits, edit_frontiers, has_edits

EXAMPLES = """examples:
  python -m jtextdiff.compare scores/diffusion_lm.json scores/autoregressive.json
  python -m jtextdiff.compare scores/*.json --metric nll --metric perplexity_ratio
  python -m jtextdiff.compare scores/masked.*.json scores/ar.*.json --frontier frontier.png
  python -m jtextdiff.compare edits/*.json --at_bleu 15 --at_bleu 20

Reads files of jtextdiff.evaluate and prints a Markdown table, a row per file, real text first: the sampler and its
steps, the network calls per sample, and the scores. Where that is wider than the terminal (80 columns in a pipe,
$COLUMNS if it is set), there is a row per metric and a column per file instead. Files NAME.0.json, NAME.1.json, …
that were sampled in the same way are runs of one recipe with other seeds: they share a row, the mean ± the standard
deviation over runs. A single run has ± its standard error.

Of files of jtextdiff.evaluate --edits, each is a row. With --at_bleu, files METHOD.SETTING.json, such as
energy.0.9.json and energy.0.99.json, are points of one method, and its success is interpolated between them.
`evaluate --edits LABEL --frontier METHOD` writes such files.
"""


def build_parser() -> Parser:
    parser = Parser(prog="python -m jtextdiff.compare", description="Compares scores in one table.", epilog=EXAMPLES)
    parser.add_argument("scores", nargs="+", metavar="FILE", help="JSON that jtextdiff.evaluate wrote")
    parser.add_argument(
        "--metric",
        action="append",
        metavar="NAME",
        help="a metric, repeated for several (default: those that there are of "
        f"{', '.join(DEFAULT_METRICS)}; of edits: {', '.join(EDIT_METRICS)})",
    )
    parser.add_argument(
        "--frontier",
        metavar="FILE.png",
        help="draw perplexity_ratio, or members, against the entropy of the samples, a curve for each METHOD of files "
        "METHOD.SETTING.json, and print both at the entropy of real text; of edits: draw their success against "
        "the BLEU with the source",
    )
    parser.add_argument(
        "--matched_entropy",
        action="store_true",
        help="compare samples at the temperature that evaluate --match_entropy has found, instead of the models' own",
    )
    parser.add_argument(
        "--at_bleu",
        action="append",
        type=float,
        metavar="BLEU",
        help="edits: also the success where the BLEU with the source is this, repeated for several",
    )
    return parser


def command(arguments: Sequence[str]) -> None:
    flags = build_parser().parse_args(arguments)
    check_picture(flags.frontier)
    results = {file: read_scores(file) for file in map(Path, flags.scores)}
    of_edits = [file for file, result in results.items() if has_edits(result)]
    if of_edits and len(of_edits) < len(results):
        other = next(file for file in results if file not in of_edits)
        raise UserError(f"{of_edits[0]} holds scores of edits and {other} does not: they cannot share a table.")
    if flags.matched_entropy:
        results = {file: at_matched_entropy(file, result) for file, result in results.items()}
    if flags.at_bleu and not of_edits:
        raise UserError(f"--at_bleu is of edits, and {flags.scores[0]} holds scores of samples: leave it out.")
    if of_edits:
        lines = compare_edits(results, flags.metric, flags.at_bleu or [])
        if flags.frontier:
            draw_edits(results, Path(flags.frontier))
    else:
        lines = compare(results, flags.metric, output_width(sys.stdout))
        if flags.frontier:
            lines += ["", *frontier(results, Path(flags.frontier))]
    print("\n".join(lines))


def at_matched_entropy(file: Path, result: Any) -> Any:
    """Returns the scores with those at the matched entropy in place of the model's own. Raises UserError without."""
    matched = result.get("matched_entropy") if isinstance(result, dict) else None
    if not isinstance(matched, dict):
        raise UserError(f"--matched_entropy: {file} was written without evaluate --match_entropy.")
    settings = {**(result.get("settings") or {}), "temperature": "matched"}
    return {**result, "metrics": matched.get("metrics"), "settings": settings}


def check_picture(file: str | None) -> None:
    """Raises UserError if a picture cannot be written there, before any file is read."""
    if file and not file.endswith(".png"):
        raise UserError(f"--frontier {file}: expected the name of a PNG file, such as frontier.png.")
    if file and (Path(file).is_dir() or not Path(file).parent.is_dir()):
        raise UserError(f"--frontier {file} is a directory, or there is no directory {Path(file).parent}.")


def frontier(results: dict[Path, Any], picture: Path) -> list[str]:
    """Draws the frontier of each method, and returns a table of them at the entropy of real text."""
    metric = frontier_metric(results)
    from jtextdiff.visualization.frontier_figure import Axis, draw_frontiers  # matplotlib takes a second

    real = {name: score["real_valid"] for name, score in next(iter(results.values()))["metrics"].items()}
    if real["unigram_entropy"] is None:
        raise UserError("--frontier: the files do not have the entropy of real text.")
    entropy = Axis("unigram entropy of the samples, nats", real["unigram_entropy"])
    score = Axis(metric.replace("_", " "), real[metric])
    draw_frontiers(frontiers(results, metric), entropy, score, picture, reference="real text")
    return at_real_entropy(results, real["unigram_entropy"])


def draw_edits(results: dict[Path, Any], picture: Path) -> None:
    """Draws the success of each method's edits against their BLEU with the sources."""
    from jtextdiff.visualization.frontier_figure import Axis, draw_frontiers

    copies = next(iter(results.values()))["rows"]["copy"]["success"]["value"]
    bleu, success = Axis("BLEU with the source"), Axis("success of the edits", copies)
    draw_frontiers(edit_frontiers(results), bleu, success, picture, reference="copies of the sources")


if __name__ == "__main__":
    main(command)
