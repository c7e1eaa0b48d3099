"""Editing long texts piece by piece."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import TRAINING_FREE, Control
from jtextdiff.data.cutting import cut
from jtextdiff.inference.editing.types import Edit
from jtextdiff.methods.method import LatentVariableModel, Method
from jtextdiff.metrics.units import is_unspaced

ID_STRIDE = 2**24
"""Between the numbers, and so the seeds, of a text's first 128 pieces. Texts of one piece keep their numbers."""


def check_pieces(method: Method, control: Control | None) -> None:
    """Raises UserError for a method that does not edit in latent space, and for a control that is not of each piece."""
    if not isinstance(method, LatentVariableModel):
        raise UserError(f"{type(method).__name__} does not edit by pieces: leave out --pieces. TextVAE does.")
    leaves = () if control is None else control.leaves()
    if of_whole := next((leaf for leaf in leaves if leaf.name in TRAINING_FREE), None):
        raise UserError(f"{of_whole} applies to a whole text, and --pieces edits each piece by itself: leave out one.")


def edit_by_pieces(
    edit_texts: Callable[..., list[Edit]],
    num_tokens: Callable[[Sequence[str]], list[int]],
    texts: Sequence[str],
    ids: Sequence[int],
    *,
    longest: int,
) -> list[Edit]:
    """Edits texts of any length: one with more than `longest` tokens is cut at the ends of sentences or clauses.

    Each piece has its own latent, and all pieces are edited together by `edit_texts(texts, ids=…)`. A piece of several
    that has the target probability already stays as it is. The probabilities of a text are those of its least probable
    piece, its distance is the norm over pieces. A text stays as it is if one of its clauses is longer.
    """
    size = lambda text: num_tokens([text])[0]
    cuts = [
        cut(text, longest, size=size, at_spaces=is_unspaced([text])) if size(text) > longest else None for text in texts
    ]
    pieces = [[text] if parts is None else parts.texts for text, parts in zip(texts, cuts, strict=True)]
    editable = [parts is None or all(parts.fit) for parts in cuts]
    places = [(row, part) for row, parts in enumerate(pieces) if editable[row] for part in range(len(parts))]
    numbers = [(ids[row] + part * ID_STRIDE) % 2**31 for row, part in places]
    edits = edit_texts([pieces[row][part].strip() for row, part in places], ids=numbers) if places else []
    edit_of = dict(zip(places, edits, strict=True))
    too_long = f"a clause of it is longer than {longest - 1} tokens"
    return [
        _joined(parts, [edit_of[row, part] for part in range(len(parts))])
        if editable[row]
        else Edit(text, skipped_because=too_long)
        for row, (text, parts) in enumerate(zip(texts, pieces, strict=True))
    ]


def _joined(pieces: list[str], edits: list[Edit]) -> Edit:
    """Returns the edit of a text from those of its pieces, with the blanks between them."""
    if len(edits) == 1:
        return edits[0]
    edits = [_or_piece(piece, edit) for piece, edit in zip(pieces, edits, strict=True)]
    blanks = [piece[len(piece.rstrip()) :] for piece in pieces]
    return Edit(
        "".join(edit.text + blank for edit, blank in zip(edits, blanks, strict=True)).strip(),
        before=_least(edit.before for edit in edits),
        after=_least(edit.after for edit in edits),
        distance=math.hypot(*(edit.distance or 0.0 for edit in edits)),
        steps=max(edit.steps or 0 for edit in edits),
        reached=all(edit.reached for edit in edits),
        skipped_because=edits[0].skipped_because if all(edit.skipped_because for edit in edits) else "",
        unknown=tuple(word for edit in edits for word in edit.unknown),
    )


def _or_piece(piece: str, edit: Edit) -> Edit:
    """Returns the edit, or the piece itself if it needed none or was skipped."""
    unchanged = Edit(piece.strip(), before=edit.before, after=edit.before, distance=0.0, steps=0, unknown=edit.unknown)
    if edit.skipped_because:
        return unchanged._replace(skipped_because=edit.skipped_because, reached=False)
    return unchanged if edit.unneeded else edit


def _least(probabilities: Any) -> dict[str, float]:
    """Returns the smallest probability of each control."""
    least: dict[str, float] = {}
    for of_piece in probabilities:
        for name, p in of_piece.items():
            least[name] = min(p, least.get(name, 1.0))
    return least
