"""Candidates of an edit: rewrites of a text, and texts that make only some of their changes."""

import itertools
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jtextdiff.inference.editing.types import EditBatch
from jtextdiff.methods.components.latents import Rewrite
from jtextdiff.metrics.bleu import bleu_against

Tokens = tuple[int, ...]
"""A text without EOS and PAD."""

MAX_CHANGES = 6
"""Up to so many changes, all subsets are tried; of more, none, single ones, pairs, and all but one."""


class Candidate(NamedTuple):
    """A text, its BLEU with the source, and the rewrite that it is a part of."""

    tokens: Tokens
    bleu: float
    rewrite: Tokens
    decoded: int | None  # number of the rewrite among those that the latent was decoded to; None: words were replaced


def candidates_of(
    row: int, source: Tokens, rewrites: Rewrite, edits: EditBatch, minimal: bool, replaced: Sequence[Tokens] = ()
) -> list[Candidate]:
    """Returns the distinct rewrites of a text, and if edits are `minimal` their partial ones that have a valid length.

    The source is a part of every rewrite. The texts with words `replaced` come after them, those that have a valid
    length, if any rewrite is solved.
    """
    longest, length = edits.method.text_spec.length, edits.conditioning.length
    valid = lambda text: text and (len(text) + 1 == length if length > 0 else len(text) < longest)
    number_of: dict[Tokens, int] = {}
    for number in np.flatnonzero(rewrites.solved[row]).tolist():
        number_of.setdefault(tokens_of(np.asarray(rewrites.tokens[row, number]), edits), number)
    rewrite_of = {text: text for text in number_of}  # first, since a rewrite counts as no part of another one
    if minimal:
        for rewrite in number_of:
            for text in filter(valid, partial_edits(source, rewrite)):
                rewrite_of.setdefault(text, rewrite)
    for text in filter(valid, replaced if number_of else ()):
        rewrite_of.setdefault(text, text)
    bleu = bleu_against(source)
    return [Candidate(text, bleu(text), of, number_of.get(of)) for text, of in rewrite_of.items()]


def tokens_of(row: Int[np.ndarray, "l"], edits: EditBatch) -> Tokens:
    """Returns the tokens of a padded row before its EOS."""
    ends = np.flatnonzero(row == edits.tokenizer.eos)
    return tuple(row[: ends[0] if len(ends) else None].tolist())


def partial_edits(source: Tokens, edit: Tokens) -> list[Tokens]:
    """Returns the texts that make some of the changes of an edit: first none, which is the source, and last all."""
    blocks = SequenceMatcher(None, source, edit, autojunk=False).get_opcodes()
    changes = [index for index, (kind, *_) in enumerate(blocks) if kind != "equal"]
    n = len(changes)
    sizes = range(n + 1) if n <= MAX_CHANGES else (0, 1, 2, n - 1, n)
    subsets = itertools.chain.from_iterable(itertools.combinations(changes, size) for size in sizes)

    def with_changes(made: tuple[int, ...]) -> Tokens:
        pieces = (
            edit[new:new_end] if index in made else source[old:old_end]
            for index, (_, old, old_end, new, new_end) in enumerate(blocks)
        )
        return tuple(itertools.chain.from_iterable(pieces))

    return list(map(with_changes, subsets))
