"""The argument parser and the flags that several commands share."""

import argparse
from pathlib import Path
from typing import Any, NoReturn

from jtextdiff.cli.errors import UserError


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors, and examples that keep their line breaks."""

    def __init__(self, **kwargs: Any):
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(formatter_class=formatter, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}. See {self.prog} --help.")


def add_checkpoint(parser: Parser) -> None:
    """Adds the flags that select a trained model and its sampler."""
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="DIR",
        help="a run's directory, such as runs/diffusion_lm; or a published checkpoint, its folder or hub:NAME",
    )
    parser.add_argument("--at", default="latest", metavar="STEP", help="latest (default), best, or a checkpoint's step")
    parser.add_argument("--steps", type=int, metavar="N", help="sampling steps: method.sampler.steps")
    parser.add_argument(
        "--sampler", metavar="NAME", help="a sampler of the method, such as ancestral: method.sampler.name"
    )
    parser.add_argument(
        "--override",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="changes a field of the stored config: method.*, mesh.*, text.path, text.labels or text.column; of a "
        "published checkpoint also text.length and text.tokenizer",
    )


def add_control(parser: Parser) -> None:
    """Adds the controls that texts are conditioned on."""
    parser.add_argument(
        "--control",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a requirement on the text, repeated for several at once: food=Japanese, food!=Japanese, food=A|B; "
        "'sentiment=positive*2.0' has twice the weight of others. The names are those of the run's trained controls, "
        "and three that need no training: length=12 tokens of the model's tokenizer, EOS not counted, keyword=PHRASE, "
        "regex=PATTERN for one such token as a whole. A control of pos takes "
        "pos='DET NOUN AUX ADJ PUNCT', one of tree takes tree='(core (cost x) (noun x))' and "
        "span=4-6:landmark; pos and tree also take a sentence of the grammar as an example. Put a "
        """name with one of = ! * | in quotation marks, and a value with | or that ends like *2: '"x=y"="w*2"'; """
        "double a quotation mark inside them. In --targets, names with : or + as well",
    )


def add_balance(parser: Parser) -> None:
    """Adds the choice of weights for several controls."""
    parser.add_argument(
        "--balance",
        action="store_true",
        help="latent space: choose the weights under which all controls together are most probable",
    )


def add_choice(parser: argparse._ActionsContainer) -> None:
    """Adds the numbers of candidates per sample."""
    parser.add_argument(
        "--best_of", type=int, default=1, metavar="N", help="draw N texts per sample; keep the one of lowest energy"
    )
    parser.add_argument(
        "--mbr",
        type=int,
        default=1,
        metavar="N",
        help="draw N texts per sample; keep the one of highest mean BLEU with the others",
    )


def add_flow(parser: Parser) -> None:
    """Adds the settings of latent editing; `inference.editing.flow_settings` reads them. None: not given."""
    group = parser.add_argument_group(
        "latent editing", "how far controls move a text's latent, and which edit is chosen"
    )
    _add_limits(group)
    _add_words(group)
    _add_field(group)
    group.add_argument(
        "--minimal",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="leave out the changes of an edit that it does not need to have the probability P, and prefer fluent "
        "texts (default: with controls that have learned words, unless --word_guidance 0 --word_hold 0)",
    )
    group.add_argument(
        "--rerank",
        action="store_true",
        default=None,
        help="decode at eight stops, with several --word_guidance unless one is given, and choose among more texts; "
        "the chosen one has the probability P when it is read again, or nearly the highest one if none has P",
    )


def _add_limits(group: argparse._ArgumentGroup) -> None:
    """Adds where a latent stops."""
    group.add_argument(
        "--target_probability",
        type=float,
        metavar="P",
        help="the probability that the controls are to have: of a minimal edit when it is read again, else where the "
        "latent stops (default: 0.9 of minimal edits, else 0.99)",
    )
    group.add_argument(
        "--max_time",
        type=float,
        metavar="T",
        help="maximum time of the flow down the energy (default: none, until P is reached; 100 with --source_pull or "
        "with --no-minimal and P = 1, 0 with --learned)",
    )
    group.add_argument(
        "--source_pull", type=float, metavar="K", help="the pull back to the source, 0 to 1 (default: 0)"
    )
    for former, name in (("--until", "target_probability"), ("--tau", "max_time"), ("--keep", "source_pull")):
        group.add_argument(former, dest=name, type=float, help=argparse.SUPPRESS)


def _add_words(group: argparse._ArgumentGroup) -> None:
    """Adds how words guide the decoding of a latent."""
    group.add_argument(
        "--word_guidance",
        type=float,
        metavar="W",
        help="while the edit is written, add W times what each word says for the controls to its logit (default: a "
        "minimal edit is chosen among texts with 0 and 4; 2 with --word_hold alone; controls that have learned no "
        "words guide no decoding)",
    )
    group.add_argument(
        "--word_hold",
        type=float,
        metavar="NATS",
        help="add NATS to the logits of words of the source that say nothing of the controls, until they are written "
        "(default: 1 where words guide, and with --word_guidance alone)",
    )


def _add_field(group: argparse._ArgumentGroup) -> None:
    """Adds the learned field that a latent may follow."""
    group.add_argument(
        "--learned",
        action="store_true",
        default=None,
        help="follow the field that configs/flow.py has fitted to the label, without the energy's flow unless "
        "--max_time is given",
    )
    group.add_argument("--push", type=float, metavar="G", help="the factor of the learned field (default: 1)")


def add_seed(parser: Parser, purpose: str) -> None:
    """Adds the random seed."""
    parser.add_argument("--seed", type=_seed, default=0, help=f"{purpose} (default: 0)")


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 11 and int(text) < 2**32):
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 2^32 - 1, got {text[:60]!r}")
    return int(text)


def sampler_overrides(flags: argparse.Namespace) -> list[str]:
    """Returns the config overrides from the flags of `add_checkpoint`. Raises UserError for an invalid --at."""
    check_step(flags.at)
    shorthands = {"method.sampler.steps": flags.steps, "method.sampler.name": flags.sampler}
    return [f"{name}={value}" for name, value in shorthands.items() if value is not None] + flags.override


def check_step(at: str) -> None:
    """Raises UserError if --at is neither latest, best nor a step."""
    if at not in ("latest", "best") and not (at.isascii() and at.isdecimal() and len(at) < 19):
        raise UserError(f"--at must be latest, best or a step, got {at!r}.")


def check_out(out: str | None) -> None:
    """Raises UserError if --out cannot be written, before any work is done."""
    if out and Path(out).is_dir():
        raise UserError(f"--out {out} is a directory; expected a file to write.")
    if out and not Path(out).parent.is_dir():
        raise UserError(f"--out {out}: there is no directory {Path(out).parent}.")
