"""A Kneser-Ney trigram model by hand, as a distribution, and as arrays."""

import math

import numpy as np
import pytest

from jtextdiff.metrics import trigrams
from jtextdiff.metrics.trigrams import Trigrams

VOCAB, EOS, START = 6, 1, 6


def rows(*texts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Texts with EOS as padded tokens, and which of them are valid."""
    longest = max(map(len, texts)) + 2
    tokens = np.asarray([[*text, EOS, *[0] * (longest - len(text) - 1)] for text in texts])
    return tokens, np.arange(longest) <= np.asarray([[len(text)] for text in texts])


TEXTS = ([2, 3, 4], [2, 3, 4], [2, 3], [5, 3, 4], [4])


@pytest.fixture(scope="module")
def model() -> Trigrams:
    return trigrams.fit(*rows(*TEXTS), VOCAB)


def test_a_token_after_a_known_context_has_the_probability_computed_by_hand(model: Trigrams) -> None:
    """p(4 | 2, 3), where 4 followed twice and EOS once."""
    # Each order's discount is (n_1 + 1)/(n_1 + 2 n_2 + 2). Of the ten trigrams, six occur once and one twice. There are
    # 1 1 2 2 1 1 1 1 different tokens before START 2, 2 3, 3 4, 4 EOS, 3 EOS, START 5, 5 3 and START 4, and 1 2 2 1 2
    # before 2, 3, 4, 5 and EOS.
    d_3, d_2, d_1 = 7 / (6 + 2 + 2), 7 / (6 + 4 + 2), 3 / (2 + 6 + 2)
    p_4 = (2 - d_1) / 8 + d_1 * 5 / 8 / VOCAB
    p_34 = (2 - d_2) / 3 + d_2 * 2 / 3 * p_4
    p_234 = (2 - d_3) / 3 + d_3 * 2 / 3 * p_34
    np.testing.assert_allclose(model.log_p(*map(np.asarray, (2, 3, 4))), math.log(p_234))
    # 5 never followed 3, nor 3 and 3 anything.
    p_5 = (1 - d_1) / 8 + d_1 * 5 / 8 / VOCAB
    p_35 = d_2 * 2 / 3 * p_5
    np.testing.assert_allclose(model.log_p(*map(np.asarray, (2, 3, 5))), math.log(d_3 * 2 / 3 * p_35))
    np.testing.assert_allclose(model.log_p(*map(np.asarray, (3, 3, 5))), math.log(p_35))


def test_the_tokens_after_any_two_have_a_distribution(model: Trigrams) -> None:
    first, second, third = np.meshgrid(np.arange(VOCAB + 1), np.arange(VOCAB + 1), np.arange(VOCAB), indexing="ij")
    np.testing.assert_allclose(np.exp(model.log_p(first, second, third)).sum(-1), 1.0)


def test_a_text_has_the_nats_of_its_tokens_and_the_words_of_the_training_texts_fewest(model: Trigrams) -> None:
    tokens, valid = rows([2, 3, 4], [4, 3, 2], [])
    nats = model.nll(tokens, valid)
    by_hand = [(START, START, 2), (START, 2, 3), (2, 3, 4), (3, 4, EOS)]
    np.testing.assert_allclose(nats[0], -sum(float(model.log_p(*map(np.asarray, three))) for three in by_hand))
    np.testing.assert_allclose(nats[2], -model.log_p(*map(np.asarray, (START, START, EOS))))
    assert nats[0] < nats[1]
    np.testing.assert_allclose(model.nll(tokens[:, :4], valid[:, :4])[:1], nats[:1])


def test_its_arrays_are_the_model_in_single_precision(model: Trigrams) -> None:
    again = trigrams.from_arrays(model.arrays(), VOCAB)
    np.testing.assert_allclose(again.nll(*rows(*TEXTS)), model.nll(*rows(*TEXTS)), rtol=1e-6)
    assert again.log_p_3.values.dtype == np.float32 and again.log_p_3.numbers.dtype == np.int64
    assert again.vocab_size == VOCAB


def test_one_text_is_enough() -> None:
    tokens, valid = rows([2])
    assert np.all(np.isfinite(trigrams.fit(tokens, valid, VOCAB).nll(*rows([2], [3, 3], []))))


def test_followers_are_the_tokens_that_came_after_with_their_probability(model: Trigrams) -> None:
    after = lambda token, least=-np.inf: sorted(model.followers(np.asarray([token]), least)[1].tolist())
    assert after(START) == [2, 4, 5] and after(3) == [EOS, 4] and after(2) == [3] and after(0) == []
    of, followers = model.followers(np.asarray([3, 0, 2, 3]), -np.inf)
    assert sorted(zip(of.tolist(), followers.tolist(), strict=True)) == [(0, EOS), (0, 4), (2, 3), (3, EOS), (3, 4)]
    log_p = model.log_p_2.get(np.asarray([3 * (VOCAB + 1) + EOS, 3 * (VOCAB + 1) + 4]), np.zeros(2))
    assert after(3, float(log_p.mean())) == [[EOS, 4][int(log_p.argmax())]]
