"""The argument parser and the flags that several commands share."""

import argparse
from pathlib import Path
from typing import Any, NoReturn

from jtextdiff.cli.errors import UserError


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line and examples that keep their line breaks."""

    def __init__(self, **kwargs: Any):
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(formatter_class=formatter, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}. See {self.prog} --help.")


def add_checkpoint(parser: Parser) -> None:
    """The arguments by which a trained model, and how it samples, is named on every command line."""
    parser.add_argument(
        "--checkpoint", required=True, metavar="DIR", help="a run's directory, such as runs/diffusion_lm"
    )
    parser.add_argument("--at", default="latest", metavar="STEP", help="latest (default), best, or a checkpoint's step")
    parser.add_argument("--steps", type=int, metavar="N", help="sampling steps: method.sampler.steps")
    parser.add_argument(
        "--sampler", metavar="NAME", help="one of the method's own, such as ancestral: method.sampler.name"
    )
    parser.add_argument(
        "--override",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="changes any field of the stored config",
    )


def add_control(parser: Parser) -> None:
    """The argument that says what is wanted of a text."""
    parser.add_argument(
        "--control",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what is wanted, repeated for several at once: food=Japanese, food!=Japanese, food=A|B; "
        "'sentiment=positive*2.0' weighs double beside others. The names are those of the run's controls, and three "
        "that need no training: length=12 tokens, keyword=PHRASE, regex=PATTERN for a whole word. A control of pos "
        "takes pos='DET NOUN AUX ADJ PUNCT', one of tree tree='(core (cost x) (noun x))' and span=4-6:landmark; both "
        "take a sentence of the grammar as an example",
    )


def add_balance(parser: Parser) -> None:
    """The argument that leaves the weights of controls to the library."""
    parser.add_argument(
        "--balance", action="store_true", help="by latents: weigh the controls so that all are likeliest met at once"
    )


def add_choice(parser: Parser) -> None:
    """The arguments that draw several texts for each that is shown."""
    parser.add_argument(
        "--best_of", type=int, default=1, metavar="N", help="of N texts for each the one of least energy is taken"
    )
    parser.add_argument("--mbr", type=int, default=1, metavar="N", help="of N texts the one most like the others")


def add_flow(parser: Parser) -> None:
    """The arguments that say how far latents are moved."""
    parser.add_argument("--until", type=float, metavar="P", help="by latents: stop at this probability (default: 0.99)")
    parser.add_argument("--tau", type=float, metavar="T", help="by latents: the flow's longest time (default: 100)")
    parser.add_argument("--keep", type=float, metavar="K", help="by latents: the pull back, 0 to 1 (default: 0)")
    parser.add_argument(
        "--rerank",
        action="store_true",
        default=None,
        help="by latents: of several stops the rewrite nearest to its source that, read again, has the probability P",
    )


def flow_of(flags: argparse.Namespace) -> dict[str, Any]:
    """Those of them that were given."""
    names = ("until", "tau", "keep", "rerank")
    return {name: getattr(flags, name) for name in names if getattr(flags, name) is not None}


def add_seed(parser: Parser, purpose: str) -> None:
    """The argument that fixes all chance."""
    parser.add_argument("--seed", type=_seed, default=0, help=f"{purpose} (default: 0)")


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) < 2**32):
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 2^32 - 1, got {text!r}")
    return int(text)


def sampler_overrides(flags: argparse.Namespace) -> list[str]:
    """The overrides that the flags of `add_checkpoint` ask for."""
    if flags.at not in ("latest", "best") and not (flags.at.isascii() and flags.at.isdecimal()):
        raise UserError(f"--at must be latest, best or a step, got {flags.at!r}.")
    shorthands = {"method.sampler.steps": flags.steps, "method.sampler.name": flags.sampler}
    return [f"{name}={value}" for name, value in shorthands.items() if value is not None] + flags.override


def check_out(out: str | None) -> None:
    """Raises UserError, before any work, where --out cannot be written to."""
    if out and Path(out).is_dir():
        raise UserError(f"--out {out} is a directory; expected a file to write.")
    if out and not Path(out).parent.is_dir():
        raise UserError(f"--out {out}: there is no directory {Path(out).parent}.")
