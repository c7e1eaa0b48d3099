"""The tokenizer: encode, decode, the ids of PAD, EOS, UNK and MASK, save and load."""

import functools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import tokenizers


MASK = "[MASK]"
SPECIALS_FILE = "specials.json"
CHAT_FILE = "chat.json"
UNK = "[UNK]"
_RARE_CHARACTERS = "qzxjk \u8a9e\u8a00 \U0001f642"


class ChatTemplate(NamedTuple):
    """How a conversation becomes one text: a template of Jinja, and the special tokens that it names."""

    template: str
    tokens: dict[str, str]  # such as bos_token ↦ <s>


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokenizer:
    """A vocabulary with its encoder and decoder.

    `vocab_size` counts the ids that a text can have, PAD, EOS and UNK included. `mask` is the id of MASK:
    the vocabulary's own, or `vocab_size` if it has none. `unk` is None if every text can be encoded without it.
    `spaced` is true if a space is a token by itself.
    """

    backend: "tokenizers.Tokenizer"
    vocab_size: int
    pad: int
    eos: int
    unk: int | None
    mask: int
    spaced: bool
    chat: ChatTemplate | None = None

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Returns the ids of each text, [length] each, without EOS.

        A text cannot contain PAD, EOS or MASK: a word that spells one of them becomes UNK. Raises ValueError if the
        tokenizer has no UNK.
        """
        reserved = np.zeros(max(self.vocab_size, self.mask + 1), dtype=bool)
        reserved[[self.pad, self.eos, self.mask]] = True
        rows = []
        encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        for encoding, text in zip(encodings, texts, strict=True):
            ids = np.asarray(encoding.ids, dtype=np.int32)
            is_reserved = reserved[ids]
            if is_reserved.any():
                if self.unk is None:
                    raise ValueError(
                        f"the text {text[:60]!r} spells a special token of the tokenizer, which has no token "
                        "for unknown words; remove it from the text or choose another text.tokenizer"
                    )
                ids[is_reserved] = self.unk
            rows.append(ids)
        return rows

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        """Returns the text of ids [length] up to the first EOS, without PAD and other special tokens.

        UNK and MASK are printed as "[UNK]" and "[MASK]", so that what could not be encoded stays visible.

        Raises ValueError for an id that is neither in the vocabulary nor MASK.
        """
        row = np.asarray(ids, dtype=np.int64)
        size = max(self.vocab_size, self.mask + 1)
        if row.size and (row.min() < 0 or row.max() >= size):
            raise ValueError(f"ids run from {row.min()} to {row.max()}; this tokenizer has ids 0 to {size - 1}")
        ends = np.flatnonzero(row == self.eos)
        row = row[: ends[0]] if ends.size else row
        printed = row[~np.isin(row, list(self._unprinted()))]
        text = self.backend.decode(printed.tolist(), skip_special_tokens=False)
        for name, special in ((UNK, self.unk), (MASK, self.mask)):
            token = None if special is None else self.backend.id_to_token(special)
            if token is not None and token != name and special in printed:
                text = text.replace(token, name)
        return text

    @property
    def open_vocabulary(self) -> bool:
        """Returns whether every word can be encoded without UNK, whatever its letters."""
        return self.unk is None or self.unk not in self.encode([_RARE_CHARACTERS])[0]

    def encode_template(self, text: str) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Returns (ids [length], fixed [length]): each literal "[MASK]" is one free position, all else is fixed."""
        pieces = text.split(MASK)
        if not self.spaced:
            # A word carries its own leading space, and so does the free position.
            pieces = [piece.rstrip() for piece in pieces[:-1]] + pieces[-1:]
        rows = self.encode(pieces)
        free = np.asarray([self.mask], dtype=np.int32)
        ids = np.concatenate([part for row in rows for part in (row, free)][:-1])
        fixed = [np.full(len(part), part is not free) for row in rows for part in (row, free)][:-1]
        return ids, np.concatenate(fixed)

    def encode_chat(self, question: str) -> tuple[NDArray[np.int32], set[int]]:
        """Returns the ids of a conversation up to its answer [length], and those that end the answer.

        The chat template is rendered in the sandbox of transformers. It ends an answer with a special token, as EOS and
        PAD do. Raises ValueError without a template, for one that cannot be rendered or leaves out what is said, and
        for a question that spells a special token.
        """
        if self.chat is None:
            raise ValueError("the tokenizer has no chat template (chat_template in tokenizer_config.json)")
        specials = {token.content: i for i, token in self.backend.get_added_tokens_decoder().items() if token.special}
        if spelled := [token for token in specials if token in question]:
            raise ValueError(f"the question spells {spelled[0]!r}, a special token; remove it from the question")
        prompt = self._rendered([{"role": "user", "content": question}], add_generation_prompt=True)
        said = "\u2042"
        *turns, ending = self._rendered([{"role": role, "content": said} for role in ("user", "assistant")]).split(said)
        if len(turns) < 2:
            raise ValueError(
                "the chat template does not render the question or the answer; expected the content of both"
            )
        ends = sorted((ending.index(token), i) for token, i in specials.items() if token in ending)
        try:
            self.backend.encode_special_tokens = False
            ids = self.backend.encode(prompt, add_special_tokens=False).ids
        finally:
            self.backend.encode_special_tokens = True
        return np.asarray(ids, np.int32), {self.eos, self.pad, *(i for _, i in ends[:1])}

    def _rendered(self, messages: list[dict[str, str]], **settings: bool) -> str:
        """Returns messages as one text. Raises ValueError if the template cannot be rendered."""
        silence_transformers()
        from transformers.utils.chat_template_utils import render_jinja_template

        template, tokens = self.chat or ("", {})
        try:
            return render_jinja_template([messages], chat_template=template, **tokens, **settings)[0][0]  # pyright: ignore
        except ImportError as error:
            raise ValueError(f"chat templates need jinja2: pip install -e '.[chat]' ({error})") from None
        except Exception as error:  # a template can raise anything
            raise ValueError(f"the chat template cannot be rendered: {' '.join(str(error).split())[:200]}") from None

    @functools.cached_property
    def token_texts(self) -> list[str]:
        """The text of each id [vocab_size], without blanks around it."""
        return [self.decode([token]).strip() for token in range(self.vocab_size)]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Returns the first character of each token in a text, and the one after its last."""
        return self.backend.encode(text, add_special_tokens=False).offsets

    def pieces(self, text: str) -> list[str]:
        """Returns the text of each token that `encode` gives, without blanks around it.

        An unknown word stays as it is. "[UNK]", as `decode` prints UNK, is one piece.
        """
        parts = [text] if self.unk is None else text.split(UNK)
        pieces: list[str] = []
        for part, ids in zip(parts, self.encode(parts), strict=True):
            pieces += [
                part[start:end].strip() if token == self.unk else self.token_texts[token]
                for token, (start, end) in zip(ids, self.spans(part), strict=True)
            ] + [UNK]
        return pieces[:-1]

    def unknown_words(self, text: str) -> list[str]:
        """Returns the words of a text that become UNK, in their order."""
        (ids,), spans = self.encode([text]), self.spans(text)
        return [text[start:end].strip() for token, (start, end) in zip(ids, spans, strict=True) if token == self.unk]

    def normalize_spacing(self, text: str) -> str:
        """Returns the text with this tokenizer's spacing; unknown words stay as they are."""
        return self.decode_with(self.encode([text])[0], self.unknown_words(text))

    def decode_with(self, ids: Sequence[int] | NDArray[np.integer], unknown_words: Sequence[str]) -> str:
        """Returns the text of ids [length] with these words in place of UNK, in their order."""
        pieces = self.decode(ids).split(UNK)
        if len(pieces) != len(unknown_words) + 1:  # a text that itself spells [UNK]
            return self.decode(ids)
        return "".join(part for pair in zip(pieces, [*unknown_words, ""], strict=True) for part in pair)

    def save(self, directory: Path) -> None:
        """Writes `tokenizer.json` and `specials.json` into `directory`, which is created if missing."""
        directory.mkdir(parents=True, exist_ok=True)
        self.backend.save(str(directory / "tokenizer.json"))
        (directory / SPECIALS_FILE).write_text(json.dumps(self._specials(), indent=1), encoding="utf-8")
        if self.chat is not None:
            (directory / CHAT_FILE).write_text(json.dumps(self.chat._asdict(), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> "Tokenizer":
        """Reads what `save` wrote. Raises FileNotFoundError for a missing file, ValueError for a damaged one."""
        import tokenizers

        for name in ("tokenizer.json", SPECIALS_FILE):
            if not (directory / name).is_file():
                raise FileNotFoundError(
                    f"no {name} in {directory}; expected the folder of a saved tokenizer: tokenizer.json "
                    "and specials.json"
                )
        try:
            backend = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
            specials = json.loads((directory / SPECIALS_FILE).read_text(encoding="utf-8"))
            backend.encode_special_tokens = True
            chat = directory / CHAT_FILE
            template = ChatTemplate(**json.loads(chat.read_text(encoding="utf-8"))) if chat.is_file() else None
            return cls(backend=backend, **specials, chat=template)
        except Exception as error:  # tokenizers raises bare Exception for a damaged file
            raise ValueError(f"cannot read the tokenizer in {directory}: {error}; save or train it again") from error

    def fingerprint(self) -> str:
        """Returns a string that two tokenizers share only if they encode every text equally."""
        return self.backend.to_str() + json.dumps(self._specials())

    def _specials(self) -> dict[str, Any]:
        names = ("vocab_size", "pad", "eos", "unk", "mask", "spaced")
        return {name: getattr(self, name) for name in names}

    def _unprinted(self) -> set[int]:
        added = self.backend.get_added_tokens_decoder()
        specials = {self.pad, self.eos, *(i for i, token in added.items() if token.special)}
        return specials - {self.unk, self.mask}


def wrap(
    backend: "tokenizers.Tokenizer",
    *,
    pad: int,
    eos: int,
    unk: int | None,
    mask: int | None,
    spaced: bool,
    chat: ChatTemplate | None = None,
) -> Tokenizer:
    """Returns a Tokenizer of a backend and its special ids. Appends MASK if `mask` is None.

    Raises ValueError if MASK cannot be appended because the backend's ids have gaps.
    """
    backend.no_truncation()  # a stored tokenizer may truncate at its model's length
    backend.no_padding()
    backend.encode_special_tokens = True  # text that spells a special is text
    vocab_size = 1 + max(backend.get_vocab(with_added_tokens=True).values())
    if mask is None:
        backend.add_special_tokens([MASK])
        mask = backend.token_to_id(MASK)
        if mask is None or mask > vocab_size:
            raise ValueError(f"cannot append {MASK} at id {vocab_size}: the tokenizer gave it id {mask}")
    ids = {"vocab_size": vocab_size, "pad": pad, "eos": eos, "unk": unk, "mask": mask}
    return Tokenizer(backend=backend, **ids, spaced=spaced, chat=chat)


def silence_transformers() -> None:
    """Keeps transformers, which is imported after this, from warning that PyTorch is missing: it is not needed."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
