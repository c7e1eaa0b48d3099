"""Word, character, byte-pair and pretrained tokenizers, built from a spec."""

import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jtextdiff.data.cache import give_hub_a_home
from jtextdiff.data.tokenizer import SPECIALS_FILE, UNK, ChatTemplate, Tokenizer, silence_transformers, wrap

SPECIALS = ("[PAD]", "[EOS]", UNK)  # ids 0, 1, 2 of every trained tokenizer

# One punctuation mark, or an ellipsis, which is one word in text that is already tokenised.
_PUNCTUATION = r'(?:\.{2,}|[.,!?;:()"])'

# At the start of a word (\G: also after another mark at the start), or with only marks up to its end.
_WORD_EDGE_PUNCTUATION = rf"(?:\A|\G){_PUNCTUATION}|{_PUNCTUATION}(?={_PUNCTUATION}*\z)"

# Scripts written without spaces: one pre-token per character, since training on their long runs takes minutes.
_MOSTLY_SPACED = 0.25  # a share of characters of such scripts above which texts have no words between spaces
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"


NO_UNKNOWN = "text.tokenizer=byte_pairs:8000 has no unknown tokens"


@dataclass(frozen=True, kw_only=True)
class Words:
    """Words between white space, `. , ! ? ; : ( ) "` split off their ends; those that occur `min_count` times."""

    min_count: int = 10

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """Returns the tokenizer of these texts. Raises ValueError if no word occurs often enough."""
        import tokenizers as hf

        punctuation = hf.pre_tokenizers.Split(hf.Regex(_WORD_EDGE_PUNCTUATION), "isolated")
        split = hf.pre_tokenizers.Sequence([hf.pre_tokenizers.WhitespaceSplit(), punctuation])
        return _train_from_counts(self, list(texts), split, None, spaced=False)


@dataclass(frozen=True, kw_only=True)
class Characters:
    """Characters, white space included; those that occur `min_count` times."""

    min_count: int = 2

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """Returns the tokenizer of these texts. Raises ValueError if no character occurs often enough."""
        import tokenizers as hf

        split = hf.pre_tokenizers.Split(hf.Regex(r".|\n"), "isolated")
        return _train_from_counts(self, list(texts), split, hf.decoders.Fuse(), spaced=True)


@dataclass(frozen=True, kw_only=True)
class BytePairs:
    """Byte-level byte-pair encoding with at most `vocab_size` ids. It encodes every text without UNK."""

    vocab_size: int = 8000

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """Returns the tokenizer of these texts. Raises ValueError if `vocab_size` is too small for the bytes."""
        import tokenizers as hf

        if self.vocab_size < 256 + len(SPECIALS):
            raise ValueError(
                f"text.tokenizer is byte_pairs:{self.vocab_size}; byte pairs need at least "
                f"{256 + len(SPECIALS)}: one id per byte and the special tokens"
            )
        backend = hf.Tokenizer(hf.models.BPE())
        unspaced = hf.pre_tokenizers.Split(hf.Regex(_UNSPACED), "isolated")
        byte_level = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.pre_tokenizer = hf.pre_tokenizers.Sequence([unspaced, byte_level])  # pyright: ignore
        backend.decoder = hf.decoders.ByteLevel()  # pyright: ignore
        trainer = hf.trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            special_tokens=list(SPECIALS),
            initial_alphabet=hf.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer=trainer)
        return wrap(backend, pad=0, eos=1, unk=2, mask=None, spaced=False)


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """The tokenizer of a Hugging Face model. `name` is its name or a directory. Remote code is never run.

    EOS is its end-of-text token, or its separator (BERT). PAD is EOS if it has none (GPT-2). MASK is its own, that of
    a directory's config.json, or appended. A directory in which a
    `Tokenizer` was saved has that one.
    """

    name: str

    def train(self, texts: Iterable[str] = ()) -> Tokenizer:
        """Reads the tokenizer; `texts` are ignored.

        Raises FileNotFoundError if it cannot be found, ValueError if it has no fast form or no end-of-text token.
        """
        if (Path(self.name) / SPECIALS_FILE).is_file():
            return Tokenizer.load(Path(self.name))
        try:
            pretrained = _read_quietly(self.name)
        except Exception as error:  # a damaged tokenizer.json raises whatever its readers stumble over
            raise FileNotFoundError(
                f"text.tokenizer is pretrained:{self.name}: no such directory, and no Hugging Face model of that "
                f"name could be read ({' '.join(str(error).split())[:200]}); give a directory with tokenizer.json "
                "and tokenizer_config.json, or a model's name while online"
            ) from error
        backend = getattr(pretrained, "backend_tokenizer", None)
        eos = pretrained.sep_token_id if pretrained.eos_token_id is None else pretrained.eos_token_id
        if backend is None or eos is None:
            missing = "fast tokenizer (tokenizer.json)" if backend is None else "end-of-text or separator token"
            raise ValueError(f"text.tokenizer is pretrained:{self.name}, which has no {missing}; choose another")
        pad = eos if pretrained.pad_token_id is None else pretrained.pad_token_id
        # GPT-2 uses one token for all three.
        unk = None if pretrained.unk_token_id in (pad, eos) else pretrained.unk_token_id
        mask = pretrained.mask_token_id
        mask = _mask_of_model(Path(self.name), backend) if mask is None else mask
        return wrap(backend, pad=pad, eos=eos, unk=unk, mask=mask, spaced=False, chat=_chat(pretrained))


