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
  python -m jtextdiff.sample --checkpoint runs/latent_ops --num 5 --between "The Mill is a cheap pub ." \\
      "The Blue Heron was a fine Thai restaurant by the river ."
  python -m jtextdiff.sample --checkpoint hub:GSAI-ML/LLaDA-8B-Instruct --chat "What is rain?" --answer_length 64

Sample i depends only on the seed and on i. With a template, every [MASK] is one word to write; the other words
stay. An autoregressive model takes fixed words only at the start of a template. --between shows what the latents of a
text VAE hold: its texts are decoded in equal steps from the latent of one text to that of another.
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
    parser.add_argument(
        "--between", nargs=2, metavar="TEXT", help="text VAEs: --num texts from the one to the other, both decoded, too"
    )
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
    _check_between(flags)
    if flags.dry_run:
        _check_dry_run(flags)
        from jtextdiff.benchmarks.sampling_memory import sampling_memory

        print(json.dumps(sampling_memory(Path(flags.checkpoint), flags.num, sampler_overrides(flags)), indent=2))
        return
    from jtextdiff import load
    from jtextdiff.inference.reranking import sampling_spec

    spec = sampling_spec(flags)
    model = load(flags.checkpoint, at=flags.at, overrides=sampler_overrides(flags))
    for text in _texts(flags, model, spec):
        print(one_line(text))


def _texts(flags: Any, model: Any, spec: Any) -> list[str]:
    """Returns answers, texts between two, or samples."""
    from jtextdiff.control.balancing import balance_if
    from jtextdiff.inference.interpolation import interpolate
    from jtextdiff.inference.reranking import sample_and_rerank

    if flags.chat is not None:
        length = ANSWER_LENGTH if flags.answer_length is None else flags.answer_length
        return model.chat(flags.chat, flags.num, length=length, seed=flags.seed)
    if flags.between is not None:
        first, second = flags.between
        return interpolate(model, first, second, flags.num, seed=flags.seed)
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
    return texts


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
    if given := _given(flags, "template", "between", "control", "balance", "best_of", "mbr"):
        raise UserError(f"--chat draws each answer once, from the question alone: leave out {given[0]}.")


def _check_between(flags: Any) -> None:
    """Raises UserError for flags that say more than the two texts do."""
    if flags.between is None:
        return
    if not all(text.strip() for text in flags.between):
        raise UserError("--between needs two texts, and one of them is empty.")
    if flags.num < 2:
        raise UserError(f"--between decodes both texts: --num must be at least 2, got {flags.num}.")
    if given := _given(flags, "template", "control", "balance", "best_of", "mbr"):
        raise UserError(f"--between decodes the latents between two texts, once each: leave out {given[0]}.")


def _check_dry_run(flags: Any) -> None:
    """Raises UserError for flags that a dry run does not read."""
    if given := _given(flags, "at", "chat", "template", "between", "control", "balance", "best_of", "mbr"):
        raise UserError(f"--dry_run is for --num texts of the longest length, at any step: leave out {given[0]}.")


def _given(flags: Any, *names: str) -> list[str]:
    """Returns those of the flags that do not have their default."""
    defaults = build_parser()
    return [f"--{name}" for name in names if getattr(flags, name) != defaults.get_default(name)]


if __name__ == "__main__":
    main(command)
