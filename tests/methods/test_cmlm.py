"""CMLM: its loss is the bound of masked diffusion over the length; mask-predict masks the least likely tokens again."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.cases import slow_but
from support.params import random_params

from jtextdiff.data.batches import Batch
from jtextdiff.methods.cmlm import CMLM, MaskPredict
from jtextdiff.methods.components.types import Given, TextSpec, nothing_given
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling import masked_samplers as unmasking
from jtextdiff.sampling.loop import unroll
from jtextdiff.sampling.masked_state import MaskedState

TEXT_SPEC = TextSpec(vocab_size=12, mask=12, pad=0, eos=1, length=8, length_counts=(0, 0, 1, 2, 1, 1, 1, 0, 3))
METHOD = CMLM(
    text_spec=TEXT_SPEC,
    trunk=Transformer(num_layers=1, width=16, num_heads=2, expansion=2, max_length=8),
    sampler=MaskPredict(steps=4),
)


def test_the_loss_is_the_bound_by_the_mean_length() -> None:
    """The mean length is 47/9 tokens. By its own length, each token of a short text would weigh more."""
    params = METHOD.init(jax.random.key(0))
    rows, repeat = np.asarray([[2, 3, 4, 5, 1], [6, 7, 1, 0, 0]], np.int32), 4_000
    tokens = np.repeat(rows, repeat, axis=0)
    valid = np.repeat(np.asarray([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], bool), repeat, axis=0)
    batch = Batch(tokens, valid, np.zeros_like(valid), {})
    loss = np.asarray(jax.jit(METHOD.loss)(params, jax.random.key(1), batch)[0], np.float64).reshape(2, -1)
    nats = np.asarray(jax.jit(METHOD.nll)(params, jax.random.key(2), batch), np.float64).reshape(2, -1)
    loss = loss * 47 / 9
    error = np.sqrt((loss.var(1) + nats.var(1)) / repeat)
    assert np.all(np.abs(loss.mean(1) - nats.mean(1)) <= 5 * error)
    assert abs(loss[0].mean() - loss[1].mean()) > 1  # two texts of different lengths


def test_the_published_numbers_of_masked_tokens() -> None:
    """N = 12, T = 10: all, then 10, 9, 8, 7, 6, 4, 3, 2, 1, the least likely first."""
    inputs = []

    def predict(x_t: jax.Array, t: float, hidden: None) -> tuple[jax.Array, None]:
        jax.debug.callback(lambda tokens: inputs.append(int((tokens == 9).sum())), x_t, ordered=True)
        return jnp.broadcast_to(jnp.log(jnp.asarray([0.5, 0.3, 0.2])), (*x_t.shape, 3)), hidden

    free = jnp.ones((1, 12), bool)
    step = unmasking.mask_predict(predict, 9, free, 10)
    state = MaskedState.start(jnp.full((1, 12), 9), jnp.ones((1, 12), bool))
    unroll(step, state, jax.random.split(jax.random.key(0), 1), jnp.arange(10))
    jax.effects_barrier()
    assert inputs == [12, 10, 9, 8, 7, 6, 4, 3, 2, 1]


@pytest.mark.parametrize("candidates", slow_but([1], [1, 3]))
def test_samples_keep_given_tokens_and_do_not_depend_on_their_batch(candidates: int) -> None:
    method = dataclasses.replace(METHOD, sampler=MaskPredict(steps=4, candidates=candidates))
    params, keys = random_params(method.init), jax.random.split(jax.random.key(3), 8)
    fixed = jnp.zeros((8, 8), bool).at[:, 0].set(True)
    given = Given(jnp.full((8, 8), 7), fixed, jnp.asarray([4, 5, 8, 3, 2, 6, 7, 4]))
    sample = jax.jit(method.sample, static_argnames="keep_path")
    result = sample(params, keys, given, keep_path=True)
    tokens = np.asarray(result.tokens)
    assert np.all(tokens[:, 0] == 7) and not np.any(tokens == 12)
    assert result.path.shape == (5, 8, 8) and np.all(result.calls == 4 * candidates)
    np.testing.assert_array_equal(result.path[-1], tokens)
    for row, length in enumerate(np.asarray(given.length)):
        assert tokens[row, length - 1] == 1 and np.all(tokens[row, length:] == 0)
    order = np.asarray([3, 1, 4, 0, 2, 7, 6, 5])
    again = sample(params, keys[order], jax.tree.map(lambda leaf: leaf[order], given))
    np.testing.assert_array_equal(again.tokens, tokens[order])


class OneDistribution:
    """A network that predicts the same distribution of tokens at every position."""

    log_p = jax.nn.log_softmax(jnp.arange(12.0) / 3)

    def bind(self, params: dict) -> "OneDistribution":
        return self

    def __call__(self, x_t: jax.Array, *, valid: jax.Array) -> jax.Array:
        return jnp.broadcast_to(self.log_p, (*x_t.shape, 12))


def test_a_candidate_is_scored_by_the_mean_over_its_tokens() -> None:
    """Of two lengths: by the sum, the shorter text would nearly always be the more likely one."""
    params = {"words": {}, "lengths": {"bias": jnp.full(9, -jnp.inf).at[jnp.asarray([2, 8])].set(0.0)}}
    method = dataclasses.replace(METHOD, sampler=MaskPredict(steps=1))
    method.__dict__["net"] = OneDistribution()
    decode = jax.jit(lambda keys: method._decode(params, keys, nothing_given(64, 8), None, False))
    sample, score = decode(jax.random.split(jax.random.key(4), 64))
    of_words = np.asarray(jax.nn.log_softmax(OneDistribution.log_p.at[:2].set(-jnp.inf)))
    is_word, length = np.asarray(sample.tokens) > 1, np.sum(np.asarray(sample.tokens) != 0, axis=-1)
    assert set(length) == {2, 8}
    np.testing.assert_allclose(score, np.sum(of_words[sample.tokens], axis=-1, where=is_word) / length, rtol=1e-5)


def test_the_most_likely_candidate_is_returned() -> None:
    """The first of four candidates is the only one of one, so the best of four is never less likely."""
    given, score = nothing_given(64, 8)._replace(length=jnp.full(64, 6)), {}
    for candidates in (1, 4):
        method = dataclasses.replace(METHOD, sampler=MaskPredict(steps=1, candidates=candidates))
        method.__dict__["net"] = OneDistribution()
        params = {"words": {}, "lengths": {"bias": jnp.zeros(9)}}
        tokens = jax.jit(method.sample)(params, jax.random.split(jax.random.key(4), 64), given).tokens
        score[candidates] = np.asarray(OneDistribution.log_p)[tokens[:, :5]].mean(-1)
    assert np.all(score[4] >= score[1] - 1e-6) and score[4].mean() > score[1].mean() + 0.2
