"""Commands: how an entry point parses, fails and ends.

A user's mistake ends with status 2 and one clear line, a failure of the machine with status 1. Nothing here
imports jax, so that `--help` answers at once.
"""

import argparse
import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jtextdiff.run.memory import keep_freed_memory


class UserError(Exception):
    """A mistake that a person made and can mend: shown as its message alone, with exit status 2."""


class Interrupted(Exception):
    """The run was asked to stop and has saved what it had; `status` is the exit status."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


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


_muted: list[int] = []
"""The number of this process, if it is one of many and another one speaks for all."""


def say(text: str) -> None:
    """A line for the person; stdout is kept for texts."""
    if not _muted:
        print(text, file=sys.stderr, flush=True)


def mute(process: int) -> None:
    """From here on process number `process` says nothing but its errors: another one speaks for all."""
    _muted.append(process)
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  for as long as the process lasts


def main(command: Callable[[Sequence[str]], None]) -> NoReturn:
    """Runs a command on the arguments of the process, and exits."""
    keep_freed_memory()
    try:
        command(sys.argv[1:])
        if sys.stdout is not None:  # it may have been closed by the caller
            sys.stdout.flush()
    except UserError as error:
        _end(2, f"error: {error}")
    except Interrupted as stop:
        say(str(stop))
        sys.exit(stop.status)  # all stop at the same step, and take leave of each other
    except KeyboardInterrupt:
        _end(130, "interrupted")
    except BrokenPipeError:
        # The reader of stdout has left, as `head` does: what Python still holds for it goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        _end(1)
    except OSError as error:
        _end(1, *_of_machine(error))
    except Exception as error:
        broke = _one_of_many() and type(error).__name__ == "JaxRuntimeError"
        told = f"error: the connection to another process broke ({_first_line(error)}); see what that one says."
        _end(1, told if broke else traceback.format_exc().rstrip())
    sys.exit(0)


def _of_machine(error: OSError) -> list[str]:
    """What to say of a failure of the machine."""
    if error.errno != errno.ENOSPC:
        return [f"error: {error}"]
    return [
        f"error: the disk is full: {error.strerror} ({error.filename or 'no file named'}).",
        "What was saved before is kept. Free some space and run the same command again.",
    ]


def _one_of_many() -> bool:
    return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]


def _end(status: int, *lines: str) -> NoReturn:
    """Ends the process. One of many that has failed ends at once, without waiting for the others, who wait for it."""
    for line in lines:
        print(f"process {_muted[0]}: {line}" if _muted else line, file=sys.stderr, flush=True)
    if _one_of_many():
        os._exit(status)
    sys.exit(status)


@contextlib.contextmanager
def mistakes(*kinds: type[Exception]) -> Iterator[None]:
    """Turns exceptions of the given kinds, raised where a user's input is read, into a UserError."""
    try:
        yield
    except kinds as error:
        raise UserError(str(error)) from None
