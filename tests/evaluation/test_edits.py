"""Scores of edits: success for each target value, among the texts that are to have it."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from jtextdiff.evaluation.editing.scores import EditJudges, edit_scores
from jtextdiff.evaluation.editing.tasks import EditTask
from jtextdiff.evaluation.label_judges import LabelJudge

TEXTS = [
    "good food is here .",
    "good staff is here .",
    "bad food is here .",
    "bad staff is here .",
    "bad place to be .",
]
TARGETS = [("bad",), ("bad",), ("good",), ("good",), ("good",)]


def first_word(texts: Sequence[str]) -> list[str | None]:
    return [text.split()[0] for text in texts]


def test_success_is_given_for_each_target_of_its_own_texts() -> None:
    task = EditTask(labels=("mood",), texts=TEXTS, targets=TARGETS)
    edits = ["bad food is here .", "bad staff is here .", "good food is here .", *TEXTS[3:]]
    scores = edit_scores(edits, task, EditJudges([LabelJudge(label_of=first_word, how="the first word")]))
    values = {name: score["value"] for name, score in scores.items()}
    assert values["success"] == pytest.approx(3 / 5) and values["copies"] == pytest.approx(2 / 5)
    assert values["success_to_bad"] == 1 and values["success_to_good"] == pytest.approx(1 / 3)
    assert [scores[f"success_to_{target}"]["n"] for target in ("bad", "good")] == [2, 3]


def test_copies_have_all_of_the_source_and_no_success() -> None:
    task = EditTask(labels=("mood",), texts=TEXTS, targets=TARGETS)
    scores = edit_scores(TEXTS, task, EditJudges([LabelJudge(label_of=first_word, how="the first word")]))
    assert scores["success"]["value"] == 0 and scores["copies"]["value"] == 1
    assert scores["source_bleu"]["value"] == pytest.approx(100)


def second_word(texts: Sequence[str]) -> list[str | None]:
    return [text.split()[1] for text in texts]


def test_an_edit_of_two_labels_succeeds_where_both_have_their_values() -> None:
    task = EditTask(labels=("mood", "topic"), texts=TEXTS[:4], targets=[(mood, "staff") for (mood,) in TARGETS[:4]])
    judges = EditJudges([LabelJudge(first_word, "the first word"), LabelJudge(second_word, "the second word")])
    edits = ["bad staff is here .", "bad food is here .", "bad staff is here .", "good staff is here ."]
    scores = edit_scores(edits, task, judges)
    values = {name: score["value"] for name, score in scores.items()}
    assert values["success"] == 2 / 4
    assert values["success_of_mood"] == values["success_of_topic"] == 3 / 4
    assert scores["success"]["kind"] == "the first word; the second word"
    assert not any(name.startswith("success_to") for name in scores)


def test_what_changes_need_not_be_kept_and_all_else_must() -> None:
    """A stand-in for the grammar: a sentence begins with its mood and its topic, and its third word is the tense."""

    def parse(words: list[str]) -> Any:
        fields = dict(zip(("mood", "topic", "tense"), words, strict=False))
        return None if words[0] == "no" else SimpleNamespace(fields=fields)

    task = EditTask(labels=("mood", "topic"), texts=TEXTS[:3], targets=[("bad", "staff")] * 3)
    of_labels = [LabelJudge(first_word, "the first word"), LabelJudge(second_word, "the second word")]
    grammar: Any = SimpleNamespace(parse=parse)
    edits = ["bad staff is here .", "bad staff was here .", "no staff is here ."]
    scores = edit_scores(edits, task, EditJudges(of_labels, grammar=grammar))
    assert scores["members"]["value"] == pytest.approx(2 / 3)
    assert scores["kept"]["value"] == 1 / 2 and scores["kept"]["n"] == 2
