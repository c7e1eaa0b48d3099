"""python -m jtextdiff.evaluate: scores a trained model, each score next to that of real text."""

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
    sampler_overrides,
)
from jtextdiff.cli.errors import UserError
from jtextdiff.cli.main import main
from jtextdiff.cli.output import say, write_result

EXAMPLES = """examples:
  python -m jtextdiff.evaluate --checkpoint runs/diffusion_lm
  python -m jtextdiff.evaluate --checkpoint runs/diffusion_lm --judge runs/autoregressive --num 512
  python -m jtextdiff.evaluate --checkpoint runs/diffusion_lm --judge hub:gpt2
  python -m jtextdiff.evaluate --checkpoint runs/diffusion_lm --judge runs/autoregressive --steps 50 --out scores.json
  python -m jtextdiff.evaluate --checkpoint runs/diffusion_lm --judge runs/autoregressive --match_entropy
  python -m jtextdiff.evaluate --checkpoint runs/diffusion_lm --targets food+length:200 --num 2000
  python -m jtextdiff.evaluate --checkpoint runs/latent_ops --edits sentiment --judge_text other_reviews/ \\
      --target_probability 0.999
  python -m jtextdiff.evaluate --checkpoint runs/latent_ops --edits sentiment --frontier scores/energy

Scores samples by their likelihood under a judge, their diversity, the share of them that occurs in the training text
and, for the embedded grammar, the share that belongs to it; and the likelihood of real text. With --edits, it scores
edits of real texts to another value of a label instead, next to copies of the texts and their reconstructions without
a control. The table goes to stderr, JSON to stdout or to --out.
"""

FEW_SAMPLES = 512


def build_parser() -> Parser:
    parser = Parser(prog="python -m jtextdiff.evaluate", description="Scores a trained model.", epilog=EXAMPLES)
    add_checkpoint(parser)
    parser.add_argument(
        "--judge",
        metavar="DIR|hub:NAME",
        help="what judges the samples: a trained autoregressive run, or a published GPT-2, such as hub:gpt2",
    )
    add_control(parser)
    add_balance(parser)
    parser.add_argument(
        "--judge_text",
        metavar="PATH",
        help="labelled text whose n-grams judge the label of edits (default: the model's own text) or of controlled "
        "samples (default: phrases of the model's own text); the grammar needs none, and texts that are too long for "
        "the model are left out",
    )
    parser.add_argument("--split", default="valid", help="the real text to score: valid (default), test or train")
    parser.add_argument(
        "--num", type=int, default=512, help="samples, and real texts to compare them with (default: 512)"
    )
    add_seed(parser, "seed of the samples and of the bound")
    parser.add_argument("--out", metavar="FILE", help="file for the JSON (default: stdout)")
    _add_samples(parser)
    _add_edits(parser)
    add_flow(parser)
    return parser


def _add_samples(parser: Parser) -> None:
    group = parser.add_argument_group("samples")
    group.add_argument(
        "--targets",
        metavar="FILE|NAME:N",
        help="a control for each sample in turn, from JSON lines such as "
        '{"control": "food=Thai"}, or the attributes of N texts of the split, such as pos:200 or food+length:200',
    )
    add_choice(group)
    group.add_argument(
        "--interference", action="store_true", help="latent space: also the effect of each control on the others"
    )
    group.add_argument(
        "--match_entropy",
        action="store_true",
        help="score samples also at the temperature at which they are as varied as the split, which is searched for in "
        "up to seven sets of samples: models are compared fairly there",
    )
    group.add_argument(
        "--exact_denoiser",
        action="store_true",
        help="masked diffusion on the grammar: score samples also with the grammar's exact predictions in place of the "
        "network's; the errors that remain are the sampler's",
    )


def _add_edits(parser: Parser) -> None:
    group = parser.add_argument_group("edits")
    group.add_argument(
        "--edits",
        metavar="LABEL",
        help="edit --num texts of the split to another value of this label, or of several at once: food+sentiment",
    )
    group.add_argument(
        "--value_judge",
        action="append",
        default=[],
        metavar="VALUE=DIR",
        help="an autoregressive run that was trained on texts of one value; give one for each: success is also judged "
        "by which of them gives an edit the highest probability",
    )
    group.add_argument(
        "--references",
        metavar="FILE",
        help='the texts to edit, JSON lines of "text", the value "wanted" and another\'s edit, "reference"',
    )
    group.add_argument(
        "--strength",
        type=float,
        metavar="S",
        help="edits by diffusion: how far texts are noised, in (0, 1] (default: 0.5)",
    )
    group.add_argument(
        "--frontier",
        metavar="NAME",
        help="score edits from timid to bold: write NAME.P.json for each probability P at which latents stop, or "
        "strength of diffusion, and a table and a picture of all, NAME.png; existing files are not made again",
    )


