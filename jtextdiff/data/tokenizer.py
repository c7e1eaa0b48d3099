"""The tokenizer: strings to integers and back, and the ids of PAD, EOS, UNK and MASK."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import tokenizers


MASK = "[MASK]"
UNK = "[UNK]"
STRANGE = "qzxjk \u8a9e\u8a00 \U0001f642"


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokenizer:
    """A vocabulary and its two directions.

    `vocab_size` counts the ids that can be written, PAD, EOS and UNK among them. `mask` is the id of MASK:
    the vocabulary's own, or `vocab_size` where it has none. `unk` is None where everything can be written.
    `spaced` says that a space is a token by itself.
    """

    backend: "tokenizers.Tokenizer"
    vocab_size: int
    pad: int
    eos: int
    unk: int | None
    mask: int
    spaced: bool

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """The ids of each text, [length] each, without EOS.

        A text cannot write PAD, EOS or MASK: where it spells one of them as a word, that word is unknown.
        """
        reserved = np.zeros(max(self.vocab_size, self.mask + 1), dtype=bool)
        reserved[[self.pad, self.eos, self.mask]] = True
        rows = []
        encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        for encoding, text in zip(encodings, texts, strict=True):
            ids = np.asarray(encoding.ids, dtype=np.int32)
            spelled = reserved[ids]
            if spelled.any():
                if self.unk is None:
                    raise ValueError(
                        f"the text {text[:60]!r} spells a special token of the tokenizer, which has no token "
                        "for the unknown; remove it from the text or choose another text.tokenizer"
                    )
                ids[spelled] = self.unk
            rows.append(ids)
        return rows

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        """The text of ids [length] up to the first EOS. PAD and other specials are not printed; UNK and MASK
        are, as "[UNK]" and "[MASK]": nothing that could not be written goes missing unseen.

        Raises ValueError for an id that is neither in the vocabulary nor MASK.
        """
        row = np.asarray(ids, dtype=np.int64)
        size = max(self.vocab_size, self.mask + 1)
        if row.size and (row.min() < 0 or row.max() >= size):
            raise ValueError(f"ids run from {row.min()} to {row.max()}; this tokenizer has ids 0 to {size - 1}")
        ends = np.flatnonzero(row == self.eos)
        row = row[: ends[0]] if ends.size else row
        kept = row[~np.isin(row, list(self._unprinted()))]
        text = self.backend.decode(kept.tolist(), skip_special_tokens=False)
        for name, special in ((UNK, self.unk), (MASK, self.mask)):
            spelled = None if special is None else self.backend.id_to_token(special)
            if spelled is not None and spelled != name and special in kept:
                text = text.replace(spelled, name)
        return text

    @property
    def knows_all(self) -> bool:
        """Whether no word is unknown, whatever its letters."""
        return self.unk is None or self.unk not in self.encode([STRANGE])[0]

    def encode_template(self, text: str) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """(ids [length], fixed [length]): each literal "[MASK]" is one free position, all else is fixed."""
        pieces = text.split(MASK)
        if not self.spaced:
            # Where a word carries its own leading space, the free position carries it too.
            pieces = [piece.rstrip() for piece in pieces[:-1]] + pieces[-1:]
        rows = self.encode(pieces)
        free = np.asarray([self.mask], dtype=np.int32)
        ids = np.concatenate([part for row in rows for part in (row, free)][:-1])
        fixed = [np.full(len(part), part is not free) for row in rows for part in (row, free)][:-1]
        return ids, np.concatenate(fixed)

    def spelled(self, text: str) -> str:
        """The text with this tokenizer's spacing, and unknown words as they stand."""
        (ids,), offsets = self.encode([text]), self.backend.encode(text, add_special_tokens=False).offsets
        unknown = [
            text[start:end].strip() for token, (start, end) in zip(ids, offsets, strict=True) if token == self.unk
        ]
        written = self.decode(ids).split(UNK)
        if len(written) != len(unknown) + 1:  # a text that itself spells [UNK]
            return self.decode(ids)
        return "".join(part for pair in zip(written, [*unknown, ""], strict=True) for part in pair)

    def save(self, directory: Path) -> None:
        """Writes `tokenizer.json` and `specials.json` into `directory`, made where it is missing."""
        directory.mkdir(parents=True, exist_ok=True)
        self.backend.save(str(directory / "tokenizer.json"))
        (directory / "specials.json").write_text(json.dumps(self._specials(), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> "Tokenizer":
        """What `save` wrote. Raises FileNotFoundError for a missing file, ValueError for a damaged one."""
        import tokenizers

        for name in ("tokenizer.json", "specials.json"):
            if not (directory / name).is_file():
                raise FileNotFoundError(
                    f"no {name} in {directory}; expected the folder a tokenizer was saved to: tokenizer.json "
                    "and specials.json"
                )
        try:
            backend = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
            specials = json.loads((directory / "specials.json").read_text(encoding="utf-8"))
            backend.encode_special_tokens = True
            return cls(backend=backend, **specials)
        except Exception as error:  # tokenizers raises bare Exception for a damaged file
            raise ValueError(f"cannot read the tokenizer in {directory}: {error}; save or train it again") from error

    def fingerprint(self) -> str:
        """A string that two tokenizers share only if they encode alike."""
        return self.backend.to_str() + json.dumps(self._specials())

    def _specials(self) -> dict[str, Any]:
        names = ("vocab_size", "pad", "eos", "unk", "mask", "spaced")
        return {name: getattr(self, name) for name in names}

    def _unprinted(self) -> set[int]:
        added = self.backend.get_added_tokens_decoder()
        return {self.pad, self.eos, *(i for i, token in added.items() if token.special)} - {
            self.unk,
            self.mask,
        }


def wrap(
    backend: "tokenizers.Tokenizer", *, pad: int, eos: int, unk: int | None, mask: int | None, spaced: bool
) -> Tokenizer:
    """A Tokenizer of a backend and its special ids; MASK is appended where `mask` is None.

    Raises ValueError if MASK cannot be appended because the backend's ids leave gaps.
    """
    backend.no_truncation()  # a stored tokenizer may cut at its model's length
    backend.no_padding()
    backend.encode_special_tokens = True  # text that spells a special is text
    vocab_size = 1 + max(backend.get_vocab(with_added_tokens=True).values())
    if mask is None:
        backend.add_special_tokens([MASK])
        mask = backend.token_to_id(MASK)
        if mask is None or mask > vocab_size:
            raise ValueError(f"cannot append {MASK} at id {vocab_size}: the tokenizer gave it id {mask}")
    return Tokenizer(backend=backend, vocab_size=vocab_size, pad=pad, eos=eos, unk=unk, mask=mask, spaced=spaced)
