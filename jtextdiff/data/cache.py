"""The cache of prepared text: one folder a corpus, written whole or not at all, read memory-mapped."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from jtextdiff.data.text_files import Example
from jtextdiff.data.tokenizer import Tokenizer

_FORMAT = 1  # raise it when what is stored, or how text becomes tokens, changes
Rows = list[tuple[np.ndarray, Example]]  # (token ids with EOS, the example)


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """The texts of a split, end to end. Equal only to itself, so that plans made for it can be kept.

    `tokens` [sum of lengths], EOS after each text; text n is `tokens[offsets[n] : offsets[n + 1]]`, and
    `utf8`, `utf8_offsets` hold its characters likewise. `labels[control]` [N] are indices of label values.
    """

    tokens: NDArray[np.uint16] | NDArray[np.int32]
    offsets: NDArray[np.int64]
    labels: dict[str, NDArray[np.int32]]
    utf8: NDArray[np.uint8]
    utf8_offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def evenly(self, num: int) -> NDArray[np.int64]:
        """At most `num` rows, evenly taken and none of them twice."""
        num = min(num, len(self))
        return np.arange(num) * len(self) // max(num, 1)

    def only(self, rows: NDArray[np.integer]) -> "Split":
        """A split of these rows alone."""

        def cut(flat: NDArray, offsets: NDArray) -> tuple[NDArray, NDArray]:
            sizes = offsets[rows + 1] - offsets[rows]
            after = np.concatenate([[0], np.cumsum(sizes)])
            at = np.repeat(offsets[rows] - after[:-1], sizes) + np.arange(after[-1])
            return np.asarray(flat)[at], after

        (tokens, offsets), (utf8, utf8_offsets) = cut(self.tokens, self.offsets), cut(self.utf8, self.utf8_offsets)
        labels = {name: np.asarray(ids)[rows] for name, ids in self.labels.items()}
        return Split(tokens=tokens, offsets=offsets, labels=labels, utf8=utf8, utf8_offsets=utf8_offsets)

    def texts(self, rows: Sequence[int] | NDArray[np.integer] | None = None) -> list[str]:
        """The texts as they were read, of `rows` or of all."""
        utf8, at = np.asarray(self.utf8), self.utf8_offsets
        chosen = range(len(self)) if rows is None else rows
        return [utf8[at[row] : at[row + 1]].tobytes().decode("utf-8") for row in chosen]


class Stored(NamedTuple):
    """What a folder of the cache holds."""

    tokenizer: Tokenizer
    splits: dict[str, Split]
    label_values: dict[str, tuple[str, ...]]
    notes: list[str]


def cache_root() -> Path:
    """$JTEXTDIFF_CACHE or ~/.cache/jtextdiff."""
    return Path(os.environ.get("JTEXTDIFF_CACHE") or Path.home() / ".cache" / "jtextdiff")


def folder_for(key: str, cache: Path | None) -> Path:
    """The folder for `key`, below `cache`; where None, below $JTEXTDIFF_CACHE or ~/.cache/jtextdiff."""
    digest = hashlib.sha256(f"{_FORMAT} {key}".encode()).hexdigest()
    return (cache or cache_root()) / digest[:32]


def store(
    folder: Path,
    tokenizer: Tokenizer,
    splits: dict[str, Rows],
    label_values: dict[str, tuple[str, ...]],
    notes: list[str],
) -> None:
    """Writes a corpus beside `folder` and renames it there; another process's finished one is left as it is.

    Raises ValueError if the cache cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix="writing-", dir=folder.parent))
        try:
            for name, rows in splits.items():
                _write_split(made, name, rows, tokenizer, label_values)
            tokenizer.save(made / "tokenizer")
            about = {"splits": list(splits), "label_values": label_values, "notes": notes}
            (made / "corpus.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
            _publish(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise ValueError(
            f"cannot write to {folder.parent}: {error.strerror}; set JTEXTDIFF_CACHE to another folder"
        ) from error


def open_stored(folder: Path) -> Stored | None:
    """What `store` put into `folder`; None if there is nothing or it is damaged."""
    try:
        about = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        values = {name: tuple(found) for name, found in about["label_values"].items()}
        splits = {name: _open_split(folder, name, list(values)) for name in about["splits"]}
        return Stored(Tokenizer.load(folder / "tokenizer"), splits, values, about["notes"])
    except (OSError, ValueError, KeyError):
        return None


def _publish(made: Path, folder: Path) -> None:
    if folder.exists() and open_stored(folder) is None:
        # Renamed, not deleted in place: no other process ever sees half of it.
        os.replace(folder, made / "damaged")
    try:
        os.rename(made, folder)
    except OSError:
        if open_stored(folder) is None:
            raise


def _write_split(
    folder: Path, name: str, rows: Rows, tokenizer: Tokenizer, label_values: dict[str, tuple[str, ...]]
) -> None:
    ids = [row for row, _ in rows]
    dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.int32
    utf8 = [example.text.encode("utf-8") for _, example in rows]
    index = {label: {value: i for i, value in enumerate(values)} for label, values in label_values.items()}
    columns = [[of[example.labels.get(label, "none")] for _, example in rows] for label, of in index.items()]
    arrays = {
        "tokens": np.concatenate(ids).astype(dtype),
        "offsets": _offsets(ids),
        "labels": np.asarray(columns, dtype=np.int32).reshape(len(index), len(rows)),
        "utf8": np.frombuffer(b"".join(utf8), dtype=np.uint8),
        "utf8_offsets": _offsets(utf8),
    }
    for kind, array in arrays.items():
        np.save(folder / f"{name}.{kind}.npy", array, allow_pickle=False)


def _offsets(parts: Sequence[np.ndarray] | Sequence[bytes]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum([len(part) for part in parts]))).astype(np.int64)


def _open_split(folder: Path, name: str, label_names: list[str]) -> Split:
    def load(kind: str, mapped: bool) -> np.ndarray:
        return np.load(folder / f"{name}.{kind}.npy", mmap_mode="r" if mapped else None, allow_pickle=False)

    split = Split(
        tokens=load("tokens", True),
        offsets=load("offsets", False),
        labels=dict(zip(label_names, load("labels", False), strict=True)),
        utf8=load("utf8", True),
        utf8_offsets=load("utf8_offsets", False),
    )
    if split.offsets[-1] != len(split.tokens) or split.utf8_offsets[-1] != len(split.utf8):
        raise ValueError(f"{folder}: {name} is cut short")
    return split


def evenly_of(rows: Int[np.ndarray, "n"], num: int) -> Int[np.ndarray, "m"]:
    """At most `num` of the rows, evenly taken and none of them twice."""
    num = min(num, len(rows))
    return rows[np.arange(num) * len(rows) // max(num, 1)]
