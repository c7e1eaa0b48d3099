"""Scores of edits: success for each target value, among the texts that are to have it."""

from collections.abc import Sequence

import pytest

from jtextdiff.evaluation.edits import EditTask, edit_scores
from jtextdiff.evaluation.label_judges import LabelJudge

TEXTS = [
    "good food is here .",
    "good staff is here .",
    "bad food is here .",
    "bad staff is here .",
    "bad place to be .",
]
TARGETS = ["bad", "bad", "good", "good", "good"]


def first_word(texts: Sequence[str]) -> list[str | None]:
    return [text.split()[0] for text in texts]


def test_success_is_given_for_each_target_of_its_own_texts() -> None:
    task = EditTask(label="mood", texts=TEXTS, targets=TARGETS)
    edits = ["bad food is here .", "bad staff is here .", "good food is here .", *TEXTS[3:]]
    scores = edit_scores(edits, task, LabelJudge(label_of=first_word, how="the first word"), None, None)
    values = {name: score["value"] for name, score in scores.items()}
    assert values["success"] == pytest.approx(3 / 5) and values["copies"] == pytest.approx(2 / 5)
    assert values["success_to_bad"] == 1 and values["success_to_good"] == pytest.approx(1 / 3)
    assert [scores[f"success_to_{target}"]["n"] for target in ("bad", "good")] == [2, 3]


def test_copies_have_all_of_the_source_and_no_success() -> None:
    task = EditTask(label="mood", texts=TEXTS, targets=TARGETS)
    scores = edit_scores(TEXTS, task, LabelJudge(label_of=first_word, how="the first word"), None, None)
    assert scores["success"]["value"] == 0 and scores["copies"]["value"] == 1
    assert scores["source_bleu"]["value"] == pytest.approx(100)
