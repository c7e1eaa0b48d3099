"""Success is judged by derivations of the grammar, phrases of other texts, and by counting and comparing words."""

from pathlib import Path

import pytest

from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import Control, classifier, keyword, length, regex
from jtextdiff.data.corpus import Corpus, Text, prepare_corpus
from jtextdiff.evaluation.control_success import ControlChecker, control_checker, success
from jtextdiff.evaluation.label_judges import phrase_judge

FOODS = {"Japanese": "sushi", "Indian": "curry"}


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    rows = [f"they have {dish} {word},{food}" for food, dish in FOODS.items() for word in "abcdefghijklmnopqrstuvwxyz"]
    (tmp_path / "a.csv").write_text("text,food\n" + "\n".join(rows) + "\n")
    text = Text(path=str(tmp_path / "a.csv"), tokenizer="words:1")
    return prepare_corpus(text, cache=tmp_path / "c", warn=lambda note: None)


def checker(corpus: Corpus, control: Control) -> ControlChecker:
    return control_checker(corpus, [control], lambda label: phrase_judge(corpus, label, "valid"))


def test_each_part_and_all_together(corpus: Corpus) -> None:
    control = classifier("food", "Japanese") + length(3) * 2
    texts = ["we have sushi", "we have curry", "sushi", "we have sushi and curry"]
    scores = success(checker(corpus, control), [control] * 4, texts, "valid")
    assert {name: score["value"] for name, score in scores.items()} == {
        "control_success": 0.25,
        "control_success[food=Japanese]": 0.5,
        "control_success[length=3]": 0.5,
    }
    assert scores["control_success[food=Japanese]"]["real_valid"] == pytest.approx(0.5, abs=0.5)
    kind = scores["control_success"]["kind"]
    assert kind.startswith("food by phrases of train") and "right for 100.0% of valid" in kind


def test_not_and_or(corpus: Corpus) -> None:
    japanese, indian = classifier("food", "Japanese"), classifier("food", "Indian")
    satisfied = checker(corpus, japanese + indian).satisfied
    assert satisfied(~japanese, "we have curry") and not satisfied(~japanese, "we have sushi")
    assert satisfied(japanese | indian, "sushi") and satisfied(classifier("food", "Japanese", "Indian"), "curry")


def test_controls_without_a_label_are_looked_up_in_the_text(corpus: Corpus) -> None:
    satisfied = checker(corpus, keyword("we have")).satisfied
    assert satisfied(keyword("we have"), "today we have sushi") and not satisfied(keyword("we have"), "we haven't")
    assert satisfied(regex("[0-9]+"), "open 24 hours") and not satisfied(regex("[0-9]+"), "open 24h")
    assert satisfied(length(2), "we have")


def test_a_label_that_the_text_lacks_is_refused(corpus: Corpus) -> None:
    with pytest.raises(UserError, match="no label 'mood'; it has: food"):
        checker(corpus, classifier("mood", "good"))
