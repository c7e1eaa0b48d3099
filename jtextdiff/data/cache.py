"""Tokenised splits on disk: one folder per corpus, written atomically and read memory-mapped."""

import contextlib
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from jtextdiff.data.text_files import Example
from jtextdiff.data.tokenizer import Tokenizer

_FORMAT = 4  # increase it when the stored format, the tokenisation or the labels change
DIGEST_CHUNK = 2**20
Rows = list[tuple[np.ndarray, Example]]  # (token ids with EOS, the example)


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """The texts of a split, end to end. Compared by identity, so that functions of it can be cached.

    `tokens` [sum of lengths], EOS after each text; text n is `tokens[offsets[n] : offsets[n + 1]]`, and
    `utf8`, `utf8_offsets` hold its characters in the same way. `labels[control]` [N] are indices of label values.
    """

    tokens: NDArray[np.uint16] | NDArray[np.int32]
    offsets: NDArray[np.int64]
    labels: dict[str, NDArray[np.int32]]
    utf8: NDArray[np.uint8]
    utf8_offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def evenly_spaced(self, num: int) -> NDArray[np.int64]:
        """Returns at most `num` evenly spaced rows, none of them twice."""
        return evenly_spaced(np.arange(len(self)), num)

    def digest(self, label: str = "") -> str:
        """Returns a digest of the tokens, their division into texts, and the values of a label if one is named."""
        sha = hashlib.sha256()
        for values in (self.tokens, self.offsets, *([self.labels[label]] if label else [])):
            for start in range(0, len(values), DIGEST_CHUNK):  # a memory map is not read as a whole
                sha.update(np.ascontiguousarray(values[start : start + DIGEST_CHUNK]).data)
        return sha.hexdigest()

    def select(self, rows: NDArray[np.integer]) -> "Split":
        """Returns a split of these rows alone."""

        def select_from(flat: NDArray, offsets: NDArray) -> tuple[NDArray, NDArray]:
            sizes = offsets[rows + 1] - offsets[rows]
            new_offsets = np.concatenate([[0], np.cumsum(sizes)])
            positions = np.repeat(offsets[rows] - new_offsets[:-1], sizes) + np.arange(new_offsets[-1])
            return np.asarray(flat)[positions], new_offsets

        tokens, offsets = select_from(self.tokens, self.offsets)
        utf8, utf8_offsets = select_from(self.utf8, self.utf8_offsets)
        labels = {name: np.asarray(ids)[rows] for name, ids in self.labels.items()}
        return Split(tokens=tokens, offsets=offsets, labels=labels, utf8=utf8, utf8_offsets=utf8_offsets)

    def texts(self, rows: Sequence[int] | NDArray[np.integer] | None = None) -> list[str]:
        """Returns the texts as they were read, of `rows` or of all."""
        utf8, offsets = np.asarray(self.utf8), self.utf8_offsets
        selected = range(len(self)) if rows is None else rows
        return [utf8[offsets[row] : offsets[row + 1]].tobytes().decode("utf-8") for row in selected]


class StoredCorpus(NamedTuple):
    """The content of one folder of the cache. `notes` are warnings about the text."""

    tokenizer: Tokenizer
    splits: dict[str, Split]
    label_values: dict[str, tuple[str, ...]]
    notes: list[str]


