"""The autoregressive baseline: its likelihood is a distribution over sentences, and its samples follow it."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.methods.autoregressive import Autoregressive
from jtextdiff.methods.components.autoregressive_sampler import DecodingSettings, allowed_next, previous_tokens
from jtextdiff.methods.components.types import Given, TextSpec, nothing_given
from jtextdiff.methods.method import Method
from jtextdiff.nets.transformer import Transformer

PAD, EOS, VOCAB, LENGTH = 0, 1, 5, 4
METHOD = Autoregressive(
    text_spec=TextSpec(vocab_size=VOCAB, mask=VOCAB, pad=PAD, eos=EOS, length=LENGTH, length_counts=(0, 1, 1, 1, 1)),
    trunk=Transformer(num_layers=1, width=16, num_heads=2, expansion=2, causal=True, max_length=LENGTH),
)
LOSS, NLL = jax.jit(METHOD.loss), jax.jit(METHOD.nll)
SAMPLE = jax.jit(METHOD.sample, static_argnames="keep_path")


@pytest.fixture(scope="module")
def params() -> dict:
    """Doubled initial parameters: the distribution is far from uniform. PAD, never sampled, has probability near 0."""
    larger = jax.tree.map(lambda leaf: 2.0 * leaf, METHOD.init(jax.random.key(0)))
    return {**larger, "answer": {**larger["answer"], "bias": larger["answer"]["bias"].at[PAD].set(-40.0)}}


def batch(rows: list[list[int]]) -> Batch:
    tokens, valid = np.full((len(rows), LENGTH), PAD, np.int32), np.zeros((len(rows), LENGTH), bool)
    for row, words in enumerate(rows):
        tokens[row, : len(words)], valid[row, : len(words)] = words, True
    return Batch(tokens, valid, np.zeros_like(valid), {})


ENDED = [
    [*words, EOS]
    for length in range(LENGTH)
    for words in itertools.product([token for token in range(VOCAB) if token != EOS], repeat=length)
]
UNENDED = [list(words) for words in itertools.product([t for t in range(VOCAB) if t != EOS], repeat=LENGTH)]


def probabilities(params: dict, rows: list[list[int]]) -> np.ndarray:
    all_rows = batch(ENDED + UNENDED)
    p = np.exp(-np.asarray(NLL(params, jax.random.key(1), all_rows), np.float64))
    return p[: len(ENDED)] if rows is ENDED else p[len(ENDED) :]


def keys(seed: int, num: int) -> jax.Array:
    return keys_for(jax.random.key(seed), jnp.arange(num))


def test_is_a_method() -> None:
    assert isinstance(METHOD, Method)
    assert METHOD.bound == "exact"
    assert METHOD.prefix_only


def test_probabilities_of_all_sentences_sum_to_one(params: dict) -> None:
    """Over the sentences that end within the length and those that do not."""
    ended, others = probabilities(params, ENDED).sum(), probabilities(params, UNENDED).sum()
    assert ended < 1
    assert ended == pytest.approx(1 - others, abs=1e-5)
    assert np.ptp(probabilities(params, ENDED)) > 0.01


def test_samples_follow_the_likelihood(params: dict) -> None:
    """A sentence that ends early has its probability as frequency. At the last position EOS is forced."""
    num = 4096
    tokens = np.asarray(SAMPLE(params, keys(2, num), nothing_given(num, LENGTH)).tokens)
    expected = probabilities(params, ENDED)
    rows = batch(ENDED).tokens
    for sentence, words, probability in zip(ENDED, rows, expected, strict=True):
        if len(sentence) == LENGTH:  # forced: the probability of its tokens before EOS
            continue
        share = np.mean(np.all(tokens == words, axis=1))
        assert abs(share - probability) <= 5 * np.sqrt(probability * (1 - probability) / num), sentence


def test_loss_is_the_nll_over_the_mean_length(params: dict) -> None:
    """The mean length of a training text is 2.5. Over its own length a short text would weigh more."""
    rows = batch([[2, 3, 1], [3, 1], [2, 2, 3, 1]])
    loss, terms = LOSS(params, jax.random.key(3), rows)
    nats = NLL(params, jax.random.key(4), rows)
    np.testing.assert_allclose(loss * 2.5, nats, rtol=1e-5)
    np.testing.assert_allclose(terms["cross_entropy"] * 2.5, nats, rtol=1e-5)


def test_loss_twice_with_one_key_is_identical(params: dict) -> None:
    rows = batch([[2, 3, 1], [3, 1], [2, 2, 3, 1]])
    one, other = (LOSS(params, jax.random.key(5), rows)[0] for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_padding_changes_nothing(params: dict) -> None:
    rows = batch([[2, 3, 1], [3, 1], [2, 2, 3, 1]])
    filled = rows._replace(tokens=np.where(rows.valid, rows.tokens, 3))
    features = jax.jit(lambda params, key, batch: METHOD.features(params, batch))
    for function in (LOSS, NLL, features):
        one, other = (jax.tree.leaves(function(params, jax.random.key(6), b))[0] for b in (rows, filled))
        np.testing.assert_array_equal(one, other)


def test_a_sentence_ends_once_and_is_padded(params: dict) -> None:
    tokens = np.asarray(SAMPLE(params, keys(7, 256), nothing_given(256, LENGTH)).tokens)
    assert np.all(np.sum(tokens == EOS, axis=1) == 1)
    after = np.cumsum(tokens == EOS, axis=1) - (tokens == EOS) > 0
    assert np.all(tokens[after] == PAD)


def test_a_prefix_is_kept(params: dict) -> None:
    given = Given(
        jnp.asarray([[2, 3, 0, 0], [3, 0, 0, 0]]),
        jnp.asarray([[True, True, False, False], [True, False, False, False]]),
        jnp.zeros(2, jnp.int32),
    )
    tokens = np.asarray(SAMPLE(params, keys(8, 2), given).tokens)
    np.testing.assert_array_equal(tokens[0, :2], [2, 3])
    assert tokens[1, 0] == 3


def test_a_given_token_is_the_only_one_allowed_there() -> None:
    """Also EOS before the given length, or another token at it. Elsewhere the length decides."""
    tokens = jnp.asarray([[2, EOS, 0, 3], [0, 3, 0, 0]])
    fixed = jnp.asarray([[True, True, False, True], [False, True, False, False]])
    given = Given(tokens, fixed, jnp.asarray([4, 2]))
    allowed = np.asarray(allowed_next(METHOD.text_spec, given))
    for position in range(tokens.shape[1]):
        alone = allowed_next(METHOD.text_spec, given, jnp.asarray(position))
        np.testing.assert_array_equal(alone, allowed[:, position : position + 1])
    for row, position in np.argwhere(fixed):
        assert np.flatnonzero(allowed[row, position]).tolist() == [tokens[row, position]]
    assert np.flatnonzero(allowed[0, 2]).tolist() == [2, 3, 4] and np.flatnonzero(allowed[1, 0]).tolist() == [2, 3, 4]


def test_a_given_length_is_enforced(params: dict) -> None:
    """EOS comes there and nowhere before. Without a given length it comes anywhere."""
    given = nothing_given(64, LENGTH)._replace(length=jnp.asarray([2, 3, 4, 0] * 16))
    tokens = np.asarray(SAMPLE(params, keys(10, 64), given).tokens)
    lengths = np.argmax(tokens == EOS, axis=1) + 1
    np.testing.assert_array_equal(lengths.reshape(16, 4)[:, :3], [[2, 3, 4]] * 16)
    assert len(set(lengths.reshape(16, 4)[:, 3])) > 1


def test_the_unknown_token_is_sampled_only_where_it_is_given(params: dict) -> None:
    method = dataclasses.replace(METHOD, text_spec=dataclasses.replace(METHOD.text_spec, unk=2))
    unk_prone = params | {"answer": params["answer"] | {"bias": params["answer"]["bias"].at[2].add(20.0)}}
    given = nothing_given(64, LENGTH)._replace(tokens=jnp.full((64, LENGTH), 2))
    keys = keys_for(jax.random.key(9), jnp.arange(64))
    assert np.any(np.asarray(SAMPLE(unk_prone, keys, given).tokens) == 2)
    sample = jax.jit(method.sample)
    assert not np.any(np.asarray(sample(unk_prone, keys, given).tokens) == 2)
    fixed = given._replace(fixed=given.fixed.at[:, 0].set(True))
    assert np.all(np.asarray(sample(unk_prone, keys, fixed).tokens)[:, 0] == 2)


def test_a_sample_depends_on_its_own_key_and_not_on_the_batch(params: dict) -> None:
    eight = SAMPLE(params, keys(9, 8), nothing_given(8, LENGTH)).tokens
    for row in (0, 5):
        alone = SAMPLE(params, keys(9, 8)[row : row + 1], nothing_given(1, LENGTH)).tokens
        np.testing.assert_array_equal(alone[0], eight[row])


def test_the_path_is_returned_only_on_request(params: dict) -> None:
    plain = SAMPLE(params, keys(10, 4), nothing_given(4, LENGTH))
    with_path = SAMPLE(params, keys(10, 4), nothing_given(4, LENGTH), keep_path=True)
    assert plain.path is None
    assert with_path.path.shape == (LENGTH + 1, 4, LENGTH)
    np.testing.assert_array_equal(with_path.tokens, plain.tokens)
    np.testing.assert_array_equal(with_path.path[-1], with_path.tokens)


def test_a_trunk_that_is_not_causal_is_refused() -> None:
    with pytest.raises(ValueError, match="causal"):
        Autoregressive(trunk=Transformer(causal=False))


SHAPES = [
    {},
    {"norm": "post", "positions": "learned"},
    {"positions": "relative"},
    {"positions": "rotary", "num_layers": 2},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cached_steps_equal_the_whole_pass(shape: dict) -> None:
    trunk = dataclasses.replace(METHOD.trunk, num_layers=2, **{k: v for k, v in shape.items() if k != "num_layers"})
    method = dataclasses.replace(METHOD, trunk=trunk)
    weights = jax.tree.map(lambda leaf: 2.0 * leaf, method.init(jax.random.key(11)))
    tokens = jnp.asarray([[2, 3, 3, 1], [3, 2, 1, 0]])
    net = method.net.bind(weights)
    all_logits, step = jax.jit(net)(previous_tokens(method.text_spec, tokens)), jax.jit(net.step)
    previous, cache = jnp.asarray([[EOS, 2, 3, 3], [EOS, 3, 2, 1]]), net.init_cache(2, LENGTH)
    for position in range(LENGTH):
        logits, cache = step(previous[:, position], jnp.asarray(position), cache)
        np.testing.assert_allclose(logits, all_logits[:, position], atol=1e-5)


def beam_search(params: dict, width: int) -> list[int]:
    method = dataclasses.replace(METHOD, sampler=DecodingSettings(name="beam", beams=width))
    return np.asarray(jax.jit(method.sample)(params, keys(12, 2), nothing_given(2, LENGTH)).tokens)[1].tolist()


def test_a_wide_beam_finds_the_most_likely_text(params: dict) -> None:
    """By enumeration. EOS is forced at the last position, so its probability there does not count."""
    logits = jax.jit(METHOD.net.bind(params))(previous_tokens(METHOD.text_spec, jnp.asarray(batch(ENDED).tokens)))
    log_p = np.asarray(jax.nn.log_softmax(logits.at[..., -1, :].set(0.0).at[:, -1].set(0.0)))
    rows = batch(ENDED)
    free = np.arange(LENGTH) < LENGTH - 1
    chosen = np.take_along_axis(log_p, rows.tokens[..., None], -1)[..., 0]
    scores = np.sum(np.where(rows.valid & free, chosen, 0.0), axis=1)
    assert beam_search(params, 40) == rows.tokens[np.argmax(scores)].tolist()


def test_low_temperature_and_small_top_p_equal_greedy_decoding(params: dict) -> None:
    settings = [
        DecodingSettings(name="greedy"),
        DecodingSettings(temperature=0.01),
        DecodingSettings(top_p=1e-6),
        DecodingSettings(name="beam", beams=2),
    ]
    samples = [
        np.asarray(
            jax.jit(dataclasses.replace(METHOD, sampler=decoding).sample)(
                params, keys(13, 4), nothing_given(4, LENGTH)
            ).tokens
        )
        for decoding in settings
    ]
    np.testing.assert_array_equal(samples[0], samples[1])
    np.testing.assert_array_equal(samples[0], samples[2])
    assert np.all(samples[3] == samples[3][0])


def test_calls_are_the_sampled_tokens(params: dict) -> None:
    sample = SAMPLE(params, keys(14, 64), nothing_given(64, LENGTH))
    np.testing.assert_array_equal(sample.calls, (np.asarray(sample.tokens) != PAD).sum(axis=1))


@pytest.mark.parametrize("bad", [{"name": "nucleus"}, {"beams": 3}, {"temperature": 0.0}, {"top_p": 0.0}])
def test_invalid_decoding_settings_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        DecodingSettings(**bad)
