"""Word vectors from a PPMI co-occurrence matrix, so that words with similar contexts lie near each other.

Positive pointwise mutual information with the words at most two positions away, factorised (Bullinaria & Levy 2007;
Levy & Goldberg 2014, §5).
"""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds

WINDOW = (-2, -1, 1, 2)
"""The positions of context words relative to a word. Each position has contexts of its own."""

CONTEXT_WEIGHT = 0.6
"""The weight of the contexts in a vector. The rest is random, which separates words of one kind."""

_DENSE = 500  # words up to which a full decomposition is faster than a truncated one


def neighbour_vectors(
    tokens: NDArray[np.integer], offsets: NDArray[np.integer], vocab_size: int, dim: int
) -> NDArray[np.float32]:
    """Returns a vector of norm 1 for each word, [vocab_size, dim].

    A word whose contexts carry no information gets a random vector. `tokens` are the texts end to end; text n is
    `tokens[offsets[n] : offsets[n + 1]]`.
    """
    from_contexts = _unit(_factor(_ppmi(tokens, offsets, vocab_size), dim))
    random = _unit(np.random.default_rng(0).standard_normal((vocab_size, dim)))
    return _unit(CONTEXT_WEIGHT * from_contexts + (1 - CONTEXT_WEIGHT) * random).astype(np.float32)


def _ppmi(tokens: NDArray[np.integer], offsets: NDArray[np.integer], vocab_size: int) -> sparse.csr_array:
    """Returns the PPMI of words and contexts, nats, [vocab_size, window × vocab_size]."""
    tokens = np.asarray(tokens, np.int64)
    text = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return sparse.csr_array(sparse.hstack([_ppmi_at(tokens, text, vocab_size, offset) for offset in WINDOW]))


def _ppmi_at(tokens: np.ndarray, text: np.ndarray, vocab_size: int, offset: int) -> sparse.csr_array:
    """Returns the PPMI of words and the context words `offset` positions after them, [vocab_size, vocab_size]."""
    if offset > 0:
        centre, context = slice(0, -offset), slice(offset, None)
    else:
        centre, context = slice(-offset, None), slice(0, offset)
    in_one_text = text[centre] == text[context]
    words, contexts = tokens[centre][in_one_text], tokens[context][in_one_text]
    pairs = sparse.coo_array((np.ones(len(words)), (words, contexts)), shape=(vocab_size, vocab_size)).tocsr()
    word_counts, context_counts = (np.asarray(pairs.sum(axis=axis)).ravel() for axis in (1, 0))
    row = np.repeat(np.arange(vocab_size), np.diff(pairs.indptr))
    pairs.data = np.maximum(np.log(pairs.data * len(words) / (word_counts[row] * context_counts[pairs.indices])), 0.0)
    pairs.eliminate_zeros()
    return pairs


def _factor(matrix: sparse.csr_array, dim: int) -> np.ndarray:
    """Returns the rows in their first `dim` singular directions, scaled by the root of the singular value and centred.

    Rows without entries are 0. Each direction has the sign that makes its largest entry positive, so that every
    machine computes the same vectors.
    """
    rows, columns = np.flatnonzero(np.diff(matrix.indptr)), np.unique(matrix.indices)
    vectors = np.zeros((len(matrix.indptr) - 1, dim))
    if not len(rows):
        return vectors
    entries = matrix[rows][:, columns]
    if min(entries.shape) <= max(_DENSE, 2 * dim):
        factors = np.linalg.svd(entries.toarray(), full_matrices=False)
    else:
        factors = svds(entries, k=dim, v0=np.ones(min(entries.shape)))
    directions, singular_values = np.asarray(factors[0]), np.asarray(factors[1])
    largest = np.argsort(-singular_values)[:dim]
    largest = largest[singular_values[largest] > 1e-9 * singular_values.max()]
    directions, singular_values = directions[:, largest], singular_values[largest]
    peak = np.take_along_axis(directions, np.argmax(np.abs(directions), axis=0)[None], axis=0)
    scaled = directions * np.sign(peak) * np.sqrt(singular_values)
    vectors[rows, : len(largest)] = scaled - scaled.mean(axis=0)
    return vectors


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
