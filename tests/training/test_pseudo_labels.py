"""Pseudo-labels: given labels stay, n-grams predict the others, and other splits do not change."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jtextdiff.cli.errors import UserError
from jtextdiff.data.corpus import Corpus, Text, prepare_corpus
from jtextdiff.run.config_files import load_config
from jtextdiff.training.pseudo_labels import pseudo_labelled

CONFIG = f"{Path(__file__).parents[2]}/configs/latent_ops.py:cvae"
WORDS = {"good": ("lovely", "fine", "superb"), "bad": ("awful", "poor", "dire")}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Texts with a mood. Every fifth lacks the label, though its words imply it."""
    file = tmp_path_factory.mktemp("pseudo_labels") / "rows.jsonl"
    pairs = [(mood, word) for mood, words in WORDS.items() for word in words]
    rows = [
        {"text": f"It is {word} for {number} .", "mood": mood if number % 5 else "none"}
        for number in range(40)
        for mood, word in pairs
    ]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return prepare_corpus(Text(path=str(file), tokenizer="words:1"), warn=lambda note: None)


def config(*flags: str) -> Any:
    return load_config(CONFIG, ["--config.method.condition=mood", *flags])


def test_given_labels_stay_and_the_others_are_predicted(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    found = pseudo_labelled(corpus, config("--config.num_labelled=9"))
    values, train = corpus.label_values["mood"], corpus.splits["train"]
    assert values[-1] == "none"
    truth = [next(mood for mood, words in WORDS.items() if set(words) & set(text.split())) for text in train.texts()]
    ids = found.splits["train"].labels["mood"]
    assert [values[i] for i in ids] == truth  # nine texts of each value contain all of its words
    assert "18 texts keep their label" in capsys.readouterr().err
    np.testing.assert_array_equal(found.splits["valid"].labels["mood"], corpus.splits["valid"].labels["mood"])
    np.testing.assert_array_equal(found.splits["train"].tokens, train.tokens)


def test_a_wrong_prediction_changes_no_given_label(corpus: Corpus) -> None:
    """One text of each value keeps its label. Predictions from so few are poor, but the given labels stay."""
    ids = np.asarray(corpus.splits["train"].labels["mood"])
    found = pseudo_labelled(corpus, config("--config.num_labelled=1")).splits["train"].labels["mood"]
    first = [int(np.flatnonzero(ids == value)[0]) for value in (0, 1)]
    assert [int(found[row]) for row in first] == [0, 1] and np.any(found[ids < 2] != ids[ids < 2])


def test_given_labels_stay_although_the_classifier_contradicts_them(tmp_path: Path) -> None:
    """The same texts have both moods, which no classifier can predict, and all labels are given."""
    file, texts = tmp_path / "rows.jsonl", [f"It is odd for {number} ." for number in range(20)]
    file.write_text("\n".join(json.dumps({"text": text, "mood": mood}) for mood in WORDS for text in texts))
    same = prepare_corpus(Text(path=str(file), tokenizer="words:1"), warn=lambda note: None)
    found = pseudo_labelled(same, config("--config.num_labelled=100")).splits["train"].labels["mood"]
    np.testing.assert_array_equal(found, same.splits["train"].labels["mood"])


def test_without_a_number_nothing_changes_and_a_wrong_one_is_refused(corpus: Corpus) -> None:
    assert pseudo_labelled(corpus, config()) is corpus
    with pytest.raises(UserError, match="at least 1, got 0"):
        pseudo_labelled(corpus, config("--config.num_labelled=0"))
    with pytest.raises(UserError, match="method.condition=LABEL"):
        pseudo_labelled(corpus, config("--config.num_labelled=5", "--config.method.condition="))
