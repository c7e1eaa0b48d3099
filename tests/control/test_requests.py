"""Wishes are what texts themselves are, or what a file says, line by line."""

from pathlib import Path

import pytest

from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import classifier, length, spelled
from jtextdiff.control.requests import Wish, wishes
from jtextdiff.data.corpus import Corpus, Text, prepare
from jtextdiff.data.grammar.restaurants import grammar, sentences
from jtextdiff.evaluation.control_success import Rules, conditional_excess, followed, success
from jtextdiff.evaluation.syntax_match import met


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    from jtextdiff.data import sources

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "_GRAMMAR", {"train": (600, 0), "valid": (40, 1)})
        return prepare(Text(length=32), cache=Path(tmp_path_factory.mktemp("cache")), warn=lambda note: None)


@pytest.mark.parametrize("names", ["food", "pos", "tree", "span", "length", "food*0.5+length", "sentiment+pos"])
def test_a_text_is_what_it_is_asked_to_be(corpus: Corpus, names: str) -> None:
    split = corpus.splits["valid"]
    texts = split.texts(split.evenly(20))
    wished = wishes(f"{names}:20", corpus, "valid")
    controls = [each.control for each in wished]
    assert len(wished) == 20 and all(control is not None for control in controls)
    scores = success(Rules(corpus, controls), controls, texts, "valid")
    assert scores["control_success"]["value"] == 1.0 and scores["control_success"]["n"] == 20
    assert scores["control_success"]["real_valid"] < 1.0
    if names.startswith("food*"):
        assert controls[0].weights == (0.5, 1.0) and "control_success[length]" in scores


def test_texts_drawn_given_an_attribute_have_no_excess(corpus: Corpus) -> None:
    """Real texts against others of the same law: 0 within five standard errors; unlikelier ones are told apart."""
    real, fresh = ([one.text for one in sentences(3_000, seed=seed)] for seed in (0, 8))
    controls, samples = [], []
    for text in fresh:
        member = grammar().parse(text.split())
        assert member is not None
        controls.append(classifier("food", member.fields["food"]).as_sum())
        samples.append(text)
    found = conditional_excess(controls, samples, real)["conditional_excess"]
    assert abs(found["value"]) < 5 * found["se"] and found["n"] == len(set(controls))
    long = [n for n, text in enumerate(samples) if len(text.split()) > 24]
    found = conditional_excess([controls[n] for n in long], [samples[n] for n in long], real)["conditional_excess"]
    assert found["value"] > 5
    assert conditional_excess([length(5).as_sum()] * 3, samples[:3], real) == {}


def test_a_gap_is_the_middle_of_a_text(corpus: Corpus) -> None:
    for (control, template), text in zip(
        wishes("gap:40", corpus, "valid"), corpus.splits["valid"].texts(), strict=True
    ):
        words = template.split()
        assert control is None and len(words) == len(text.split()) and 0 < words.count("[MASK]") < len(words)
        assert all(one in (other, "[MASK]") for one, other in zip(words, text.split(), strict=True))


def test_a_file_is_read_line_by_line(corpus: Corpus, tmp_path: Path) -> None:
    file = tmp_path / "targets.jsonl"
    file.write_text('{"control": "food=Thai"}\n\n{"control": ["food=Thai*2", "length=9"]}\n{"template": "a [MASK]"}\n')
    assert wishes(str(file), corpus, "valid") == (
        Wish(classifier("food", "Thai").as_sum()),
        Wish(spelled("food=Thai*2") + length(9)),
        Wish(None, "a [MASK]"),
    )
    for line in ("food=Thai", '{"food": "Thai"}', '{"control": 3}', "{}", '{"control": [1]}', "[]"):
        file.write_text(f'{{"control": "food=Thai"}}\n{line}\n')
        with pytest.raises(UserError, match=r"targets.jsonl:2: expected"):
            wishes(str(file), corpus, "valid")
    file.write_text("\n")
    with pytest.raises(UserError, match="is empty"):
        wishes(str(file), corpus, "valid")


def test_targets_of_several_kinds_are_each_scored_as_what_they_are(corpus: Corpus) -> None:
    """Parts in another order are not mixed up, and values that no sentence has together have no law to be far from."""
    mixed = [spelled("food=Thai") + length(3), length(2) + classifier("food", "Thai")]
    scores = success(Rules(corpus, mixed), mixed, ["we are here", "we are"], "valid")
    assert set(scores) == {"control_success"}
    twice = [spelled("keyword=cheap") + spelled("keyword=pub")] * 2 + [spelled("keyword=a") + spelled("keyword=b")]
    scores = success(Rules(corpus, twice), twice, ["cheap pub", "cheap", "a"], "valid")
    assert (
        scores["control_success[keyword 1]"]["value"] == 1.0 and scores["control_success[keyword 2]"]["value"] == 0.25
    )
    real = corpus.splits["train"].texts()
    never = classifier("sentiment", "positive") + classifier("customer_rating", "average")
    assert conditional_excess([never] * 2, real[:2], real) == {}


@pytest.mark.parametrize(
    ("spelling", "told"),
    [
        ("nowhere.jsonl", "neither a file"),
        ("mood:5", "no 'mood'"),
        ("food:0", "neither"),
        ("food*x:8", "neither"),
        ("food*1.2.3:8", "neither"),
    ],
)
def test_what_is_neither_is_refused(corpus: Corpus, spelling: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        wishes(spelling, corpus, "valid")


def test_syntax_is_scored_by_derivations_and_leniently_without(corpus: Corpus) -> None:
    """A member has what its derivation says; a text with one word changed has the rest of its tags and stretches."""
    for one in sentences(20, seed=5):
        broken = (*one.words[:-2], "cheap" if one.words[-2] != "cheap" else "sushi", one.words[-1])
        assert met("pos", one.text, one.words) == met("tree", one.text, one.words) == 1.0
        if grammar().parse(broken) is None:
            assert 1 - 2 / len(broken) <= met("pos", one.text, broken) <= 1.0
            assert 0.3 < met("tree", one.text, broken) < 1.0
        assert met("tree", one.text, one.words[::-1]) < 0.6


def test_texts_of_which_nothing_is_asked_are_not_counted(corpus: Corpus) -> None:
    controls = [length(2).as_sum(), None, length(3).as_sum()]
    found = followed(Rules(corpus, [length(2)]), controls, ["we are", "we", "we are here"], "valid")
    assert found["control_success"]["value"] == 1.0 and found["control_success"]["n"] == 2


def test_a_label_called_pos_of_another_text_is_a_label_like_any_other(tmp_path: Path) -> None:
    dishes = {"sushi": "A", "curry": "B"}
    rows = [f"they have {dish} {word},{dishes[dish]}" for dish in dishes for word in "abcdefghijklmnopqrstuvwxyz"]
    (tmp_path / "a.csv").write_text("text,pos\n" + "\n".join(rows) + "\n")
    text = Text(path=str(tmp_path / "a.csv"), tokenizer="words:1")
    other = prepare(text, cache=tmp_path / "c", warn=lambda note: None)
    rules = Rules(other, [classifier("pos", "A")])
    assert rules.met(classifier("pos", "A"), "they have sushi") == 1.0
    assert rules.met(classifier("pos", "A"), "they have curry") == 0.0
