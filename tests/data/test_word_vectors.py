"""Word vectors from contexts: similar contexts give near vectors."""

from itertools import permutations

import numpy as np
import pytest

from jtextdiff.data import word_vectors
from jtextdiff.data.word_vectors import neighbour_vectors

COLOURS, DISHES, EOS, NAMES, ABSENT = [0, 1, 2], [3, 4, 5], 6, [7, 8, 9], 10


def corpus(num: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Texts "name colour dish": words of a kind have the same contexts."""
    rng = np.random.default_rng(0)
    rows = [[rng.choice(NAMES), rng.choice(COLOURS), rng.choice(DISHES), EOS] for _ in range(num)]
    return np.concatenate(rows).astype(np.uint16), np.arange(num + 1) * 4


@pytest.mark.parametrize("dense", [500, 0], ids=["dense", "sparse"])
def test_words_with_similar_contexts_are_near(dense: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_vectors, "_DENSE", dense)
    vectors = neighbour_vectors(*corpus(), vocab_size=11, dim=5)
    closeness = vectors @ vectors.T
    kinds = [COLOURS, DISHES, NAMES]
    within = [closeness[a, b] for kind in kinds for a in kind for b in kind if a < b]
    between = [closeness[a, b] for kind, others in permutations(kinds, 2) for a in kind for b in others]
    assert np.mean(within) > np.mean(between) + 0.7  # of random vectors .3 at most


def test_vectors_have_norm_one_and_no_two_are_equal() -> None:
    vectors = neighbour_vectors(*corpus(), vocab_size=11, dim=16)  # more directions than the text has
    assert vectors.shape == (11, 16) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    assert np.max(vectors @ vectors.T - 2 * np.eye(11)) < 0.999


def test_contexts_end_at_the_text() -> None:
    tokens, offsets = corpus()
    order = np.random.default_rng(1).permutation(len(offsets) - 1)
    shuffled = tokens.reshape(-1, 4)[order].ravel()
    assert np.array_equal(neighbour_vectors(shuffled, offsets, 11, 5), neighbour_vectors(tokens, offsets, 11, 5))


def test_ppmi_is_that_of_the_pairs() -> None:
    matrix = word_vectors._ppmi(np.asarray([0, 1, 0, 1, 2, 1]), np.asarray([0, 2, 4, 6]), 3).toarray()
    after = matrix[:, 6:9]  # the word one position later: pairs 0→1 twice, 2→1 once, never across texts
    np.testing.assert_allclose(after, 0.0, atol=1e-12)  # 1 always follows, so it is uninformative
    before = matrix[:, 3:6]
    np.testing.assert_allclose(before, 0.0, atol=1e-12)
    separate = word_vectors._ppmi(np.asarray([0, 1, 2, 3]), np.asarray([0, 2, 4]), 4).toarray()[:, 8:12]
    np.testing.assert_allclose(separate[0, 1], np.log(2))  # p(0, 1) = 1/2, p(0) = p(1) = 1/2


def test_words_that_never_occur_get_random_vectors() -> None:
    tokens, offsets = corpus()
    vectors = neighbour_vectors(tokens, offsets, vocab_size=300, dim=32)  # words 10 … 299 never occur
    absent = vectors[10:] @ vectors[10:].T
    assert abs(np.mean(absent[np.triu_indices(290, 1)])) < 0.02


@pytest.mark.parametrize("vocab_size", [4, 600])
def test_texts_of_one_word_have_vectors_too(vocab_size: int) -> None:
    vectors = neighbour_vectors(np.asarray([3, 1, 2, 1]), np.asarray([0, 1, 2, 3, 4]), vocab_size, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    repeated = neighbour_vectors(np.tile([3, 1], 500), np.arange(0, 1001, 2), vocab_size, 16)
    np.testing.assert_allclose(np.linalg.norm(repeated, axis=1), 1.0, rtol=1e-5)


def test_context_vectors_are_centred_and_zero_for_absent_words() -> None:
    vectors = word_vectors._factor(word_vectors._ppmi(*corpus(), 20), 5)
    np.testing.assert_allclose(vectors[:10].sum(axis=0), 0.0, atol=1e-9)
    assert vectors[:10].any(axis=1).all() and not vectors[10:].any()


def test_full_and_truncated_decompositions_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    full = neighbour_vectors(*corpus(), vocab_size=11, dim=4)
    monkeypatch.setattr(word_vectors, "_DENSE", 0)
    np.testing.assert_allclose(neighbour_vectors(*corpus(), vocab_size=11, dim=4), full, atol=1e-5)
