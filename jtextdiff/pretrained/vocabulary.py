"""The rows of a published vocabulary, and those of ours: tokens, MASK, and padding."""

import numpy as np
from jaxtyping import Float

from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.methods.components.types import TextSpec

EMBEDDING = (
    "vocab_embed.embedding",
    "model.transformer.wte.weight",
    "model.embed_tokens.weight",
    "model.embeddings.tok_embeddings.weight",
    "bert.embeddings.word_embeddings.weight",
)
"""The tensors with a row for each token, MASK included."""

WITHOUT_MASK = (
    "output_layer.linear.weight",
    "output_layer.linear.bias",
    "model.transformer.ff_out.weight",
    "lm_head.weight",
    "decoder.bias",
    "cls.predictions.bias",
    "wte.weight",
)
"""Those without a row for a MASK after the tokens: outputs, and the embedding of GPT-2, which never reads MASK."""


def num_rows(tokens: TextSpec | Tokenizer, *, with_mask: bool = True) -> int:
    """Returns the rows that a vocabulary needs: its tokens, and MASK, if that is read and is none of them."""
    return max(tokens.vocab_size, tokens.mask + 1) if with_mask else tokens.vocab_size


def take_rows(name: str, tensor: Float[np.ndarray, "..."], text_spec: TextSpec) -> Float[np.ndarray, "..."]:
    """Returns a published tensor with the rows of our vocabulary.

    A MASK that is no token of the tokenizer is the last row. MASK then has no output, and padding is left out. A MASK
    that is a token, or has no row, leaves our last input unused: it is zero.
    """
    size = text_spec.vocab_size
    if name in WITHOUT_MASK:
        return tensor[:size]
    if name not in EMBEDDING or (text_spec.mask >= size and len(tensor) == size + 1):
        return tensor
    last = tensor[-1:] if text_spec.mask >= size and len(tensor) > size else np.zeros_like(tensor[-1:])
    return np.concatenate([tensor[:size], last])


def give_rows(name: str, tensor: Float[np.ndarray, "..."], text_spec: TextSpec) -> Float[np.ndarray, "..."]:
    """Returns a tensor with `num_rows` rows, of which `take_rows` returns ours. The output of MASK is zero."""
    rows = num_rows(text_spec)
    if name in WITHOUT_MASK:
        return np.pad(tensor, [(0, rows - len(tensor)), *[(0, 0)] * (tensor.ndim - 1)])
    return tensor[:rows] if name in EMBEDDING else tensor
