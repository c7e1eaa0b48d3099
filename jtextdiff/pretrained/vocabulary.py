"""The rows of a published vocabulary, and those of ours: tokens, MASK, and padding."""

import numpy as np

from jtextdiff.methods.components.types import TextSpec
from jtextdiff.nets.functional import Params


def num_rows(text_spec: TextSpec) -> int:
    """Returns the rows that a vocabulary needs: its tokens, and MASK if it is none of them."""
    return max(text_spec.vocab_size, text_spec.mask + 1)


def take_rows(params: Params, text_spec: TextSpec) -> Params:
    """Returns parameters [rows, …] with the rows of our vocabulary.

    A MASK that is no token of the tokenizer is the last row. MASK then has no output, and padding is left out. A MASK
    that is a token leaves our last input unused: it is zero.
    """
    size, table = text_spec.vocab_size, params["embed"]["embedding"]
    last = table[-1:] if text_spec.mask >= size else np.zeros_like(table[-1:])
    answer = {name: np.ascontiguousarray(array[..., :size]) for name, array in params["answer"].items()}
    return {**params, "embed": {"embedding": np.concatenate([table[:size], last])}, "answer": answer}


def give_rows(params: Params, text_spec: TextSpec) -> Params:
    """Returns parameters with `num_rows` rows, of which `take_rows` returns ours. The output of MASK is zero."""
    rows = num_rows(text_spec)
    answer = {name: np.asarray(array) for name, array in params["answer"].items()}
    fill = {name: [(0, 0)] * (array.ndim - 1) + [(0, rows - array.shape[-1])] for name, array in answer.items()}
    padded = {name: np.pad(array, fill[name]) for name, array in answer.items()}
    return {**params, "embed": {"embedding": np.asarray(params["embed"]["embedding"])[:rows]}, "answer": padded}