def _chat(pretrained: Any) -> ChatTemplate | None:
    """Returns the chat template of a tokenizer, the default one of several, if it has any."""
    template = pretrained.chat_template
    template = template.get("default") if isinstance(template, dict) else template
    tokens = {name: token for name, token in pretrained.special_tokens_map.items() if isinstance(token, str)}
    return ChatTemplate(template, tokens) if isinstance(template, str) else None


def _read_quietly(name: str) -> Any:
    """Reads a tokenizer without warnings: transformers also reads config.json, of models that it does not know."""
    give_hub_a_home()
    silence_transformers()
    import transformers

    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return _read(transformers, name)
    finally:
        transformers.logging.set_verbosity(verbosity)


def _read(transformers: Any, name: str) -> Any:
    """Reads a tokenizer. One whose class is code of its folder (Dream) is read from its tokenizer.json."""
    try:
        return transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except ValueError:
        if not (Path(name) / "tokenizer.json").is_file():
            raise
        return transformers.PreTrainedTokenizerFast.from_pretrained(name)


def _mask_of_model(folder: Path, backend: Any) -> int | None:
    """Returns the id of MASK in the config.json of a model whose tokenizer does not name it, such as LLaDA.

    Raises ValueError for one that is no token.
    """
    if not (folder / "config.json").is_file():
        return None
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    mask = config.get("mask_token_id") if isinstance(config, dict) else None
    if mask is None or isinstance(mask, int) and mask >= 0 and backend.id_to_token(mask) is not None:
        return mask
    raise ValueError(f"{folder}: config.json has mask_token_id = {mask!r}, which is no token of its tokenizer.json")


def tokenizer_builder(spec: str) -> Words | Characters | BytePairs | Pretrained:
    """Returns the builder for a config's `text.tokenizer`: "words:10", "characters:2" or "byte_pairs:8000", where the
    number is optional, or "pretrained:NAME".

    Raises ValueError for another name or a malformed number.
    """
    kind, _, value = spec.partition(":")
    if kind == "pretrained" and value:
        return Pretrained(name=value)
    builders = {
        "words": (Words, "min_count"),
        "characters": (Characters, "min_count"),
        "byte_pairs": (BytePairs, "vocab_size"),
    }
    if kind not in builders or not (value.isascii() and value.isdecimal() and len(value) < 10 or spec == kind):
        raise ValueError(
            f"text.tokenizer is {spec!r}; expected words:N or characters:N (those that occur at least N times), "
            "byte_pairs:N (N ids), or pretrained:NAME"
        )
    builder, field = builders[kind]
    return builder(**{field: int(value)} if value else {})


def same_tokenizer(spec: str, other: str) -> bool:
    """Returns whether two values of `text.tokenizer` mean the same, as "words" and "words:10" do.

    Raises ValueError as `tokenizer_builder` does.
    """
    return tokenizer_builder(spec) == tokenizer_builder(other)


def remedy_for_unknown(builder: Words | Characters | BytePairs | Pretrained, texts: Sequence[str]) -> str:
    """Returns a `text.tokenizer` that has more of the tokens of these texts than the builder."""
    if isinstance(builder, Words) and _share_unspaced(texts) > _MOSTLY_SPACED:
        return "these texts have no spaces between words: set text.tokenizer=characters:2"
    if isinstance(builder, Words | Characters) and builder.min_count > 1:
        return f"lower N in text.tokenizer={type(builder).__name__.lower()}:N, or choose another: {NO_UNKNOWN}"
    return NO_UNKNOWN


def _share_unspaced(texts: Sequence[str]) -> float:
    """The share of characters of scripts that are written without spaces."""
    import tokenizers as hf

    remove = hf.normalizers.Replace(hf.Regex(_UNSPACED), "")
    rest, all_characters = sum(len(remove.normalize_str(text)) for text in texts), sum(map(len, texts))
    return 1 - rest / max(all_characters, 1)


def _train_from_counts(
    builder: Words | Characters, texts: Sequence[str], split: Any, decoder: Any, *, spaced: bool
) -> Tokenizer:
    """Returns the tokenizer of the pieces of `split` that occur at least the builder's `min_count` times in `texts`."""
    import tokenizers as hf

    backend = hf.Tokenizer(hf.models.WordLevel({}, unk_token=UNK))
    backend.pre_tokenizer = split
    if decoder is not None:
        backend.decoder = decoder
    trainer = hf.trainers.WordLevelTrainer(
        vocab_size=2**31, min_frequency=builder.min_count, special_tokens=list(SPECIALS), show_progress=False
    )
    backend.train_from_iterator(texts, trainer=trainer)
    if backend.get_vocab_size() == len(SPECIALS):
        raise ValueError(
            f"no token of the training texts occurs {builder.min_count} times; {remedy_for_unknown(builder, texts)}"
        )
    return wrap(backend, pad=0, eos=1, unk=2, mask=None, spaced=spaced)
