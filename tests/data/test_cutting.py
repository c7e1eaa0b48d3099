"""Cutting texts: joined pieces are the text, whole sentences stay together, and numbers are not cut."""

import numpy as np
import pytest

from jtextdiff.data.cutting import cut

CHINESE = "物流很快，包装也不错！屏幕有一道划痕……客服说不能换 只能退货，太麻烦了；以后不会再买。还行"
ENGLISH = 'It cost 1,000.50 euros, tax included. "Never again!" we said; the staff, at least, were kind'


@pytest.mark.parametrize(("text", "at_spaces"), [(CHINESE, True), (ENGLISH, False), (ENGLISH, True), ("  ", True)])
def test_joined_pieces_are_the_text_and_those_that_fit_are_short(text: str, at_spaces: bool) -> None:
    for longest in range(1, len(text) + 2):
        pieces, fit = cut(text, longest, size=len, at_spaces=at_spaces)
        assert "".join(pieces) == text
        assert fit == [len(piece.strip()) <= longest for piece in pieces]
    assert cut(text, len(text), size=len, at_spaces=at_spaces).texts == [text]


def test_texts_of_random_signs_are_kept_whole() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        text = "".join(random.choice(list('好a1 。，,.!"”…\n'), size=random.integers(1, 30)))
        assert (
            "".join(cut(text, int(random.integers(1, 12)), size=len, at_spaces=bool(random.integers(2))).texts) == text
        )


def test_sentences_come_first_then_clauses_then_spaces_that_stand_for_commas() -> None:
    assert cut(CHINESE, 20, size=len, at_spaces=True).texts == [
        "物流很快，包装也不错！屏幕有一道划痕……",
        "客服说不能换 只能退货，太麻烦了；",
        "以后不会再买。还行",
    ]
    assert cut(CHINESE, 9, size=len, at_spaces=True).texts == [
        "物流很快，",
        "包装也不错！",
        "屏幕有一道划痕……",
        "客服说不能换 ",
        "只能退货，",
        "太麻烦了；",
        "以后不会再买。还行",
    ]


def test_english_is_cut_after_punctuation_and_not_within_numbers_or_between_words() -> None:
    words = lambda text: len(text.split())
    assert cut(ENGLISH, 6, size=words, at_spaces=False).texts == [
        "It cost 1,000.50 euros, tax included. ",
        '"Never again!" we said; ',
        "the staff, at least, were kind",
    ]
    pieces, fit = cut("one two three four, five", 2, size=words, at_spaces=False)
    assert (pieces, fit) == (["one two three four, ", "five"], [False, True])