def evenly_spaced(rows: Int[np.ndarray, "n"], num: int) -> Int[np.ndarray, "m"]:
    """Returns at most `num` of the rows, evenly spaced, none of them twice."""
    num = min(num, len(rows))
    return rows[np.arange(num) * len(rows) // max(num, 1)]


def cache_root() -> Path:
    """Returns $JTEXTDIFF_CACHE or ~/.cache/jtextdiff; if the user has no home directory, a private temporary folder."""
    if chosen := os.environ.get("JTEXTDIFF_CACHE"):
        return Path(chosen)
    try:
        return Path.home() / ".cache" / "jtextdiff"
    except RuntimeError:
        return _private_temporary_folder()


def _private_temporary_folder() -> Path:
    """Returns a folder that later processes of this user find again and no other user can write to."""
    folder = Path(tempfile.gettempdir()) / f"jtextdiff-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    is_private = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022
    return folder if is_private else Path(tempfile.mkdtemp(prefix="jtextdiff-"))


def give_hub_a_home() -> None:
    """Names a folder for downloads of Hugging Face libraries, which are imported after this, to a user without a home.

    They would create a folder named "~" in the current one.
    """
    if os.path.expanduser("~") == "~":
        os.environ.setdefault("HF_HOME", str(cache_root() / "huggingface"))


def folder_for(key: str, cache: Path | None) -> Path:
    """Returns the folder for `key`, below `cache`; if None, below `cache_root`."""
    digest = hashlib.sha256(f"{_FORMAT} {key}".encode()).hexdigest()
    return (cache or cache_root()) / digest[:32]


def store(
    folder: Path,
    tokenizer: Tokenizer,
    splits: dict[str, Rows],
    label_values: dict[str, tuple[str, ...]],
    notes: list[str],
) -> None:
    """Writes a corpus next to `folder` and renames it to `folder`. Leaves a corpus that another process finished.

    Raises ValueError if the cache cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder.parent)
        temporary = Path(tempfile.mkdtemp(prefix="writing-", dir=folder.parent))
        try:
            for name, rows in splits.items():
                _write_split(temporary, name, rows, tokenizer, label_values)
            tokenizer.save(temporary / "tokenizer")
            metadata = {"splits": list(splits), "label_values": label_values, "notes": notes}
            (temporary / "corpus.json").write_text(json.dumps(metadata, indent=1), encoding="utf-8")
            _publish(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise ValueError(
            f"cannot write to {folder.parent}: {error.strerror}; set JTEXTDIFF_CACHE to another folder"
        ) from error


def _remove_abandoned(parent: Path) -> None:
    """Removes what interrupted processes have left half written for more than a day."""
    for left in parent.glob("writing-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 24 * 3600:
                shutil.rmtree(left)


def open_stored(folder: Path) -> StoredCorpus | None:
    """Returns the corpus that `store` wrote to `folder`; None if there is none or it is damaged."""
    try:
        metadata = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        label_values = {name: tuple(values) for name, values in metadata["label_values"].items()}
        splits = {name: _open_split(folder, name, list(label_values)) for name in metadata["splits"]}
        return StoredCorpus(Tokenizer.load(folder / "tokenizer"), splits, label_values, metadata["notes"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _publish(temporary: Path, folder: Path) -> None:
    if folder.exists() and open_stored(folder) is None:
        # Renamed, not deleted in place: no other process ever reads half of it.
        os.replace(folder, temporary / "damaged")
    try:
        os.rename(temporary, folder)
    except OSError:
        if open_stored(folder) is None:
            raise


def _write_split(
    folder: Path, name: str, rows: Rows, tokenizer: Tokenizer, label_values: dict[str, tuple[str, ...]]
) -> None:
    token_rows = [ids for ids, _ in rows]
    dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.int32
    utf8 = [example.text.encode("utf-8") for _, example in rows]
    value_ids = {control: {value: i for i, value in enumerate(values)} for control, values in label_values.items()}
    columns = [[ids[example.labels.get(control, "none")] for _, example in rows] for control, ids in value_ids.items()]
    arrays = {
        "tokens": np.concatenate(token_rows).astype(dtype),
        "offsets": _offsets(token_rows),
        "labels": np.asarray(columns, dtype=np.int32).reshape(len(value_ids), len(rows)),
        "utf8": np.frombuffer(b"".join(utf8), dtype=np.uint8),
        "utf8_offsets": _offsets(utf8),
    }
    for kind, array in arrays.items():
        np.save(folder / f"{name}.{kind}.npy", array, allow_pickle=False)


def _offsets(parts: Sequence[np.ndarray] | Sequence[bytes]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum([len(part) for part in parts]))).astype(np.int64)


def _open_split(folder: Path, name: str, label_names: list[str]) -> Split:
    def load(kind: str, memory_mapped: bool) -> np.ndarray:
        return np.load(folder / f"{name}.{kind}.npy", mmap_mode="r" if memory_mapped else None, allow_pickle=False)

    split = Split(
        tokens=load("tokens", True),
        offsets=load("offsets", False),
        labels=dict(zip(label_names, load("labels", False), strict=True)),
        utf8=load("utf8", True),
        utf8_offsets=load("utf8_offsets", False),
    )
    if split.offsets[-1] != len(split.tokens) or split.utf8_offsets[-1] != len(split.utf8):
        raise ValueError(f"{folder}: {name} is truncated")
    return split
