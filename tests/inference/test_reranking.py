"""Of several texts the one is chosen that should be."""

import argparse

import pytest

from jtextdiff.cli.errors import UserError
from jtextdiff.inference.reranking import mean_bleu_with_others, sampling_spec


def test_the_likest_text_is_the_one_in_the_middle() -> None:
    texts = ["a b c d e", "a b c d x", "a b c y x", "q r s t u"]
    worth = mean_bleu_with_others(texts)
    assert max(worth) == worth[1] and min(worth) == worth[3]
    assert mean_bleu_with_others(["alone"]) == [0.0]


@pytest.mark.parametrize(
    ("best_of", "mbr", "control", "told"),
    [
        (0, 1, [], "--best_of"),
        (1, -1, [], "--mbr"),
        (2, 2, ["a=b"], "two ways"),
        (2, 1, [], "energy"),
        (2, 1, ["length=3"], "energy"),
    ],
)
def test_what_cannot_be_chosen_by_is_refused(best_of: int, mbr: int, control: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        sampling_spec(argparse.Namespace(best_of=best_of, mbr=mbr, control=control))
