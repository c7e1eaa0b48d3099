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


def corpus_of(folder: Path, tokenizer: str) -> Corpus:
    (folder / "b.txt").write_text("米饭 很好吃 ！\n面条 很好吃 ！\n")
    text = Text(path=str(folder / "b.txt"), tokenizer=tokenizer)
    return prepare_corpus(text, cache=folder / "c", warn=lambda note: None)


def test_phrases_are_looked_up_in_the_characters_of_chinese(corpus: Corpus) -> None:
    satisfied = checker(corpus, keyword("好吃")).satisfied
    assert satisfied(keyword("好吃"), "米饭很好吃。") and not satisfied(keyword("好吃"), "好难吃")
    assert satisfied(keyword("iPhone 很"), "这iPhone很好") and not satisfied(keyword("Phone"), "这iPhone很好")


@pytest.mark.parametrize(
    ("tokenizer", "text", "num", "matching", "other"),
    [
        ("characters:1", "很好吃OK！", 6, "[好妙]", "很好吃"),
        ("characters:1", "很[UNK]吃！", 4, "吃", "很.+"),
        ("words:1", "面条 很好吃 ！", 3, "很好.", "好"),
        ("words:1", "面条 [UNK] ！", 3, "面条", ".好."),
        ("byte_pairs:259", "好a", 4, "a", "好"),
    ],
)
def test_length_and_regex_are_of_tokens(
    tmp_path: Path, tokenizer: str, text: str, num: int, matching: str, other: str
) -> None:
    """As the controls are, and the model writes them: whatever the words of the text are."""
    satisfied = checker(corpus_of(tmp_path, tokenizer), length(num)).satisfied
    assert satisfied(length(num), text) and not satisfied(length(num + 1), text)
    assert satisfied(regex(matching), text) and not satisfied(regex(other), text)


def test_phrases_of_chinese_are_runs_of_its_characters(tmp_path: Path) -> None:
    rows = [f"{noun}{word},{mood}" for noun in "米面饭菜肉鱼虾蟹" for word, mood in (("很好", "good"), ("太差", "bad"))]
    (tmp_path / "a.csv").write_text("text,mood\n" + "\n".join(rows * 4) + "\n")
    text = Text(path=str(tmp_path / "a.csv"), tokenizer="characters:1")
    corpus = prepare_corpus(text, cache=tmp_path / "c", warn=lambda note: None)
    assert phrase_judge(corpus, "mood", "valid").label_of(["汤很好", "汤太差"]) == ["good", "bad"]
