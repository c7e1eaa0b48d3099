"""Edits of long texts: pieces are joined again, those that need no edit stay, and numbers of texts give seeds."""

import pytest

from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import parse_controls
from jtextdiff.inference.editing.latent import FLOW_FAILED
from jtextdiff.inference.editing.pieces import ID_STRIDE, check_pieces, edit_by_pieces
from jtextdiff.inference.editing.types import Edit
from jtextdiff.methods.masked import Masked
from jtextdiff.methods.text_vae import TextVAE

LONG = "The soup was cold . The staff was rude , the room was dark ! We love it"


def edited(texts: list[str], ids: list[int], longest: int = 6) -> tuple[list[Edit], list, list]:
    """Edits by a stand-in that writes in capitals; a piece with "love" has the target probability before."""
    seen_texts: list[str] = []
    seen_ids: list[int] = []

    def edit_texts(texts: list[str], *, ids: list[int]) -> list[Edit]:
        seen_texts.extend(texts)
        seen_ids.extend(ids)
        return [
            Edit(
                text.upper(),
                before={"mood": 0.95 if "love" in text else 0.1},
                after={"mood": 0.93},
                distance=3.0,
                steps=len(text),
                unneeded="love" in text,
                skipped_because=FLOW_FAILED if "rude" in text else "",
            )
            for text in texts
        ]

    num_tokens = lambda texts: [len(text.split()) + 1 for text in texts]
    return (
        edit_by_pieces(edit_texts, num_tokens, texts, ids, longest=longest),
        seen_texts,
        seen_ids,
    )


def test_texts_that_fit_are_edited_as_they_are() -> None:
    texts = ["a cold soup", "we love it"]
    edits, seen, ids = edited(texts, [5, 9])
    assert seen == texts and ids == [5, 9]
    assert [edit.text for edit in edits] == ["A COLD SOUP", "WE LOVE IT"]  # the flow itself stops at the target


def test_pieces_are_edited_alone_and_joined() -> None:
    (edit,), seen, ids = edited([LONG], [7])
    assert seen == ["The soup was cold .", "The staff was rude ,", "the room was dark !", "We love it"]
    assert ids == [7 + part * ID_STRIDE for part in range(4)]
    assert edit.text == "THE SOUP WAS COLD . The staff was rude , THE ROOM WAS DARK ! We love it"
    assert not edit.reached and not edit.skipped_because
    assert edit.before == {"mood": 0.1} and edit.after == {"mood": 0.1}  # of the piece whose flow failed
    assert edit.distance == pytest.approx(18**0.5) and edit.skipped_because == ""


def test_a_text_with_a_clause_that_is_too_long_stays_and_says_why() -> None:
    (first, second), seen, _ = edited(["one two three four five six seven", "a b"], [0, 1])
    assert first.text == "one two three four five six seven" and "longer than 5 tokens" in first.skipped_because
    assert seen == ["a b"] and second.text == "A B"


def test_seeds_stay_within_their_range() -> None:
    _, _, ids = edited([LONG], [2**31 - 1])
    assert len(set(ids)) == 4 and all(0 <= number < 2**31 for number in ids)


def test_other_methods_are_refused() -> None:
    with pytest.raises(UserError, match="Masked does not edit by pieces"):
        check_pieces(Masked(), None)
    with pytest.raises(UserError, match="length=8 applies to a whole text"):
        check_pieces(TextVAE(), parse_controls(["length=8", "mood=good"]))
    check_pieces(TextVAE(), parse_controls(["mood=good"]))