def command(arguments: Sequence[str]) -> None:
    flags = build_parser().parse_args(arguments)
    check_flags(flags)
    from jtextdiff import load
    from jtextdiff.control.balancing import balance_if, check_interference
    from jtextdiff.evaluation.likelihood import load_judge
    from jtextdiff.inference.reranking import sampling_spec
    from jtextdiff.run.corpus import open_corpus

    spec = sampling_spec(flags)
    model = load(flags.checkpoint, at=flags.at, overrides=sampler_overrides(flags))
    judge = load_judge(flags.judge, model, flags.checkpoint) if flags.judge else None
    corpus = open_corpus(model.config, Path(flags.checkpoint))
    check_split(corpus, flags.split)
    if flags.num < FEW_SAMPLES and not flags.references:
        say(f"note: {flags.num} samples are few; scores to be quoted need at least {FEW_SAMPLES}.")
    if flags.interference:
        check_interference(model, spec.control)
    spec = spec._replace(control=balance_if(flags.balance, model, spec.control))
    evaluate = sample_scores if flags.edits is None else edit_scores
    if flags.frontier is not None:
        write_frontier(flags, model, corpus, judge)
    else:
        write_result(evaluate(flags, model, corpus, judge, spec), flags.out)


def sample_scores(flags: Any, model: Any, corpus: Any, judge: Any, spec: Any) -> dict[str, Any]:
    """Returns the scores of samples, and the interference of their controls if it was requested."""
    from jtextdiff.control.balancing import interference
    from jtextdiff.control.requests import read_requests
    from jtextdiff.evaluation.samples import SampleTask, evaluate_samples

    if flags.targets:
        targets = read_requests(flags.targets, corpus, flags.split)
        spec = spec._replace(targets=targets, targets_source=f"{flags.targets} of {flags.split}")
    judges = {"judge": judge, "judge_run": flags.judge, "judge_text": flags.judge_text}
    sizes = {"num": flags.num, "split": flags.split, "seed": flags.seed}
    more = {"match_entropy": flags.match_entropy, "exact_denoiser": flags.exact_denoiser}
    result = evaluate_samples(SampleTask(model=model, corpus=corpus, spec=spec, **sizes, **judges, **more))
    if flags.interference:
        result["interference"] = interference(model, spec.control, seed=flags.seed)._asdict()
    return result


def edit_scores(flags: Any, model: Any, corpus: Any, judge: Any, spec: Any) -> dict[str, Any]:
    """Returns the scores of edits of the texts in --references, or else of texts of the split."""
    from jtextdiff.evaluation.editing.edits import evaluate_edits

    task, settings = task_and_settings(flags, model, corpus, judge)
    return next(evaluate_edits(model, corpus, task, {"": settings}))[1]


def task_and_settings(flags: Any, model: Any, corpus: Any, judge: Any) -> tuple[Any, Any]:
    """Returns the texts to edit, and how they are edited and judged."""
    from jtextdiff.evaluation.editing.edits import EditSettings
    from jtextdiff.evaluation.editing.tasks import edit_task, labels_of, read_edit_task
    from jtextdiff.evaluation.label_judges import load_value_judges
    from jtextdiff.inference.editing.flow_settings import flow_settings

    if flags.references and len(labels_of(corpus, flags.edits)) > 1:
        raise UserError(f"--references has edits of one label, and --edits {flags.edits} names several.")
    if flags.references:
        task = read_edit_task(flags.references, model, corpus, flags.edits)
    else:
        task = edit_task(corpus, flags.split, flags.edits, flags.num)
    settings = {"flow": flow_settings(flags), "strength": flags.strength, "split": flags.split, "seed": flags.seed}
    judges = {"judge": judge, "judge_text": flags.judge_text}
    if flags.value_judge and len(task.labels) > 1:
        raise UserError(
            f"--value_judge judges one label, and --edits {flags.edits} has {len(task.labels)}: leave it out."
        )
    judges["value_judges"] = load_value_judges(flags.value_judge, corpus, flags.edits, model, flags.checkpoint)
    return task, EditSettings(**judges, **settings)


