"""Corpora: a source of text, tokenised once, kept memory-mapped in a cache, with labels and lengths."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jtextdiff.data.cache import Split, Stored, folder_for, open_stored, store
from jtextdiff.data.sources import fingerprint, read
from jtextdiff.data.text_files import Example
from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.data.tokenizer_builders import Pretrained, named

_MAX_VALUES = 256  # a column with more values is an id or a text, not a label
_MAX_UNKNOWN = 0.01
_ENCODED_AT_ONCE = 10_000


@dataclass(frozen=True, kw_only=True)
class Text:
    """What a config says of its text.

    `path`, `labels`, `column`: see `sources.read`. `tokenizer`: see `tokenizers.named`. `length`: tokens of the
    longest text kept, EOS included.
    `buckets`: how many lengths batches come in.
    """

    path: str | None = None
    length: int = 64
    tokenizer: str = "words"
    labels: str = ""
    column: str = "text"
    buckets: int = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Corpus:
    """Tokenised text. `label_values[control][id]` is a value's name, "none" where some text has no value.

    `buckets`: the lengths of batches, ascending. `length_counts[n]`: train texts of n tokens with EOS, for n
    from 0 to the last bucket. `is_grammar`: whether the text was drawn from the embedded grammar.
    """

    tokenizer: Tokenizer
    splits: dict[str, Split]
    label_values: dict[str, tuple[str, ...]]
    buckets: tuple[int, ...]
    length_counts: tuple[int, ...]
    is_grammar: bool


def prepare(
    text: Text,
    *,
    tokenizer: Tokenizer | None = None,
    cache: Path | None = None,
    warn: Callable[[str], None],
) -> Corpus:
    """The corpus of `text`, from the cache where it was prepared before.

    `tokenizer` replaces the one `text` would train (when a run resumes). `cache` defaults to
    $JTEXTDIFF_CACHE or ~/.cache/jtextdiff. `warn` hears, each time, of texts dropped as too long, unknown
    tokens above 1 %, and columns too varied to be labels. Raises what `sources.read` and training raise, and
    ValueError if no text is short enough.
    """
    if text.length < 2 or text.buckets < 1:
        raise ValueError(
            f"text.length is {text.length} and text.buckets {text.buckets}; expected a length of at least 2, "
            "EOS included, and at least 1 bucket"
        )
    chosen = named(text.tokenizer)
    if tokenizer is None and isinstance(chosen, Pretrained):
        tokenizer = chosen.train()
    spelled = repr(chosen) if tokenizer is None else tokenizer.fingerprint()
    key = repr((fingerprint(text.path), spelled, text.length, text.labels, text.column))
    folder = folder_for(key, cache)
    stored = open_stored(folder)
    if stored is None:
        store(folder, *_tokenise(text, tokenizer))
        stored = open_stored(folder)
        if stored is None:
            raise ValueError(f"the prepared text in {folder} cannot be read back; is the disk full?")
    for note in stored.notes:
        warn(note)
    return _corpus(text, stored)


def choose_buckets(lengths: np.ndarray, longest: int, *, limit: int, num: int) -> tuple[int, ...]:
    """At most `num` lengths for batches of rows of `lengths` [n]: multiples of 8 at equal shares of them,
    the last for the `longest`. One bucket is `limit` itself."""
    if num == 1:
        return (limit,)
    shares = np.arange(1, num) / num
    quantiles = np.quantile(lengths, shares, method="inverted_cdf")
    return tuple(sorted({-(-int(length) // 8) * 8 for length in (*quantiles, longest)}))


def _corpus(text: Text, stored: Stored) -> Corpus:
    lengths = {name: np.diff(split.offsets) for name, split in stored.splits.items()}
    longest = max(int(of_split.max()) for of_split in lengths.values())
    buckets = choose_buckets(lengths["train"], longest, limit=text.length, num=text.buckets)
    counts = np.bincount(lengths["train"], minlength=buckets[-1] + 1)
    return Corpus(
        tokenizer=stored.tokenizer,
        splits=stored.splits,
        label_values=stored.label_values,
        buckets=buckets,
        length_counts=tuple(counts.tolist()),
        is_grammar=text.path is None,
    )


def _tokenise(
    text: Text, tokenizer: Tokenizer | None
) -> tuple[Tokenizer, dict[str, list[tuple[np.ndarray, Example]]], dict[str, tuple[str, ...]], list[str]]:
    """(tokenizer, split -> (ids with EOS, example) of the texts kept, label values, notes)."""
    examples = read(text.path, column=text.column, labels=text.labels)
    tokenizer = tokenizer or named(text.tokenizer).train(example.text for example in examples["train"])
    values, notes = _label_values(examples)
    kept: dict[str, list[tuple[np.ndarray, Example]]] = {}
    dropped: list[int] = []
    for split, of_split in examples.items():
        rows = _encode(tokenizer, of_split)
        kept[split] = [row for row in rows if len(row[0]) <= text.length]
        too_long = [len(ids) for ids, _ in rows if len(ids) > text.length]
        if not kept[split]:
            raise ValueError(
                f"all {len(rows)} texts of {split} are too long: they have {min(too_long)} to "
                f"{max(too_long)} tokens and text.length is {text.length}; raise text.length, "
                "or split the texts"
            )
        dropped += too_long
    if dropped:
        total = sum(map(len, examples.values()))
        notes.append(
            f"dropped {len(dropped)} of {total} texts, longer than text.length = {text.length} tokens (the "
            f"longest has {max(dropped)}); raise text.length to keep them"
        )
    return tokenizer, kept, values, notes + _unknown(text, tokenizer, kept)


def _encode(tokenizer: Tokenizer, examples: list[Example]) -> list[tuple[np.ndarray, Example]]:
    eos = np.asarray([tokenizer.eos], dtype=np.int32)
    rows = []
    for start in range(0, len(examples), _ENCODED_AT_ONCE):
        chunk = examples[start : start + _ENCODED_AT_ONCE]
        encoded = tokenizer.encode([example.text for example in chunk])
        rows += [(np.concatenate((ids, eos)), example) for ids, example in zip(encoded, chunk, strict=True)]
    return rows


def _label_values(examples: dict[str, list[Example]]) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """The values of each label, sorted, "none" last where some text has none; and what to warn of."""
    every = [example.labels for of_split in examples.values() for example in of_split]
    values: dict[str, tuple[str, ...]] = {}
    notes = []
    for name in sorted(set().union(*every)):
        found = {labels.get(name, "none") for labels in every}
        if len(found) > _MAX_VALUES:
            notes.append(f"the column {name!r} has {len(found)} values, more than {_MAX_VALUES}: not used as a label")
            continue
        values[name] = (*sorted(found - {"none"}), *sorted(found & {"none"}))
    return values, notes


def _unknown(text: Text, tokenizer: Tokenizer, kept: dict[str, list[tuple[np.ndarray, Example]]]) -> list[str]:
    """A warning for each split with more than 1 % unknown tokens, EOS not counted."""
    notes = []
    for split, rows in kept.items():
        ids = np.concatenate([row for row, _ in rows])
        share = 0.0 if tokenizer.unk is None else float(np.mean(ids[ids != tokenizer.eos] == tokenizer.unk))
        if share > _MAX_UNKNOWN:
            counted = text.tokenizer.startswith(("words", "characters"))
            remedy = f"lower N in text.tokenizer={text.tokenizer.split(':')[0]}:N" if counted else "choose another"
            notes.append(
                f"{share:.1%} of the tokens of {split} are unknown to the tokenizer {text.tokenizer}; {remedy}"
            )
    return notes
