"""Reads .txt, .jsonl and .csv files as examples, one file or one per split."""

import csv
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jtextdiff.data.lines import excerpt, lines_of, parse_json

SUFFIXES = (".txt", ".jsonl", ".csv")
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "validate", "dev", "devel", "development", "eval"), "valid"),
    **dict.fromkeys(("holdout", "heldout"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Names of splits, in lower case, and the split that each is."""

BESIDE_SPLITS = {"of", "my", "set", "data", "dataset", "part", "shard", "split", "text", "texts"}
"""Words beside the name of a split in the name of a file that holds the split, or a part of it."""

VALIDATION = {"valid", "val", "validation", "validate", "holdout", "heldout"}
"""Words that mean validation beside any other word."""

OTHER = (".json", ".tsv", ".parquet", ".arrow", ".gz", ".zip")
"""Formats of texts that are not read."""

MISSING = {"#N/A", "<NA>", "NaN", "nan", "-NaN", "-nan", "NULL", "null"}
"""Cells of .csv files that programs write for a missing value, and that are no words: "NA" and "None" may be."""


class Example(NamedTuple):
    """One text and its labels: control name -> value."""

    text: str
    labels: dict[str, str]


def find_splits(path: Path) -> dict[str, Path]:
    """Returns the file of each split: {"train": file} for a file, by file name for a directory.

    Raises FileNotFoundError for a path that does not exist, ValueError for one that is not text.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"text.path is {str(path)!r}, which does not exist; expected a .txt, .jsonl or .csv file, a "
            "directory with train and valid in one of them, hub:NAME, package:NAME, or nothing for the "
            "built-in grammar"
        )
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"text.path is {str(path)!r}; expected a file ending in .txt, .jsonl or .csv")
        return {"train": path}
    if not path.is_dir():
        raise ValueError(
            f"text.path is {str(path)!r}, which is neither a file nor a directory; texts are read more than once, so "
            "write what comes out of a pipe to a .txt, .jsonl or .csv file"
        )
    entries = sorted(path.iterdir())
    files = _split_files(path, entries)
    if "train" not in files:
        names = ", ".join([entry.name for entry in entries][:8]) or "nothing"
        raise ValueError(
            f"text.path is {str(path)!r}, which holds {names}; expected train.txt, train.jsonl or train.csv"
        )
    if "valid" not in files:
        for entry in entries:
            _check_is_not_validation(entry)
    return files


