"""Left-to-right decoding: one position per step, with the cache handed on; beam search finds the most likely text."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.sampling.decoding import DecodingState, autoregress, beam_search, initial_beams
from jtextdiff.sampling.loop import unroll


def keys(seed: int, num: int) -> jax.Array:
    return keys_for(jax.random.key(seed), jnp.arange(num))


def test_autoregress_decodes_one_position_per_step() -> None:
    """A distribution that allows only `last token + 1` counts."""

    def next_token(tokens: jax.Array, position: jax.Array, cache: jax.Array) -> tuple[jax.Array, jax.Array]:
        previous = jnp.where(position > 0, tokens[:, position - 1], 0)
        return jnp.where(jax.nn.one_hot(previous + 1, 7) > 0, 0.0, -jnp.inf), cache + previous

    start = DecodingState(jnp.zeros((2, 5), jnp.int32), jnp.zeros(2, int))
    state, _ = unroll(autoregress(next_token), start, keys(18, 2), jnp.arange(5))
    np.testing.assert_array_equal(state.tokens, [[1, 2, 3, 4, 5]] * 2)
    np.testing.assert_array_equal(state.cache, [1 + 2 + 3 + 4] * 2)


def test_a_wide_beam_finds_the_most_likely_text() -> None:
    """Against all texts of three tokens of a Markov chain, with a beam that holds every prefix."""
    vocab_size, length, width, eos, pad = 4, 3, 16, 3, 0
    log_p = jax.nn.log_softmax(jax.random.normal(jax.random.key(2), (vocab_size, vocab_size)))

    def next_token(tokens: jax.Array, position: jax.Array, cache: jax.Array) -> tuple[jax.Array, jax.Array]:
        return log_p[jnp.where(position > 0, tokens[:, position - 1], eos)], cache

    start = initial_beams(DecodingState(jnp.full((width, length), -1), jnp.zeros(width)), width)
    end, _ = unroll(beam_search(next_token, width, eos, pad), start, keys(0, width), jnp.arange(length))

    def score(text: tuple[int, ...]) -> float:
        text = text[: text.index(eos) + 1] if eos in text else text
        return sum(float(log_p[a, b]) for a, b in itertools.pairwise((eos, *text)))

    best = max(score(text) for text in itertools.product(range(vocab_size), repeat=length))
    np.testing.assert_allclose(end.log_p[0], best, rtol=1e-5)
    np.testing.assert_allclose(score(tuple(np.asarray(end.tokens[0]).tolist())), best, rtol=1e-5)
    for text in np.asarray(end.tokens).tolist():
        assert set(text[text.index(eos) + 1 :] if eos in text else []) <= {pad}, "a finished beam continues with PAD"


def test_the_cache_of_a_beam_is_that_of_its_own_prefix() -> None:
    """The cache records the tokens that the network has read; two texts, with beams that change places."""
    width, length, eos = 3, 6, 4
    log_p = jax.nn.log_softmax(jax.random.normal(jax.random.key(5), (length, 5, 5)).at[..., eos].set(-1e9))

    def next_token(tokens: jax.Array, position: jax.Array, cache: jax.Array) -> tuple[jax.Array, jax.Array]:
        previous = jnp.where(position > 0, tokens[:, position - 1], jnp.repeat(jnp.arange(2), width))
        return log_p[position, previous], cache.at[:, position].set(previous)

    tokens = jnp.full((2 * width, length), -1)
    start = initial_beams(DecodingState(tokens, tokens), width)
    end, _ = unroll(beam_search(next_token, width, eos, 0), start, keys(0, 2 * width), jnp.arange(length))
    assert len({tuple(row) for row in np.asarray(end.tokens[:width, :-1]).tolist()}) > 1, "beams differ"
    np.testing.assert_array_equal(end.cache[:, 0], np.repeat(np.arange(2), width))
    np.testing.assert_array_equal(end.cache[:, 1:], end.tokens[:, :-1])
