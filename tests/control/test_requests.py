"""Sampling requests, from the attributes of real texts or from a file, and the scores of samples drawn for them."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from support.cases import slow_but

from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import Control, classifier, length, parse_control
from jtextdiff.control.requests import SampleRequest, read_requests
from jtextdiff.control.syntax_match import syntax_match
from jtextdiff.data.corpus import Corpus, Text, prepare_corpus
from jtextdiff.data.grammar.restaurants import grammar, sentences
from jtextdiff.evaluation.control_success import (
    ControlChecker,
    conditional_nll_gap,
    control_checker,
    control_scores,
    success,
)
from jtextdiff.evaluation.label_judges import phrase_judge


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    from jtextdiff.data import sources

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "_GRAMMAR", {"train": (200, 0), "valid": (40, 1)})
        return prepare_corpus(Text(length=32), cache=Path(tmp_path_factory.mktemp("cache")), warn=lambda note: None)


def checker(corpus: Corpus, controls: Sequence[Control]) -> ControlChecker:
    return control_checker(corpus, controls, lambda label: phrase_judge(corpus, label, "valid"))


NAMES = ["food", "pos", "tree", "span", "length", "food*0.5+length", "sentiment+pos"]


@pytest.mark.parametrize("names", slow_but(NAMES[:-1], NAMES))
def test_a_text_satisfies_the_request_made_from_it(corpus: Corpus, names: str) -> None:
    split = corpus.splits["valid"]
    texts = split.texts(split.evenly_spaced(20))
    requests = read_requests(f"{names}:20", corpus, "valid")
    controls = [request.control for request in requests if request.control is not None]
    assert len(controls) == 20
    scores = success(checker(corpus, controls), controls, texts, "valid")
    assert scores["control_success"]["value"] == 1.0 and scores["control_success"]["n"] == 20
    assert scores["control_success"]["real_valid"] < 1.0
    if names.startswith("food*"):
        assert controls[0].weights == (0.5, 1.0) and "control_success[length]" in scores


@pytest.mark.slow
def test_samples_of_the_conditional_distribution_have_no_nll_gap(corpus: Corpus) -> None:
    """Real texts against others of the same distribution: 0 within five standard errors. Unlikely texts have a gap
    above five nats."""
    real, fresh = [one.text for one in sentences(1_200, seed=0)], sentences(1_200, seed=8)
    controls = [classifier("food", one.fields["food"]).as_sum() for one in fresh]
    samples = [one.text for one in fresh]
    gap = conditional_nll_gap(grammar(), controls, samples, real)["conditional_excess"]
    assert abs(gap["value"]) < 5 * gap["se"] and gap["n"] == len(set(controls))
    long = [n for n, text in enumerate(samples) if len(text.split()) > 24]
    unlikely = conditional_nll_gap(grammar(), [controls[n] for n in long], [samples[n] for n in long], real[:300])
    assert unlikely["conditional_excess"]["value"] > 5
    assert conditional_nll_gap(grammar(), [length(5).as_sum()] * 3, samples[:3], real) == {}


def test_a_gap_masks_the_middle_of_a_text(corpus: Corpus) -> None:
    for (control, template), text in zip(
        read_requests("gap:40", corpus, "valid"), corpus.splits["valid"].texts(), strict=True
    ):
        assert control is None and template is not None
        words = template.split()
        assert len(words) == len(text.split()) and 0 < words.count("[MASK]") < len(words)
        assert all(word in (original, "[MASK]") for word, original in zip(words, text.split(), strict=True))


def test_requests_may_take_any_label(tmp_path: Path) -> None:
    header, labels = '"a*b",x:y,food type,pos', {"a*b": "1", "x:y": "2", "food type": "3", "pos": "NOUN"}
    (tmp_path / "a.csv").write_text(f"text,{header}\n" + "".join(f"text {n},1,2,3,NOUN\n" for n in range(9)))
    text = Text(path=str(tmp_path / "a.csv"), tokenizer="words:1")
    corpus = prepare_corpus(text, cache=tmp_path / "c", warn=lambda note: None)
    (request,) = read_requests("\"a*b\"*2+'x:y'+food type*0.5+pos:1", corpus, "valid")
    assert request.control is not None and request.control.weights == (2.0, 1.0, 0.5, 1.0)
    assert request.control.parts == tuple(classifier(*item) for item in labels.items())
    with pytest.raises(UserError, match='texts have: "a\\*b", food type, pos, "x:y", length, gap'):
        read_requests("other:1", corpus, "valid")


@pytest.mark.parametrize(
    ("tokenizer", "line", "num", "end"),
    [
        ("characters:1", "{}很好吃！", 6, "[MASK][MASK]吃！"),
        ("characters:1", "{}等了20分钟今天", 10, "[MASK][MASK][MASK][MASK]钟今天"),
        ("words:1", "{} 的 服务 非常 好 价格 便宜 ！", 8, "[MASK] [MASK] [MASK] [MASK] 便宜 ！"),
        ("words:1", "{} is cheap, near here.", 7, "[MASK][MASK] [MASK] here."),
        ("byte_pairs:259", "{}!", 7, "[MASK][MASK][MASK]!"),
    ],
)
def test_requests_count_tokens(tmp_path: Path, tokenizer: str, line: str, num: int, end: str) -> None:
    """Those of the tokenizer, of which controls and templates have so many; not words or characters."""
    texts = [line.format(noun) for noun in ("米饭", "面条", "青菜")]
    (tmp_path / "a.txt").write_text("\n".join(texts))
    text = Text(path=str(tmp_path / "a.txt"), tokenizer=tokenizer)
    corpus = prepare_corpus(text, cache=tmp_path / "c", warn=lambda note: None)
    control = read_requests("length:1", corpus, "valid")[0].control
    assert control is not None and control == length(num).as_sum()
    assert success(checker(corpus, [control]), [control] * 3, texts, "valid")["control_success"]["value"] == 1.0
    template = read_requests("gap:1", corpus, "valid")[0].template
    assert template is not None and template.endswith(end)
    ids, fixed = corpus.tokenizer.encode_template(template)
    (whole,) = corpus.tokenizer.encode(corpus.splits["valid"].texts())
    np.testing.assert_array_equal(ids, np.where(fixed, whole, corpus.tokenizer.mask))


def test_a_file_is_read_line_by_line(corpus: Corpus, tmp_path: Path) -> None:
    file = tmp_path / "targets.jsonl"
    file.write_text('{"control": "food=Thai"}\n\n{"control": ["food=Thai*2", "length=9"]}\n{"template": "a [MASK]"}\n')
    assert read_requests(str(file), corpus, "valid") == (
        SampleRequest(classifier("food", "Thai").as_sum()),
        SampleRequest(parse_control("food=Thai*2") + length(9)),
        SampleRequest(None, "a [MASK]"),
    )
    for line in ('{"food": "Thai"}', '{"control": 3}', "{}", '{"control": [1]}', "[]"):
        file.write_text(f'{{"control": "food=Thai"}}\n{line}\n')
        with pytest.raises(UserError, match=r"targets.jsonl, line 2: expected"):
            read_requests(str(file), corpus, "valid")
    file.write_text('\ufeff{"control": "food=Thai"}\r{"control": "keyword=a\u2028b"}\r', encoding="utf-8")
    assert [request.control for request in read_requests(str(file), corpus, "valid")] == [
        parse_control("food=Thai").as_sum(),
        parse_control("keyword=a\u2028b").as_sum(),
    ]
    for line, message in [
        ("food=Thai", "not JSON .*; expected"),
        ("[" * 100_000, "too many brackets"),
        ('{"control": "length=1' + "0" * 5000 + '"}', "length"),
        ('{"control": 1' + "0" * 5000 + "}", "too many digits"),
        ('{"control": "food=\\udcff"}', "half of a character"),
        ("caf\udce9", "0xe9 is not UTF-8"),
    ]:
        file.write_text(f'{{"control": "food=Thai"}}\n{line}\n', encoding="utf-8", errors="surrogateescape")
        with pytest.raises(UserError, match=rf"targets.jsonl, line 2: .*{message}"):
            read_requests(str(file), corpus, "valid")
    file.write_text("\n")
    with pytest.raises(UserError, match="is empty"):
        read_requests(str(file), corpus, "valid")


def test_targets_of_several_kinds_are_scored_separately(corpus: Corpus) -> None:
    """Parts in another order are not mixed up. Values that no sentence combines have no conditional distribution."""
    mixed = [parse_control("food=Thai") + length(3), length(2) + classifier("food", "Thai")]
    scores = success(checker(corpus, mixed), mixed, ["we are here", "we are"], "valid")
    assert set(scores) == {"control_success"}
    twice = [parse_control("keyword=cheap") + parse_control("keyword=pub")] * 2 + [
        parse_control("keyword=a") + parse_control("keyword=b")
    ]
    scores = success(checker(corpus, twice), twice, ["cheap pub", "cheap", "a"], "valid")
    assert (
        scores["control_success[keyword 1]"]["value"] == 1.0 and scores["control_success[keyword 2]"]["value"] == 0.25
    )
    real = corpus.splits["train"].texts()
    contradictory = classifier("sentiment", "positive") + classifier("customer_rating", "average")
    assert conditional_nll_gap(grammar(), [contradictory] * 2, real[:2], real) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere.jsonl", "neither a file"),
        ("mood:5", "no attribute 'mood'"),
        ("food:0", "neither"),
        ("food*x:8", "neither"),
        ("food*1.2.3:8", "neither"),
    ],
)
def test_malformed_requests_are_refused(corpus: Corpus, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_requests(text, corpus, "valid")


def test_syntax_is_scored_by_derivations_and_approximately_without(corpus: Corpus) -> None:
    """A sentence of the grammar matches its derivation. With one word changed, the other tags and spans still match."""
    for one in sentences(8, seed=5):
        broken = (*one.words[:-2], "cheap" if one.words[-2] != "cheap" else "sushi", one.words[-1])
        assert (
            syntax_match(grammar(), "pos", one.text, one.words)
            == syntax_match(grammar(), "tree", one.text, one.words)
            == 1.0
        )
        if grammar().parse(broken) is None:
            assert 1 - 2 / len(broken) <= syntax_match(grammar(), "pos", one.text, broken) <= 1.0
            assert 0.3 < syntax_match(grammar(), "tree", one.text, broken) < 1.0
        assert syntax_match(grammar(), "tree", one.text, one.words[::-1]) < 0.6


def test_texts_without_a_control_are_not_counted(corpus: Corpus) -> None:
    controls = [length(2).as_sum(), None, length(3).as_sum()]
    scores = control_scores(checker(corpus, [length(2)]), controls, ["we are", "we", "we are here"], "valid")
    assert scores["control_success"]["value"] == 1.0 and scores["control_success"]["n"] == 2


def test_a_label_named_pos_of_another_text_is_an_ordinary_label(tmp_path: Path) -> None:
    dishes = {"sushi": "A", "curry": "B"}
    rows = [f"they have {dish} {word},{dishes[dish]}" for dish in dishes for word in "abcdefghijklmnopqrstuvwxyz"]
    (tmp_path / "a.csv").write_text("text,pos\n" + "\n".join(rows) + "\n")
    text = Text(path=str(tmp_path / "a.csv"), tokenizer="words:1")
    other = prepare_corpus(text, cache=tmp_path / "c", warn=lambda note: None)
    satisfied = checker(other, [classifier("pos", "A")]).satisfied
    assert satisfied(classifier("pos", "A"), "they have sushi") == 1.0
    assert satisfied(classifier("pos", "A"), "they have curry") == 0.0


def test_a_pipe_is_a_file_of_requests(corpus: Corpus, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=('{"control": "food=Thai"}\n',))
    writer.start()
    assert read_requests(str(pipe), corpus, "valid") == (SampleRequest(classifier("food", "Thai").as_sum()),)
    writer.join()
