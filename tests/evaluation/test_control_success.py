"""Success is counted by rules: derivations of the grammar's members, telling phrases of others, words for lengths."""

from pathlib import Path

import pytest

from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import classifier, keyword, length, regex
from jtextdiff.data.corpus import Corpus, Text, prepare
from jtextdiff.evaluation.control_success import Rules, success

FOODS = {"Japanese": "sushi", "Indian": "curry"}


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    rows = [f"they have {dish} {word},{food}" for food, dish in FOODS.items() for word in "abcdefghijklmnopqrstuvwxyz"]
    (tmp_path / "a.csv").write_text("text,food\n" + "\n".join(rows) + "\n")
    return prepare(
        Text(path=str(tmp_path / "a.csv"), tokenizer="words:1"), cache=tmp_path / "c", warn=lambda note: None
    )


def test_each_part_and_all_together(corpus: Corpus) -> None:
    control = classifier("food", "Japanese") + length(3) * 2
    texts = ["we have sushi", "we have curry", "sushi", "we have sushi and curry"]
    scores = success(Rules(corpus, [control]), [control] * 4, texts, "valid")
    assert {name: score["value"] for name, score in scores.items()} == {
        "control_success": 0.25,
        "control_success[food=Japanese]": 0.5,
        "control_success[length=3]": 0.5,
    }
    assert scores["control_success[food=Japanese]"]["real_valid"] == pytest.approx(0.5, abs=0.5)
    assert "food 100.0%" in scores["control_success"]["kind"]


def test_not_and_or(corpus: Corpus) -> None:
    one, two = classifier("food", "Japanese"), classifier("food", "Indian")
    rules = Rules(corpus, [one + two])
    assert rules.met(~one, "we have curry") and not rules.met(~one, "we have sushi")
    assert rules.met(one | two, "sushi") and rules.met(classifier("food", "Japanese", "Indian"), "curry")


def test_rules_are_looked_up_in_the_text(corpus: Corpus) -> None:
    rules = Rules(corpus, [keyword("we have")])
    assert rules.met(keyword("we have"), "today we have sushi") and not rules.met(keyword("we have"), "we haven't")
    assert rules.met(regex("[0-9]+"), "open 24 hours") and not rules.met(regex("[0-9]+"), "open 24h")
    assert rules.met(length(2), "we have")


def test_a_label_that_the_text_lacks_is_refused(corpus: Corpus) -> None:
    with pytest.raises(UserError, match="no label 'mood'; it has: food"):
        Rules(corpus, [classifier("mood", "good")])
