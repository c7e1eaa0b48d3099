"""Words that the model does not know, from a source into its edit."""

from collections.abc import Sequence
from difflib import SequenceMatcher

from jtextdiff.data.tokenizer import UNK
from jtextdiff.inference.editing.types import EditBatch


def text_of(tokens: Sequence[int], edits: EditBatch, row: int) -> str:
    """Returns the text of an edit of a row. UNK where the edit agrees with its source is the unknown word there."""
    unk, unknown = edits.tokenizer.unk, edits.unknown[row]
    if not unknown:
        return edits.tokenizer.decode(tokens)
    source = edits.batch.tokens[row].tolist()
    positions = (position for position, token in enumerate(source) if token == unk)
    word_at = dict(zip(positions, unknown, strict=False))
    blocks = SequenceMatcher(None, source, tokens, autojunk=False).get_matching_blocks()
    source_of = {block.b + i: block.a + i for block in blocks for i in range(block.size)}
    words = [word_at.get(source_of.get(i, -1), UNK) for i, token in enumerate(tokens) if token == unk]
    return edits.tokenizer.decode_with(tokens, words)
