"""Word vectors from a text alone: words that keep the same company lie near each other.

Positive pointwise mutual information with the words at most two places away, factorised (Bullinaria & Levy 2007;
Levy & Goldberg 2014, §5).
"""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds

PLACES = (-2, -1, 1, 2)
"""Where the company of a word stands; each place has contexts of its own."""

COMPANY = 0.6
"""How much of a vector is its word's company; the rest is random, which keeps words of one kind apart."""

_DENSE = 500  # words up to which the whole decomposition is quicker than its first part


def neighbour_vectors(
    tokens: NDArray[np.integer], offsets: NDArray[np.integer], vocab_size: int, dim: int
) -> NDArray[np.float32]:
    """A vector of norm 1 for each word, [vocab_size, dim]; a word whose company says nothing gets a random one.

    `tokens` are the texts end to end, text n being `tokens[offsets[n] : offsets[n + 1]]`.
    """
    company = _unit(_factor(_information(tokens, offsets, vocab_size), dim))
    chance = _unit(np.random.default_rng(0).standard_normal((vocab_size, dim)))
    return _unit(COMPANY * company + (1 - COMPANY) * chance).astype(np.float32)


def _information(tokens: NDArray[np.integer], offsets: NDArray[np.integer], vocab_size: int) -> sparse.csr_array:
    """Positive pointwise mutual information of words and their company, nats, [vocab_size, places × vocab_size]."""
    tokens = np.asarray(tokens, np.int64)
    text = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    places = [_one_place(tokens, text, vocab_size, place) for place in PLACES]
    return sparse.csr_array(sparse.hstack(places))


def _one_place(tokens: np.ndarray, text: np.ndarray, vocab_size: int, place: int) -> sparse.csr_array:
    here, there = (slice(0, -place), slice(place, None)) if place > 0 else (slice(-place, None), slice(0, place))
    same = text[here] == text[there]
    words, company = tokens[here][same], tokens[there][same]
    pairs = sparse.coo_array((np.ones(len(words)), (words, company)), shape=(vocab_size, vocab_size)).tocsr()
    of_word, of_company = (np.asarray(pairs.sum(axis=axis)).ravel() for axis in (1, 0))
    row = np.repeat(np.arange(vocab_size), np.diff(pairs.indptr))
    pairs.data = np.maximum(np.log(pairs.data * len(words) / (of_word[row] * of_company[pairs.indices])), 0.0)
    pairs.eliminate_zeros()
    return pairs


def _factor(matrix: sparse.csr_array, dim: int) -> np.ndarray:
    """The rows in their first `dim` principal directions, each scaled by the root of its weight, and centred.

    Rows without entries are 0. Of the two signs of a direction the one is taken that makes its largest entry
    positive, so that every machine finds the same vectors.
    """
    rows, columns = np.flatnonzero(np.diff(matrix.indptr)), np.unique(matrix.indices)
    vectors = np.zeros((len(matrix.indptr) - 1, dim))
    if not len(rows):
        return vectors
    entries = matrix[rows][:, columns]
    if min(entries.shape) <= max(_DENSE, 2 * dim):
        parts = np.linalg.svd(entries.toarray(), full_matrices=False)
    else:
        parts = svds(entries, k=dim, v0=np.ones(min(entries.shape)))
    left, weight = np.asarray(parts[0]), np.asarray(parts[1])
    largest = np.argsort(-weight)[:dim]
    largest = largest[weight[largest] > 1e-9 * weight.max()]
    left, weight = left[:, largest], weight[largest]
    peak = np.take_along_axis(left, np.argmax(np.abs(left), axis=0)[None], axis=0)
    scaled = left * np.sign(peak) * np.sqrt(weight)
    vectors[rows, : len(largest)] = scaled - scaled.mean(axis=0)
    return vectors


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
