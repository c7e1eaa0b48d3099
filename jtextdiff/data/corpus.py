"""The corpus: tokenised splits, labels and length buckets, prepared once and cached."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jtextdiff.data.cache import Rows, Split, StoredCorpus, folder_for, open_stored, store
from jtextdiff.data.grammar import restaurants
from jtextdiff.data.grammar.pcfg import Grammar
from jtextdiff.data.sources import fingerprint, read_examples
from jtextdiff.data.text_files import Example
from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.data.tokenizer_builders import Pretrained, remedy_for_unknown, tokenizer_builder

_MAX_VALUES = 256  # a column with more values is an id or a text, not a label
_MAX_UNKNOWN = 0.01
_REUSED_REMEDY = "a run keeps its tokenizer: train one of its own for this text"
_ENCODE_CHUNK = 10_000  # texts per call of the tokenizer


@dataclass(frozen=True, kw_only=True)
class Text:
    """The text of a config.

    `path`, `labels`, `column`: see `sources.read_examples`. `tokenizer`: see `tokenizer_builders.tokenizer_builder`.
    `length`: tokens of the longest text in the corpus, EOS included; longer texts are dropped.
    `buckets`: the number of different lengths of batches.
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
    from 0 to the last bucket. `grammar`: the embedded grammar if the texts are its sentences; not stored in the cache.
    """

    tokenizer: Tokenizer
    splits: dict[str, Split]
    label_values: dict[str, tuple[str, ...]]
    buckets: tuple[int, ...]
    length_counts: tuple[int, ...]
    grammar: Grammar | None

    def digests(self, label: str = "") -> dict[str, str]:
        """Returns the digest of each split, used on resuming to detect that the text or the label has changed."""
        return {name: split.digest(label) for name, split in self.splits.items()}

    def labels_of(self, split: str, label: str, rows: NDArray[np.integer] | None = None) -> list[str]:
        """Returns the value names of a label, of the texts `rows` of a split or of all of them."""
        ids = self.splits[split].labels[label]
        return [self.label_values[label][value] for value in (ids if rows is None else ids[rows])]


def prepare_corpus(
    text: Text,
    *,
    tokenizer: Tokenizer | None = None,
    cache: Path | None = None,
    warn: Callable[[str], None],
) -> Corpus:
    """Returns the corpus of `text`, from the cache if it was prepared before.

    `tokenizer` replaces the one that `text` would train (when a run resumes). `cache` defaults to
    `cache.cache_root`. `warn` is called each time with notes on texts dropped as too long,
    unknown tokens above 1 %, and columns with too many values to be labels. Raises what `read_examples` and training
    the tokenizer raise, and ValueError if no text is short enough.
    """
    if text.length < 2 or text.buckets < 1:
        raise ValueError(
            f"text.length is {text.length} and text.buckets {text.buckets}; expected a length of at least 2, "
            "EOS included, and at least 1 bucket"
        )
    builder = tokenizer_builder(text.tokenizer)
    if tokenizer is None and isinstance(builder, Pretrained):
        tokenizer = builder.train()
    tokenizer_key = repr(builder) if tokenizer is None else tokenizer.fingerprint()
    key = repr((fingerprint(text.path), tokenizer_key, text.length, text.labels, text.column))
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
    """Returns at most `num` lengths for batches of rows of `lengths` [n]: quantiles at equal shares, rounded up to
    multiples of 8; the last holds the `longest`. One bucket is `limit` itself."""
    if num == 1:
        return (limit,)
    shares = np.arange(1, num) / num
    quantiles = np.quantile(lengths, shares, method="inverted_cdf")
    return tuple(sorted({-(-int(length) // 8) * 8 for length in (*quantiles, longest)}))


def _corpus(text: Text, stored: StoredCorpus) -> Corpus:
    lengths = {name: np.diff(split.offsets) for name, split in stored.splits.items()}
    longest = max(int(split_lengths.max()) for split_lengths in lengths.values())
    buckets = choose_buckets(lengths["train"], longest, limit=text.length, num=text.buckets)
    counts = np.bincount(lengths["train"], minlength=buckets[-1] + 1)
    return Corpus(
        tokenizer=stored.tokenizer,
        splits=stored.splits,
        label_values=stored.label_values,
        buckets=buckets,
        length_counts=tuple(counts.tolist()),
        grammar=restaurants.grammar() if text.path is None else None,
    )


def _tokenise(
    text: Text, tokenizer: Tokenizer | None
) -> tuple[Tokenizer, dict[str, Rows], dict[str, tuple[str, ...]], list[str]]:
    """Returns (tokenizer, split -> rows that are short enough, label values, notes)."""
    notes: list[str] = []
    examples = read_examples(text.path, column=text.column, labels=text.labels, warn=notes.append)
    builder = tokenizer_builder(text.tokenizer)
    reuses_tokenizer = tokenizer is not None and not isinstance(builder, Pretrained)
    tokenizer = tokenizer or builder.train([example.text for example in examples["train"]])
    label_values, notes_on_labels = _label_values(examples)
    notes += notes_on_labels
    splits: dict[str, Rows] = {}
    dropped: list[int] = []
    for name, split_examples in examples.items():
        rows = _encode(tokenizer, split_examples)
        splits[name] = [row for row in rows if len(row[0]) <= text.length]
        too_long = [len(ids) for ids, _ in rows if len(ids) > text.length]
        if not splits[name]:
            raise ValueError(
                f"all {len(rows)} texts of {name} are too long: they have {min(too_long)} to "
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
    return tokenizer, splits, label_values, notes + _notes_on_unknown(text, tokenizer, splits, reuses_tokenizer)


def _encode(tokenizer: Tokenizer, examples: list[Example]) -> Rows:
    eos = np.asarray([tokenizer.eos], dtype=np.int32)
    rows = []
    for start in range(0, len(examples), _ENCODE_CHUNK):
        chunk = examples[start : start + _ENCODE_CHUNK]
        encoded = tokenizer.encode([example.text for example in chunk])
        rows += [(np.concatenate((ids, eos)), example) for ids, example in zip(encoded, chunk, strict=True)]
    return rows


def _label_values(examples: dict[str, list[Example]]) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Returns the values of each label, sorted, "none" last where some text has none; and notes to warn about."""
    label_dicts = [example.labels for split_examples in examples.values() for example in split_examples]
    label_values: dict[str, tuple[str, ...]] = {}
    notes = []
    for name in sorted(set().union(*label_dicts)):
        values = {labels.get(name, "none") for labels in label_dicts}
        if len(values) > _MAX_VALUES:
            notes.append(f"the column {name!r} has {len(values)} values, more than {_MAX_VALUES}: not used as a label")
            continue
        label_values[name] = (*sorted(values - {"none"}), *sorted(values & {"none"}))
    return label_values, notes


def _notes_on_unknown(text: Text, tokenizer: Tokenizer, splits: dict[str, Rows], reuses_tokenizer: bool) -> list[str]:
    """Returns a warning for each split with more than 1 % unknown tokens, EOS not counted.

    `reuses_tokenizer`: it is that of a run, and not made for this text.
    """
    notes = []
    for name, rows in splits.items():
        ids = np.concatenate([row for row, _ in rows])
        share = 0.0 if tokenizer.unk is None else float(np.mean(ids[ids != tokenizer.eos] == tokenizer.unk))
        if share > _MAX_UNKNOWN:
            texts = [example.text for _, example in rows[:_ENCODE_CHUNK]]
            remedy = (
                _REUSED_REMEDY if reuses_tokenizer else remedy_for_unknown(tokenizer_builder(text.tokenizer), texts)
            )
            notes.append(f"{share:.1%} of the tokens of {name} are unknown to the tokenizer {text.tokenizer}; {remedy}")
    return notes
