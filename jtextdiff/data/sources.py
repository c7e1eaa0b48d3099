"""Labelled examples from a path: the embedded grammar, files, the Hugging Face hub or a package."""

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from jtextdiff.data.grammar import restaurants
from jtextdiff.data.hub import read_hub
from jtextdiff.data.lines import cannot_read
from jtextdiff.data.packages import package_version, read_package
from jtextdiff.data.text_files import Example, find_splits, read_file

_GRAMMAR = {"train": (50_000, 0), "valid": (2_000, 1)}  # sentences and seed
_VALID_SHARE = 0.05
_LABEL = re.compile(r"([^=(),;]+)=([^=(),;]+?)\s*(?:\((.*)\))?")
TEXT_COLUMN = "text"
"""The field that holds the text unless another is named."""

Splits = dict[str, list[Example]]
Rules = dict[str, tuple[str, dict[str, str]]]
"""column -> (control name, value -> word)."""


def read_examples(
    path: str | None, *, column: str = TEXT_COLUMN, labels: str = "", warn: Callable[[str], None] = lambda note: None
) -> Splits:
    """Returns the examples of each split: train, valid, and test where there is one.

    `path`: None for the embedded grammar, a file, a directory, "hub:NAME[:CONFIGURATION][@REVISION]" or "package:NAME".
    `column` is the field that holds the text. `labels` renames fields to controls and their values to words,
    "label=sentiment(0=negative,1=positive)", several separated by ";"; other fields keep their names, and values their
    spelling. The word "none" stands for no value.
    `warn` is called with the rules of `labels` that match no text, and if there is no valid split.
    Without a valid split, 5 % of train become one, by a hash of the text, so that equal texts are in one split.
    Raises FileNotFoundError or ValueError, with what was expected.
    """
    rules, column = parse_labels(labels), column.strip()
    _check_has_columns(path, column)
    if path is None:
        splits = {split: _grammar_examples(num, seed) for split, (num, seed) in _GRAMMAR.items()}
    elif path.startswith("hub:"):
        splits = read_hub(path, column)
    elif path.startswith("package:"):
        splits = {"train": read_package(path.removeprefix("package:"))}
    else:
        splits = {split: read_file(file, column) for split, file in find_splits(Path(path)).items()}
    if "valid" not in splits:
        splits = {**splits, **_hold_out(splits["train"])}
        num = len(splits["valid"])
        total = num + len(splits["train"])
        warn(f"the source has no validation split: {num:,} of its {total:,} texts are held out as one.")
    if not rules:
        return splits
    _check_rules(rules, splits, warn)
    return _relabel(splits, rules)


def fingerprint(path: str | None) -> str:
    """Returns a string that changes with the source: its bytes, its version, or the hub's name and revision."""
    if path is None:
        # The grammar is code: any change in its folder draws its sentences again.
        code = b"".join(file.read_bytes() for file in sorted(Path(__file__).with_name("grammar").glob("*.py")))
        return hashlib.sha256(code).hexdigest() + str(_GRAMMAR)
    if path.startswith("hub:"):
        return path
    if path.startswith("package:"):
        return package_version(path.removeprefix("package:"))
    files = find_splits(Path(path))
    try:
        digests = {split: hashlib.sha256(file.read_bytes()).hexdigest() for split, file in files.items()}
    except OSError as error:
        raise ValueError(cannot_read(error.filename, error)) from error
    return str([(split, files[split].suffix, digest) for split, digest in digests.items()])


def parse_labels(spec: str) -> Rules:
    """Returns column -> (control name, value -> word). Raises ValueError for a part that cannot be read."""
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
        values = [value.strip() for value, _ in words]
        if repeated := next((value for value in values if values.count(value) > 1), None):
            raise ValueError(f"text.labels has {part!r}, in which the value {repeated} occurs twice; give it one word")
        if column in rules or control in (other for other, _ in rules.values()):
            raise ValueError(f"text.labels has {part!r}, whose column or control occurs twice; name each once")
        rules[column] = (control, {value.strip(): word.strip() for value, word in words})
    return rules


def _check_has_columns(path: str | None, column: str) -> None:
    """Raises ValueError for another `column` than the default if the texts of the source are in none."""
    if column == TEXT_COLUMN or (path or "").startswith("hub:"):
        return
    files = {} if path is None or path.startswith("package:") else find_splits(Path(path))
    if all(file.suffix.lower() == ".txt" for file in files.values()):
        lines = " (each line of a .txt file is a text)" if files else ""
        source = path or "the built-in grammar"
        raise ValueError(f"text.column is {column!r}, but {source} has no columns{lines}; leave text.column out")


def _check_rules(rules: Rules, splits: Splits, warn: Callable[[str], None]) -> None:
    """Raises ValueError for a rule that cannot be followed, and warns of words for values that no text has."""
    label_dicts = [example.labels for examples in splits.values() for example in examples]
    columns = set().union(*label_dicts)
    for column, (control, words) in rules.items():
        if column not in columns:
            raise ValueError(
                f"text.labels names the column {column!r}; the text has: {', '.join(sorted(columns)) or 'none'}"
            )
        if control in columns - set(rules):
            raise ValueError(
                f"text.labels calls {column!r} {control!r}, which is a column already; choose another name"
            )
        values = {labels[column] for labels in label_dicts if column in labels}
        if words and not values & set(words):
            raise ValueError(
                f"text.labels has words for {', '.join(words)} of {column}, none of which a text has; {column} has: "
                f"{', '.join(sorted(values)[:20])}"
            )
        if words and (unnamed := sorted(values - set(words))):
            warn(f"text.labels has no words for other values of {column}, which stay: {', '.join(unnamed[:20])}")
        if unmatched := [value for value in words if value not in values]:
            warn(
                f"text.labels has words for values that no {column} has: {', '.join(unmatched)}; {column} has: "
                f"{', '.join(sorted(values)[:20])}"
            )


def _relabel(splits: Splits, rules: Rules) -> Splits:
    def translate(column: str, value: str) -> tuple[str, str]:
        control, words = rules.get(column, (column, {}))
        return control, words.get(value, value)

    return {
        split: [Example(text, dict(translate(*item) for item in labels.items())) for text, labels in examples]
        for split, examples in splits.items()
    }


def _grammar_examples(num: int, seed: int) -> list[Example]:
    derivations = restaurants.sentences(num, seed)
    return [Example(derivation.text, dict(derivation.fields)) for derivation in derivations]


def _hold_out(examples: Sequence[Example]) -> Splits:
    """Splits examples that came without valid into train and valid."""
    positions = {text: _hash_position(text) for text in {example.text for example in examples}}
    if len(positions) < 2:
        raise ValueError("the source holds one text only; expected at least two: one to train on, one to validate")
    # A source too small for 5 % still has a text to validate on.
    share = max(_VALID_SHARE, min(positions.values()))
    share = min(share, max(positions.values()) - 1e-12)
    valid = [example for example in examples if positions[example.text] <= share]
    return {"train": [example for example in examples if positions[example.text] > share], "valid": valid}


def _hash_position(text: str) -> float:
    """Returns a number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:6], "big") / 2**48
