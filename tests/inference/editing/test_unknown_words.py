"""Unknown words of a source stay in its edit where the edit does not replace them."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jtextdiff.data.tokenizer import UNK
from jtextdiff.inference.editing.unknown_words import text_of

WORDS = {3: UNK, 4: "the", 5: "manager", 6: "was", 7: "rude", 8: "kind", 9: "."}


def decode(tokens: Any) -> str:
    return " ".join(WORDS[int(token)] for token in tokens if token > 2)


def decode_with(tokens: Any, words: list[str]) -> str:
    names = iter(words)
    return " ".join(next(names) if token == 3 else WORDS[int(token)] for token in tokens)


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        ((4, 5, 3, 6, 8, 9, 3), "the manager norm was kind . zorg"),
        ((4, 5, 6, 8, 9, 3), "the manager was kind . zorg"),
        ((4, 5, 3, 6, 8, 9), "the manager norm was kind ."),
        ((4, 3, 5, 6, 7, 3, 8), f"the {UNK} manager was rude zorg kind"),  # one of its own
    ],
)
def test_unknown_words_stay_where_the_edit_agrees_with_its_source(edit: tuple, text: str) -> None:
    edits: Any = SimpleNamespace(
        tokenizer=SimpleNamespace(unk=3, decode=decode, decode_with=decode_with),
        batch=SimpleNamespace(tokens=np.asarray([[4] * 9, [4, 5, 3, 6, 7, 9, 3, 1, 0]])),
        unknown=[[], ["norm", "zorg"]],
    )
    assert text_of(edit, edits, 1) == text
    assert text_of((4, 5), edits, 0) == "the manager"