def _split_files(path: Path, entries: Sequence[Path]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for file in entries:
        split = SPLITS.get(file.stem.lower())
        if not _is_text(file):
            continue
        if split is None:
            _check_is_no_split(file)
            continue
        if split in files:
            raise ValueError(f"{path} holds both {files[split].name} and {file.name}: keep one file for {split}")
        files[split] = file
    return files


def _is_text(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and file.is_file()


def _words(file: Path) -> list[str]:
    stem = file.name.lower().partition(".")[0]
    return [word for word in re.split("[^a-z]+", stem) if word and word not in BESIDE_SPLITS]


def _check_is_not_validation(entry: Path) -> None:
    """Raises ValueError for texts that are named like the validation texts of a directory without any."""
    holds_texts = any(map(_is_text, entry.iterdir())) if entry.is_dir() else entry.suffix.lower() in (*SUFFIXES, *OTHER)
    words, wanted = _words(entry), {word for word, split in SPLITS.items() if split == "valid"}
    named = bool(words) and (all(word in wanted for word in words) or not VALIDATION.isdisjoint(words))
    if holds_texts and named and "train" not in words:
        raise ValueError(
            f"{entry} is named like the validation texts but would not be read; make it a file valid.txt, "
            "valid.jsonl or valid.csv, or move it elsewhere"
        )


def _check_is_no_split(file: Path) -> None:
    """Raises ValueError for a file that would not be read although its name is that of a split, or of a part of one."""
    words = _words(file)
    if words and all(word in SPLITS for word in words):
        name = SPLITS[words[0]] + file.suffix
        raise ValueError(
            f"{file} looks like a split of the text but would not be read; call it {name}, join several parts into "
            f"one {name}, or move it elsewhere"
        )


def read_file(file: Path, column: str) -> list[Example]:
    """Returns the examples of a file, without blank texts. `column` is the field of .jsonl and .csv with the text.

    Raises ValueError, with file and line, for what cannot be read.
    """
    parsers = {".txt": _lines, ".jsonl": _json_lines, ".csv": _rows}
    examples = [example for example in parsers[file.suffix.lower()](file, column) if example.text.strip()]
    if not examples:
        raise ValueError(f"{file} holds no text; expected at least one text that is not blank")
    return examples


def field_names(names: Iterable[str]) -> list[str]:
    """Returns the names of fields without blanks around them. Raises ValueError if two, or more, are the same.

    Several may be empty: such a field is no label.
    """
    stripped = [name.strip() for name in names]
    if repeated := [name for name, times in Counter(stripped).items() if name and times > 1]:
        raise ValueError(f"there are {stripped.count(repeated[0])} fields called {repeated[0]!r}; rename or remove one")
    return stripped


def scalar_fields(record: dict[str, Any], column: str) -> dict[str, str]:
    """Returns the labels of a record: its scalar fields except the text, and those of a nested `fields`.

    A null, infinite, NaN or blank value is a missing one, and gives no label. Raises ValueError if `fields` has
    another value than the record.
    """
    nested = record.get("fields")
    labels: dict[str, str] = {}
    for name, value in [*record.items(), *(nested.items() if isinstance(nested, dict) else ())]:
        if (
            name in ("", column)
            or not isinstance(value, str | int | float)
            or (isinstance(value, float) and not math.isfinite(value))
        ):
            continue
        word = str(value).lower() if isinstance(value, bool) else str(value).strip()
        if word and labels.setdefault(name, word) != word:
            raise ValueError(f"{name!r} is {labels[name]!r}, and {word!r} among the nested fields; remove one")
    return labels


def example_of(record: dict[str, Any], column: str, place: str) -> Example:
    """Returns the example of a record. Raises ValueError, starting with its `place`, without a text in `column`."""
    if column not in record:
        fields = ", ".join(map(str, record)) or "none"
        raise ValueError(f"{place}: no field {column!r}; its fields are: {fields}; set text.column to one of them")
    text = record[column]
    if text is None:
        raise ValueError(f"{place}: field {column!r} is null, expected a string; leave the record out")
    if not isinstance(text, str):
        raise ValueError(f"{place}: field {column!r} is {excerpt(str(text))}, expected a string")
    try:
        return Example(text, scalar_fields(record, column))
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _lines(file: Path, column: str) -> Iterator[Example]:
    del column
    return (Example(line, {}) for _, line in lines_of(file))


def _json_lines(file: Path, column: str) -> Iterator[Example]:
    for number, line in lines_of(file):
        if line.strip():
            place = f"{file}, line {number}"
            record = parse_json(line, place, _Object)
            if not isinstance(record, _Object):
                raise ValueError(f"{place}: expected a JSON object on each line, got {excerpt(line)}")
            yield example_of(_record(record, place), column, place)


class _Object(dict[str, Any]):
    """A JSON object with all of its fields; as a dict, it has the last of those with one name."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs

    def named(self) -> dict[str, Any]:
        """Returns the fields by their names without blanks around them. Raises ValueError for a repeated name."""
        return dict(zip(field_names(name for name, _ in self.pairs), (value for _, value in self.pairs), strict=True))


def _record(fields: _Object, place: str) -> dict[str, Any]:
    """The record of a line, of which labels are read from the fields and those of a nested `fields`."""
    try:
        record = fields.named()
        nested = record.get("fields")
        return {**record, "fields": nested.named()} if isinstance(nested, _Object) else record
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _rows(file: Path, column: str) -> Iterator[Example]:
    csv.field_size_limit(max(csv.field_size_limit(), file.stat().st_size + 1))  # a text may be longer than 128 KiB
    lines = (line + "\n" for _, line in lines_of(file))
    first = next(lines, "")
    # Blanks after commas are no part of cells where the header has them too; elsewhere they may begin a text.
    spaced = any(name.startswith(" ") for name in next(csv.reader([first]), [])[1:])
    reader = csv.DictReader(itertools.chain([first], lines), strict=True, skipinitialspace=spaced)
    start = 1  # the line on which a row begins; a quoted text may span several
    try:
        header = reader.fieldnames = _header(file, reader.fieldnames or ())
        start = reader.line_num + 1
        for record in reader:
            if None in record or None in record.values():
                raise ValueError(
                    f"{file}, line {start}: the row does not have the {len(header)} columns of the header "
                    f"({', '.join(header)}); quote texts with commas"
                )
            cells = {name: "" if name != column and cell.strip() in MISSING else cell for name, cell in record.items()}
            yield example_of(cells, column, f"{file}, line {start}")
            start = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{file}, line {start}: not CSV ({error}); quote texts with '\"'") from error


def _header(file: Path, names: Sequence[str]) -> list[str]:
    try:
        return field_names(names)
    except ValueError as error:
        raise ValueError(f"{file}, line 1: {error}") from None
