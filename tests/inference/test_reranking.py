"""Reranking of candidates: by mean BLEU with the others, and the settings it refuses."""

import argparse

import pytest

from jtextdiff.cli.errors import UserError
from jtextdiff.inference.reranking import mean_bleu_with_others, sampling_spec


def test_the_central_text_has_the_highest_mean_bleu() -> None:
    texts = ["a b c d e", "a b c d x", "a b c y x", "q r s t u"]
    scores = mean_bleu_with_others(texts)
    assert max(scores) == scores[1] and min(scores) == scores[3]
    assert mean_bleu_with_others(["alone"]) == [0.0]


@pytest.mark.parametrize(
    ("best_of", "mbr", "control", "message"),
    [
        (0, 1, [], "--best_of"),
        (1, -1, [], "--mbr"),
        (2, 2, ["a=b"], "two ways"),
        (2, 1, [], "energy"),
        (2, 1, ["length=3"], "energy"),
    ],
)
def test_impossible_reranking_settings_are_refused(best_of: int, mbr: int, control: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sampling_spec(argparse.Namespace(best_of=best_of, mbr=mbr, control=control))


def test_mean_bleu_of_chinese_is_that_of_its_characters() -> None:
    texts = ["米饭很好吃", "米饭太难吃", "面条很好吃"]
    assert mean_bleu_with_others(texts) == mean_bleu_with_others([" ".join(text) for text in texts])
