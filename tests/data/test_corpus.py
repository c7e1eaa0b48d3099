"""Prepared text: no text is dropped without a warning, and the cache changes nothing but the time."""

import json
from pathlib import Path

import numpy as np
import pytest

from jtextdiff.data import corpus as corpora
from jtextdiff.data.cache import store
from jtextdiff.data.corpus import Text, choose_buckets, prepare_corpus
from jtextdiff.data.grammar.restaurants import grammar
from jtextdiff.data.text_files import Example
from jtextdiff.data.tokenizer_builders import BytePairs, Characters

TRAIN = [{"text": " ".join(["word"] * n), "fields": {"size": f"size{n % 3}"}} for n in range(1, 31)]
VALID = [{"text": "word word", "fields": {}}, {"text": "word " * 9, "fields": {"size": "size0"}}]


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("JTEXTDIFF_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "source"
    folder.mkdir()
    for name, records in {"train": TRAIN, "valid": VALID}.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return folder


def _refuse(message):
    raise AssertionError(f"warned: {message}")


def _text(source, **fields):
    return Text(path=str(source), tokenizer="words:1", **fields)


def _assert_same(actual, expected):
    assert actual.label_values == expected.label_values
    assert (actual.buckets, actual.length_counts) == (expected.buckets, expected.length_counts)
    assert actual.tokenizer.fingerprint() == expected.tokenizer.fingerprint()
    for name, split in actual.splits.items():
        np.testing.assert_array_equal(split.tokens, expected.splits[name].tokens)
        np.testing.assert_array_equal(split.offsets, expected.splits[name].offsets)
        assert split.texts() == expected.splits[name].texts()
        for label, values in split.labels.items():
            np.testing.assert_array_equal(values, expected.splits[name].labels[label])


def _forbid_reading(monkeypatch):
    monkeypatch.setattr(corpora, "read_examples", lambda *_, **__: _refuse("read the source again"))


def test_every_text_has_its_eos_and_labels(source):
    corpus = prepare_corpus(_text(source), warn=_refuse)
    train = corpus.splits["train"]
    assert len(train) == 30 and len(corpus.splits["valid"]) == 2
    for row, record in enumerate(TRAIN):
        ids = train.tokens[train.offsets[row] : train.offsets[row + 1]]
        assert ids[-1] == corpus.tokenizer.eos and corpus.tokenizer.eos not in ids[:-1]
        assert corpus.tokenizer.decode(ids) == record["text"]
        assert corpus.label_values["size"][train.labels["size"][row]] == record["fields"]["size"]
    assert train.texts([3, 1]) == [TRAIN[3]["text"], TRAIN[1]["text"]]
    assert isinstance(train.tokens, np.memmap) and train.tokens.dtype == np.uint16
    assert corpus.grammar is None


def test_a_missing_label_is_none(source):
    corpus = prepare_corpus(_text(source), warn=_refuse)
    assert corpus.label_values == {"size": ("size0", "size1", "size2", "none")}
    assert corpus.splits["valid"].labels["size"].tolist() == [3, 0]


def test_no_path_is_the_grammar(source, monkeypatch):
    del source  # for its cache alone
    examples = {"train": [Example("a b", {}), Example("b", {})], "valid": [Example("a", {})]}
    monkeypatch.setattr(corpora, "read_examples", lambda *_, **__: examples)
    corpus = prepare_corpus(Text(tokenizer="words:1"), warn=_refuse)
    assert corpus.grammar is grammar() and corpus.splits["train"].texts() == ["a b", "b"]


def test_length_counts_count_train_with_eos(source):
    corpus = prepare_corpus(_text(source), warn=_refuse)
    assert len(corpus.length_counts) == corpus.buckets[-1] + 1
    assert [n for n, count in enumerate(corpus.length_counts) if count] == list(range(2, 32))
    assert sum(corpus.length_counts) == 30


@pytest.mark.parametrize(("num", "expected"), [(1, (64,)), (2, (16, 32)), (3, (16, 24, 32)), (30, (8, 16, 24, 32))])
def test_buckets_are_multiples_of_eight_up_to_the_longest(num, expected):
    assert choose_buckets(np.arange(2, 32), 31, limit=64, num=num) == expected


def test_a_cache_hit_equals_the_miss(source, monkeypatch):
    uncached = prepare_corpus(_text(source), warn=_refuse)
    _forbid_reading(monkeypatch)
    _assert_same(prepare_corpus(_text(source), warn=_refuse), uncached)
    rebucketed = prepare_corpus(_text(source, buckets=1), warn=_refuse)  # does not change what is stored
    assert rebucketed.buckets == (64,) and len(rebucketed.length_counts) == 65


def test_whatever_changes_the_tokens_misses_the_cache(source):
    def folders():
        return len(list((source.parent / "cache").iterdir()))

    prepare_corpus(_text(source), warn=_refuse)
    for number, text in enumerate(
        (
            _text(source, length=40),
            Text(path=str(source), tokenizer="words:2"),
            _text(source, labels="size=s"),
        ),
        start=2,
    ):
        prepare_corpus(text, warn=_refuse)
        assert folders() == number
    with (source / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write('\n{"text": "other"}')
    prepare_corpus(_text(source), warn=_refuse)
    assert folders() == 5
    prepare_corpus(_text(source), tokenizer=Characters(min_count=1).train(["word other"]), warn=lambda _: None)
    assert folders() == 6


def test_a_given_tokenizer_is_used(source):
    tokenizer = BytePairs(vocab_size=259).train(["else"])
    corpus = prepare_corpus(_text(source, length=200), tokenizer=tokenizer, warn=_refuse)
    assert corpus.tokenizer.fingerprint() == tokenizer.fingerprint()
    assert corpus.length_counts[len("word") + 1] == 1


def test_half_written_and_damaged_caches_are_not_used(source):
    intact = prepare_corpus(_text(source), warn=_refuse)
    (folder,) = (source.parent / "cache").iterdir()
    metadata = folder / "corpus.json"
    content = metadata.read_text(encoding="utf-8")
    for damage in (
        metadata.unlink,
        lambda: metadata.write_text(content[: len(content) // 2], encoding="utf-8"),
        (folder / "train.tokens.npy").unlink,
        lambda: np.save(folder / "train.tokens.npy", intact.splits["train"].tokens[:-1]),
        (folder / "tokenizer" / "tokenizer.json").unlink,
    ):
        damage()
        _assert_same(prepare_corpus(_text(source), warn=_refuse), intact)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]  # nothing left behind


def test_a_failure_while_writing_leaves_nothing(source, monkeypatch):
    monkeypatch.setattr("jtextdiff.data.cache._publish", lambda *_: _refuse("interrupted"))
    with pytest.raises(AssertionError, match="interrupted"):
        prepare_corpus(_text(source), warn=_refuse)
    assert not list((source.parent / "cache").iterdir())


def test_of_two_writers_the_first_wins(source, monkeypatch):
    first_inode = None

    def store_twice(folder, *contents):
        nonlocal first_inode
        store(folder, *contents)
        first_inode = (folder / "corpus.json").stat().st_ino
        store(folder, *contents)

    monkeypatch.setattr(corpora, "store", store_twice)
    prepare_corpus(_text(source), warn=_refuse)
    (folder,) = (source.parent / "cache").iterdir()
    assert (folder / "corpus.json").stat().st_ino == first_inode


def test_too_long_texts_are_dropped_with_a_warning_each_time(source):
    expected = "dropped 11 of 32 texts, longer than text.length = 20 tokens (the longest has 31)"
    for _ in range(2):
        notes = []
        corpus = prepare_corpus(_text(source, length=20), warn=notes.append)
        assert len(notes) == 1 and expected in notes[0] and "raise text.length" in notes[0]
        assert len(corpus.splits["train"]) == 19 and corpus.buckets[-1] == 24


def test_all_too_long_is_refused(source):
    with pytest.raises(
        ValueError, match=r"all 2 texts of valid are too long: they have 3 to 10 tokens and text.length is 2"
    ):
        prepare_corpus(_text(source, length=2), warn=_refuse)


@pytest.mark.parametrize(
    ("rare", "share", "remedy"),
    [(2, "4.4%", "lower N in text.tokenizer=words:N"), (1, "2.2%", "lower N in text.tokenizer=words:N"), (0, None, "")],
)
def test_unknown_tokens_above_one_percent_are_warned_of(source, rare, share, remedy):
    words = ["b"] * rare + ["a"] * (45 - rare)
    (source / "train.txt").write_text("\n".join(words), encoding="utf-8")
    (source / "train.jsonl").unlink()
    (source / "valid.jsonl").write_text('{"text": "a"}', encoding="utf-8")
    notes = []
    prepare_corpus(Text(path=str(source), tokenizer="words:3"), warn=notes.append)
    if share is None:
        assert notes == []
    else:
        (note,) = notes
        assert note.startswith(f"{share} of the tokens of train are unknown") and remedy in note


def test_a_column_of_ids_is_not_a_label(source):
    records = [{"text": f"word {i % 5}", "id": i, "kind": i % 2} for i in range(300)]
    (source / "train.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    notes = []
    corpus = prepare_corpus(_text(source), warn=notes.append)
    assert "id" not in corpus.label_values and corpus.label_values["kind"] == ("0", "1", "none")
    assert any("the column 'id' has 301 values" in note for note in notes)


def test_misuse_is_refused(source, monkeypatch):
    with pytest.raises(ValueError, match="text.length is 1 and text.buckets 3"):
        prepare_corpus(_text(source, length=1), warn=_refuse)
    blocker = source / "train.jsonl"
    with pytest.raises(ValueError, match="cannot write to .*set JTEXTDIFF_CACHE"):
        prepare_corpus(_text(source), cache=Path(blocker), warn=_refuse)


def test_some_rows_of_a_split_are_a_split(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,mood\n" + "".join(f"{'la ' * n}end,{'ab'[n % 2]}\n" for n in range(1, 30)))
    text = Text(path=str(tmp_path / "a.csv"), tokenizer="words:1")
    train = prepare_corpus(text, cache=tmp_path / "c", warn=str).splits["train"]
    rows = np.asarray([3, 4, 9])
    selected = train.select(rows)
    assert selected.texts() == train.texts(rows) and len(selected) == 3
    np.testing.assert_array_equal(selected.labels["mood"], np.asarray(train.labels["mood"])[rows])
    for i, row in enumerate(rows):
        ids = selected.tokens[selected.offsets[i] : selected.offsets[i + 1]]
        np.testing.assert_array_equal(ids, train.tokens[train.offsets[row] : train.offsets[row + 1]])


def test_words_for_values_that_do_not_occur_are_said_each_time(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("text,label\n" + "".join(f"text {n},{n % 2}\n" for n in range(40)))
    text = Text(path=str(tmp_path / "x.csv"), tokenizer="words:1", labels="label=mood(0=bad,yes=good)")
    for _ in range(2):
        notes: list[str] = []
        prepare_corpus(text, cache=tmp_path / "c", warn=notes.append)
        assert [note for note in notes if "no label has: yes" in note]


CHINESE = [
    f"{noun}{verdict},送餐{speed}" for noun in "米面饭菜肉" for verdict in ("很好吃", "太难吃") for speed in "快慢"
]
ENGLISH = [f"word{n} is a word" for n in range(40)]


@pytest.mark.parametrize(
    ("texts", "given", "advised"),
    [
        (CHINESE, "words:1", "characters:2"),
        (CHINESE, "words:10", "characters:2"),
        (ENGLISH, "words:2", "byte_pairs:8000"),
        (ENGLISH, "words:1", "byte_pairs:8000"),
        (ENGLISH, "characters:40", "byte_pairs:8000"),
    ],
)
def test_the_advice_for_unknown_tokens_helps(tmp_path: Path, texts: list[str], given: str, advised: str) -> None:
    """Whether it comes with a warning or with an error, and no text follows it into another."""
    (tmp_path / "train.txt").write_text("\n".join(texts))
    (tmp_path / "valid.txt").write_text("\n".join(text[2:] + text[:2] for text in texts))
    notes: list[str] = []
    prepare = lambda tokenizer: prepare_corpus(
        Text(path=str(tmp_path), tokenizer=tokenizer), cache=tmp_path / "c", warn=notes.append
    )
    try:
        prepare(given)
    except ValueError as error:
        notes.append(str(error))
    assert notes and all(f"text.tokenizer={advised}" in note for note in notes)
    assert any("lower N" in note for note in notes) == (texts is ENGLISH and given != "words:1")
    notes.clear()
    prepare(advised)
    assert notes == []
