"""python -m jtextdiff.sample: samples texts from a trained model, one per line on stdout."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jtextdiff.cli.arguments import (
    Parser,
    add_balance,
    add_checkpoint,
    add_choice,
    add_control,
    add_seed,
    sampler_overrides,
)
from jtextdiff.cli.errors import UserError
from jtextdiff.cli.main import main
from jtextdiff.cli.output import one_line, progress_bar, say

ANSWER_LENGTH = 128
"""Tokens of an answer at most, unless --answer_length is given."""

EXAMPLES = """examples:
  python -m jtextdiff.sample --checkpoint runs/diffusion_lm --num 8
  python -m jtextdiff.sample --checkpoint runs/diffusion_lm --steps 50 --sampler dpm_solver --seed 3
  python -m jtextdiff.sample --checkpoint runs/diffusion_lm --template "The [MASK] [MASK] is near [MASK] ."
  python -m jtextdiff.sample --checkpoint runs/diffusion_lm --control food=Japanese --control length=12
  python -m jtextdiff.sample --checkpoint hub:GSAI-ML/LLaDA-8B-Instruct --chat "What is rain?" --answer_length 64

Sample i depends only on the seed and on i. With a template, every [MASK] is one word to write; the other words
stay. An autoregressive model takes fixed words only at the start of a template.
"""


def build_parser() -> Parser:
    parser = Parser(prog="python -m jtextdiff.sample", description="Samples from a trained model.", epilog=EXAMPLES)
    add_checkpoint(parser)
    parser.add_argument("--num", type=int, default=8, help="number of texts (default: 8)")
    add_seed(parser, "the same seed gives the same texts")
    add_control(parser)
    add_balance(parser)
    add_choice(parser)
    parser.add_argument(
        "--dry_run", action="store_true", help="do not sample: print the memory that it takes, as JSON; nothing is read"
    )
    parser.add_argument("--template", help="words that stay, and a [MASK] for each word to write")
    parser.add_argument("--chat", metavar="QUESTION", help="answer it, by the chat template of the tokenizer")
    parser.add_argument(
        "--answer_length", type=int, metavar="N", help=f"with --chat: tokens at most (default: {ANSWER_LENGTH})"
    )
    return parser


def command(arguments: Sequence[str]) -> None:
    flags = build_parser().parse_args(arguments)
    if flags.num < 1:
        raise UserError(f"--num must be at least 1, got {flags.num}.")
    _check_chat(flags)
    if flags.dry_run:
        _check_dry_run(flags)
        from jtextdiff.benchmarks.sampling_memory import sampling_memory

        print(json.dumps(sampling_memory(Path(flags.checkpoint), flags.num, sampler_overrides(flags)), indent=2))
        return
    from jtextdiff import load
    from jtextdiff.control.balancing import balance_if
    from jtextdiff.inference.reranking import sample_and_rerank, sampling_spec

    spec = sampling_spec(flags)
    model = load(flags.checkpoint, at=flags.at, overrides=sampler_overrides(flags))
    if flags.chat is not None:
        length = ANSWER_LENGTH if flags.answer_length is None else flags.answer_length
        for text in model.chat(flags.chat, flags.num, length=length, seed=flags.seed):
            print(one_line(text))
        return
    spec = spec._replace(control=balance_if(flags.balance, model, spec.control))
    with progress_bar() as bar:
        task = bar.add_task("sampling", total=flags.num * spec.num_candidates)
        texts, _ = sample_and_rerank(
            model,
            flags.num,
            spec,
            seed=flags.seed,
            template=flags.template,
            progress=lambda num_done: bar.advance(task, num_done),
        )
    if spec.num_candidates > 1:
        description = str(spec)
        say(f"{description[0].upper()}{description[1:]}.")
    for text in texts:
        print(one_line(text))


def _check_chat(flags: Any) -> None:
    """Raises UserError for flags of a chat that miss their question, and for others that do not go with it."""
    if flags.answer_length is not None and flags.chat is None:
        raise UserError("--answer_length is the length of an answer: add --chat QUESTION, or leave it out.")
    if flags.answer_length is not None and flags.answer_length < 1:
        raise UserError(f"--answer_length must be at least 1, got {flags.answer_length}.")
    if flags.chat is None:
        return
    if not flags.chat.strip():
        raise UserError(f"--chat needs a question, got {flags.chat!r}.")
    others = ("template", "control", "balance")
    given = [f"--{name}" for name in others if getattr(flags, name)] + ["--best_of"] * (flags.best_of > 1)
    if given := given + ["--mbr"] * (flags.mbr > 1):
        raise UserError(f"--chat draws each answer once, from the question alone: leave out {given[0]}.")


def _check_dry_run(flags: Any) -> None:
    """Raises UserError for flags that a dry run does not read."""
    others = {"at": "latest", "chat": None, "template": None, "control": [], "balance": False, "best_of": 1, "mbr": 1}
    if given := [f"--{name}" for name, default in others.items() if getattr(flags, name) != default]:
        raise UserError(f"--dry_run is for --num texts of the longest length, at any step: leave out {given[0]}.")


if __name__ == "__main__":
    main(command)
