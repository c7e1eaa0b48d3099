"""Texts to edit: those that have every label, each with the next value of each."""

import pytest

from jtextdiff.cli.errors import UserError
from jtextdiff.data.corpus import Corpus, Text, prepare_corpus
from jtextdiff.evaluation.editing.tasks import edit_task

ROWS = [
    '{"text": "a bad soup", "mood": "bad", "topic": "soup", "tag+x": "old"}',
    '{"text": "a good soup", "mood": "good", "topic": "soup", "tag+x": "new"}',
    '{"text": "a good rice", "mood": "good", "topic": "rice"}',
    '{"text": "a good dish", "mood": "good"}',
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("texts")
    for split in ("train", "valid"):
        (folder / f"{split}.jsonl").write_text("\n".join(ROWS) + "\n", encoding="utf-8")
    return prepare_corpus(Text(path=str(folder), tokenizer="words:0", length=8), warn=lambda note: None)


def test_several_labels_change_at_once_in_texts_that_have_all(corpus: Corpus) -> None:
    task = edit_task(corpus, "valid", "mood+topic", 512)
    assert task.labels == ("mood", "topic") and task.label == "mood+topic"
    assert task.texts == ["a bad soup", "a good soup", "a good rice"]
    assert task.targets == [("good", "rice"), ("bad", "rice"), ("bad", "soup")]
    control = task.control(("good", "rice"))
    assert [(part.name, part.values) for part in control.parts] == [("mood", ("good",)), ("topic", ("rice",))]


def test_a_label_may_have_a_plus_in_its_name(corpus: Corpus) -> None:
    task = edit_task(corpus, "valid", "tag+x", 512)
    assert task.labels == ("tag+x",) and task.targets == [("new",), ("old",)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mood+food", "no label 'food'; it has: mood, tag\\+x, topic"),
        ("mood+", "expected a label, or several such as food\\+sentiment"),
        ("", "--edits '': expected a label"),
        ("mood+mood", "--edits mood\\+mood: the same label stands there twice"),
    ],
)
def test_unknown_and_repeated_labels_are_refused(corpus: Corpus, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        edit_task(corpus, "valid", name, 512)