def write_frontier(flags: Any, model: Any, corpus: Any, judge: Any) -> None:
    """Writes the scores of each point that has no file yet, prints a table of all, and draws them.

    Raises UserError, and changes nothing, if a file of that name holds anything else.
    """
    from jtextdiff.compare import draw_edits
    from jtextdiff.evaluation.comparison import read_scores
    from jtextdiff.evaluation.editing.comparison import compare_edits, has_edits
    from jtextdiff.evaluation.editing.edits import evaluate_edits
    from jtextdiff.evaluation.editing.frontier import frontier_digest, frontier_points

    task, settings = task_and_settings(flags, model, corpus, judge)
    points, made_with = frontier_points(model, task, settings), frontier_digest(vars(flags), model, task)
    files = {point: Path(f"{flags.frontier}.{point}.json" if point else f"{flags.frontier}.json") for point in points}
    existing = {point: read_scores(file) for point, file in files.items() if file.is_file()}
    for point, result in existing.items():
        if not has_edits(result) or result.get("made_with") != made_with:
            raise UserError(
                f"--frontier: {files[point]} was not written by this command with these settings: another checkpoint, "
                "control, seed or other flag. Remove it, or choose another NAME."
            )
    if existing:
        say(f"{len(existing)} of {len(points)} points have their files already.")
    missing = {point: points[point] for point in points if point not in existing}
    for point, scores in evaluate_edits(model, corpus, task, missing) if missing else ():
        write_result(scores | {"made_with": made_with}, str(files[point]))
    results = {file: read_scores(file) for file in files.values()}
    print("\n".join(compare_edits(results, None, [20, 30, 40, 50])))
    draw_edits(results, Path(f"{flags.frontier}.png"))
    say(f"Drawn in {flags.frontier}.png; python -m jtextdiff.compare draws several systems in one picture.")


def check_flags(flags: Any) -> None:
    """Raises UserError for arguments that are out of range or do not go together, before anything is loaded."""
    if flags.num < 2:
        raise UserError(f"--num must be at least 2, got {flags.num}.")
    check_out(flags.out)
    from jtextdiff.inference.editing.flow_settings import flow_settings

    flow = flow_settings(flags)
    for_samples = flags.control or flags.balance or flags.targets or flags.interference
    twice = flags.match_entropy or flags.exact_denoiser
    if flags.edits and (for_samples or twice or flags.best_of > 1 or flags.mbr > 1):
        raise UserError(
            "--edits cannot be combined with --control, --balance, --targets, --interference, --match_entropy, "
            "--exact_denoiser, --best_of or --mbr."
        )
    if not flags.edits and flow is not None:
        raise UserError(
            "--target_probability, --max_time, --source_pull, --learned, --push, --word_guidance, --word_hold, "
            "--minimal and --rerank are for edits: give --edits LABEL."
        )
    if flags.match_entropy and flags.control:
        raise UserError(
            "--match_entropy compares samples with all texts of the split, which do not follow --control: leave one of "
            "them out, or give --targets."
        )
    for name in ("strength", "frontier", "references", "value_judge"):
        if not flags.edits and getattr(flags, name) not in (None, []):
            raise UserError(f"--{name} is for edits: give --edits LABEL.")
    if flags.frontier is not None:
        check_frontier(flags)
    if flags.judge_text and not (flags.edits or flags.control or flags.targets):
        raise UserError("--judge_text needs --edits, --control or --targets.")
    if flow is not None:
        flow.check()
    if flags.targets and (flags.control or flags.best_of > 1):
        raise UserError("--targets are the controls of the samples: leave out --control and --best_of.")


def check_frontier(flags: Any) -> None:
    """Raises UserError for settings that a frontier varies, and for a name that its files cannot have."""
    if flags.target_probability is not None or flags.strength is not None:
        raise UserError("--frontier varies --target_probability and --strength: leave them out.")
    if flags.out:
        raise UserError("--frontier NAME writes NAME.P.json: leave out --out.")
    name = Path(flags.frontier)
    if "." in name.name or not name.name or not name.parent.is_dir() or flags.frontier.endswith("/"):
        raise UserError(
            f"--frontier {flags.frontier}: expected a name without dots in an existing folder, such as scores/energy."
        )


def check_split(corpus: Any, split: str) -> None:
    """Raises UserError for a split that the text does not have, or that has a single text."""
    if split not in corpus.splits:
        raise UserError(f"The text has no split {split!r}; it has {sorted(corpus.splits)}.")
    if len(corpus.splits[split]) < 2:
        raise UserError(f"The split {split!r} has one text: scores compare texts. Give it two at least.")


if __name__ == "__main__":
    main(command)
