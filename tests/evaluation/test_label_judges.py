"""Judges of a label agree on its values, whether by derivation, by phrases or by n-grams."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jtextdiff.cli.errors import UserError
from jtextdiff.data import sources
from jtextdiff.data.corpus import Corpus, Text, prepare_corpus
from jtextdiff.evaluation import label_judges
from jtextdiff.evaluation.label_judges import (
    label_judge,
    likelihood_judge,
    load_value_judges,
    ngram_judge,
    phrase_judge,
)

NO_MODEL: Any = SimpleNamespace()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "_GRAMMAR", {"train": (600, 0), "valid": (40, 1)})
        return prepare_corpus(Text(length=32), cache=Path(tmp_path_factory.mktemp("cache")), warn=lambda note: None)


def test_derivations_judge_texts_of_the_grammar_only(corpus: Corpus) -> None:
    judge = label_judge(corpus, "food", None, NO_MODEL, "valid")
    texts = corpus.splits["valid"].texts()
    assert judge.label_of([*texts, "sushi"]) == [*corpus.labels_of("valid", "food"), None]
    assert judge.how == "the grammar's derivations"
    with pytest.raises(UserError, match="--judge_text rows.csv: the grammar itself has the label food"):
        label_judge(corpus, "food", "rows.csv", NO_MODEL, "valid")


def test_phrases_judge_texts_outside_the_grammar(corpus: Corpus) -> None:
    judge = phrase_judge(corpus, "food", "valid")
    texts = corpus.splits["valid"].texts()
    no_sentence = next(text for text in texts if "Japanese" in text).split()[::-1]
    assert judge.label_of([*texts, " ".join(no_sentence)]) == [*corpus.labels_of("valid", "food"), "Japanese"]
    assert judge.how.startswith("the grammar's derivations, else phrases of train")


def test_derivations_take_precedence_over_phrases(corpus: Corpus) -> None:
    judge = phrase_judge(corpus, "sentiment", "valid")
    assert "right for 100.0%" not in judge.how
    assert judge.label_of(corpus.splits["valid"].texts()) == corpus.labels_of("valid", "sentiment")


@pytest.mark.slow
def test_ngrams_are_fitted_to_the_models_own_text(corpus: Corpus) -> None:
    judge = ngram_judge(corpus, "food", None, NO_MODEL, "valid")
    values = zip(judge.label_of(corpus.splits["valid"].texts()), corpus.labels_of("valid", "food"), strict=True)
    accuracy = sum(judged == value for judged, value in values) / 40
    assert accuracy > 0.7
    assert judge.how == f"n-grams of 600 texts of the model's own training text, right for {accuracy:.1%} of valid"


@pytest.mark.parametrize("make", [label_judge, ngram_judge])
def test_a_label_that_the_text_lacks_is_refused(corpus: Corpus, make: Any) -> None:
    with pytest.raises(UserError, match="the text has no label 'mood'; it has: area"):
        make(corpus, "mood", None, NO_MODEL, "valid")


def of_a_value(value: str, corpus: Corpus) -> Any:
    """A stand-in for a language model of the texts of one value of sentiment; it reads 24 tokens."""
    own = dict(zip(corpus.splits["valid"].texts(), corpus.labels_of("valid", "sentiment"), strict=True))
    return SimpleNamespace(
        nll=lambda texts: [len(text) + (own.get(text, "positive") != value) for text in texts],
        num_tokens=lambda texts: [len(text.split()) + 1 for text in texts],
        method=SimpleNamespace(text_spec=SimpleNamespace(length=24)),
    )


def test_language_models_judge_by_the_value_under_which_a_text_is_most_probable(corpus: Corpus) -> None:
    models = {value: of_a_value(value, corpus) for value in corpus.label_values["sentiment"] if value != "none"}
    judge = likelihood_judge(models, corpus, "sentiment", "valid")
    texts, values = corpus.splits["valid"].texts(), corpus.labels_of("valid", "sentiment")
    judged = judge.label_of([*texts, "word " * 24])
    readable = [len(text.split()) < 24 for text in texts]
    expected = [value if fits else None for fits, value in zip(readable, values, strict=True)]
    assert judged == [*expected, None] and 0 < sum(readable) < 40
    assert judge.how == f"language models of each value, right for {sum(readable) / 40:.1%} of 40 of valid"


@pytest.mark.parametrize("pairs", [["positive=a"], ["positive=a", "negative"], ["positive=a", "positive=b", "x=c"]])
def test_every_value_needs_one_language_model(corpus: Corpus, pairs: list[str]) -> None:
    assert load_value_judges([], corpus, "sentiment", NO_MODEL, "run") == {}
    with pytest.raises(UserError, match="expected one run for each value of sentiment"):
        load_value_judges(pairs, corpus, "sentiment", NO_MODEL, "run")


def test_a_value_and_a_run_may_hold_an_equals_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_judges, "label_values", lambda *of: ("a", "a=b", "none"))
    monkeypatch.setattr(label_judges, "load_judge", lambda run, *of: run)
    corpus: Any = None
    assert load_value_judges(["a=b=x=1", "a=y"], corpus, "label", NO_MODEL, "run") == {"a": "y", "a=b": "x=1"}
