"""Block diffusion in a world of two words, by enumeration: blocks of one token, of several, and of a whole text."""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.cases import slow_but
from support.params import random_params

from jtextdiff.data.batches import Batch
from jtextdiff.methods.block_diffusion import BlockDiffusion
from jtextdiff.methods.components.types import TextSpec, nothing_given, possible_kinds, words_only
from jtextdiff.methods.method import Method
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.masked_samplers import NAMES, Unmasking

EOS, PAD, UNK, MASK, LENGTH = 0, 1, 4, 5, 4  # 2 and 3 are the words
TEXT_SPEC = TextSpec(vocab_size=5, mask=MASK, pad=PAD, eos=EOS, unk=UNK, length=LENGTH, length_counts=(0, 1, 1, 1, 1))
TRUNK = Transformer(width=16, num_layers=2, num_heads=2)


def method(block_size: int, sampler: str = "first_hitting", **settings: Any) -> BlockDiffusion:
    sampling = Unmasking(name=sampler, **settings)
    return BlockDiffusion(text_spec=TEXT_SPEC, trunk=TRUNK, block_size=block_size, sampler=sampling)


@functools.cache
def trained() -> Any:
    """Returns parameters far from the initial ones, under which UNK is unlikely. Blocks of any size have the same."""
    params = random_params(method(1).init)
    return params | {"answer": params["answer"] | {"bias": params["answer"]["bias"].at[UNK].set(-40.0)}}


def all_texts() -> Batch:
    rows = [
        [*words, EOS] + [PAD] * (LENGTH - 1 - len(words))
        for size in range(LENGTH)
        for words in itertools.product((2, 3), repeat=size)
    ]
    tokens = np.asarray(rows, np.int32)
    valid = np.cumsum(tokens == EOS, axis=1) - (tokens == EOS) == 0
    return Batch(tokens, valid, np.zeros_like(valid), {})


def mean_of(function: Any, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean over keys, and its standard error."""
    draws = np.asarray(jax.lax.map(function, jax.random.split(jax.random.key(3), repeats)), np.float64)
    return draws.mean(0), draws.std(0) / np.sqrt(repeats)


@functools.cache
def bound(block_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the bound of each text and its standard error."""
    params, batch = trained(), all_texts()
    return mean_of(lambda key: method(block_size).nll(params, key, batch), 300)


def test_is_a_method() -> None:
    assert isinstance(method(2), Method)


@pytest.mark.parametrize("block_size", slow_but([3], [1, 2, 3, 4]))
def test_the_bound_in_one_pass_is_the_one_computed_block_by_block_with_the_cache(block_size: int) -> None:
    model, batch = method(block_size), all_texts()
    (nats, error), params = bound(block_size), trained()
    cached, cached_error = mean_of(lambda key: model.nll_check(params, key, batch), 300)
    assert (abs(nats - cached) <= 5 * np.hypot(error, cached_error) + 1e-4).all()
    if block_size == 1:
        assert model.bound == "exact" and error.max() == 0


@pytest.mark.parametrize("block_size", slow_but([3], [1, 2, 3, 4]))
def test_samples_are_as_frequent_as_the_likelihood_says(block_size: int) -> None:
    """Exactly so for blocks of one token; for others at least as frequent, since −log p is below its bound."""
    model, batch, num, (nats, error) = method(block_size), all_texts(), 20_000, bound(block_size)
    short = batch.valid.sum(1) < LENGTH  # the end of the others is forced
    at_least = np.exp(-nats)[short]
    keys = jax.random.split(jax.random.key(1), num)
    tokens = np.asarray(jax.jit(model.sample)(trained(), keys, nothing_given(num, 4)).tokens)
    count = (tokens[:, None] == batch.tokens[None]).all(-1).sum(0)
    assert count.sum() == num  # nothing but texts
    share = count[short] / num
    slack = 5 * np.sqrt((share + 1 / num) / num) + 5 * at_least * error[short]
    assert (share >= at_least - slack).all()
    if block_size == 1:
        assert (abs(share - at_least) <= slack).all()


@pytest.mark.slow
@pytest.mark.parametrize("block_size", slow_but([2], [1, 2, 3]))
@pytest.mark.parametrize("entropy", slow_but([0.0], [0.0, 0.5]))
def test_samples_are_as_frequent_as_the_likelihood_in_order_says(block_size: int, entropy: float) -> None:
    """Exactly so with one token a call. Blocks that are no text, drawn together, are mended: samples gain by that."""
    model, batch, num = method(block_size, "entropy_bounded", entropy=entropy), all_texts(), 20_000
    params = trained()
    free = batch.valid.sum(1) <= (LENGTH - 1) // block_size * block_size  # no end is forced in their blocks
    p = np.exp(-np.asarray(model.nll_in_order(params, jax.random.key(0), batch), np.float64))[free]
    keys = jax.random.split(jax.random.key(1), num)
    tokens = np.asarray(jax.jit(model.sample)(params, keys, nothing_given(num, 4)).tokens)
    share = (tokens[:, None] == batch.tokens[None]).all(-1).sum(0)[free] / num
    slack = 5 * np.sqrt((p + 1 / num) / num)
    assert len(p) >= 3 and (share >= p - slack).all()
    if entropy == 0:
        assert (share <= p + slack).all()


def test_self_planning_sees_the_end_that_it_has_revealed() -> None:
    """A certain end stays once it is revealed."""
    model = method(4, "self_planning", steps=8)
    params = trained()
    bias = params["answer"]["bias"].at[EOS].set(60.0)
    sure = params | {"answer": jax.tree.map(jnp.zeros_like, params["answer"]) | {"bias": bias}}
    keys = jax.random.split(jax.random.key(1), 20)
    path = jax.jit(functools.partial(model.sample, keep_path=True))(sure, keys, nothing_given(20, 4)).path
    is_end = np.asarray(path)[:, :, 0] == EOS
    assert is_end[-1].all() and (is_end[1:] >= is_end[:-1]).all()


def test_self_planning_counts_no_calls_of_texts_that_have_ended() -> None:
    """Two calls for each block of one token, one more to fill the cache if the text goes on."""
    model = method(1, "self_planning", steps=8)
    drawn = jax.jit(model.sample)(trained(), jax.random.split(jax.random.key(1), 200), nothing_given(200, 4))
    length = np.sum(np.asarray(drawn.tokens) != PAD, axis=1)
    assert set(length) == {1, 2, 3, 4}
    np.testing.assert_array_equal(drawn.calls, 3 * length - 1)


def test_only_words_are_counted_for_the_frequency_penalty() -> None:
    tokens = jnp.asarray([[2, MASK, 3, EOS, PAD]])
    np.testing.assert_array_equal(words_only(TEXT_SPEC, tokens), [[2, 5, 3, 5, 5]])
    inside = dataclasses.replace(TEXT_SPEC, vocab_size=6)  # MASK is one of the ids
    np.testing.assert_array_equal(words_only(inside, tokens), [[2, 6, 3, 6, 6]])


def test_one_block_is_masked_diffusion_of_a_text_with_its_padding() -> None:
    """The loss of a fresh, uniform network: log of the number of possible tokens, by enumeration of masks."""
    model = method(4)
    params, batch = jax.tree.map(jnp.zeros_like, trained()), all_texts()
    row = Batch(batch.tokens[5:6], batch.valid[5:6], batch.given[5:6], {})  # two words, EOS, PAD
    expected = 0.0
    for masked in itertools.product([False, True], repeat=4):
        if any(masked):
            nats = 0.0
            for place in np.flatnonzero(masked):
                known = [token if not hidden else None for token, hidden in zip(row.tokens[0], masked, strict=True)]
                nats += np.log(len(possible(known, int(place))))
            expected += nats / sum(masked) / len(list(itertools.combinations(range(4), sum(masked))))
    result, error = mean_of(lambda key: model.nll(params, key, row), 2_000)
    assert abs(result[0] - expected) <= 5 * error[0] + 1e-4


def possible(known: list[int | None], place: int, pad: int = PAD) -> set[int]:
    """Returns the tokens at a place of the texts, padded, that agree with the known ones; UNK is a word like others."""
    words = [list(words) for size in range(5) for words in itertools.product((2, 3, UNK), repeat=size)]
    texts = [[*some, EOS, pad, pad, pad][:4] for some in words]  # four words go on in the next block
    agree = [text for text in texts if all(k is None or k == token for k, token in zip(known, text, strict=True))]
    return {text[place] for text in agree}


@pytest.mark.parametrize("pad", [PAD, EOS])
def test_the_possible_tokens_of_a_block_are_those_of_texts_that_agree_with_it(pad: int) -> None:
    """Every state of a block: no token that no text has there, and each that one has."""
    model = dataclasses.replace(method(4), text_spec=dataclasses.replace(TEXT_SPEC, pad=pad))
    blocks = list(itertools.product(sorted({EOS, pad, 2}) + [None], repeat=4))
    x_t = jnp.asarray([[MASK if token is None else token for token in known] for known in blocks])
    for known, flags in zip(blocks, np.asarray(possible_kinds(model.text_spec, x_t)), strict=True):
        for place in np.flatnonzero([token is None for token in known]):
            expected = possible(list(known), int(place), pad)
            word, eos, padding = flags[place]
            if expected:
                assert (word, eos | padding & (pad == EOS)) == (2 in expected, EOS in expected), (known, place)
                assert pad == EOS or padding == (pad in expected), (known, place)


@pytest.mark.parametrize("sampler", slow_but(["entropy_bounded"], NAMES))
def test_samples_keep_what_is_given_and_do_not_depend_on_their_batch(sampler: str) -> None:
    model = method(2, sampler, steps=8)
    params, keys = trained(), jax.random.split(jax.random.key(7), 12)
    given = nothing_given(12, 4)
    length = jnp.asarray([0, 1, 2, 3, 4, 0, 2, 3, 4, 0, 3, 4])
    fixed = given.fixed.at[9:, 0].set(True)
    given = given._replace(length=length, tokens=given.tokens.at[9:, 0].set(UNK), fixed=fixed)
    sample = jax.jit(functools.partial(model.sample, params))
    whole = sample(keys, given)
    for rows in (np.arange(12) % 6, np.arange(12) % 6 + 6):  # half of the texts, each twice: the same program
        half = sample(*jax.tree.map(lambda leaf, rows=rows: leaf[rows], (keys, given)))
        np.testing.assert_array_equal(half.tokens, whole.tokens[rows])
        np.testing.assert_array_equal(half.calls, whole.calls[rows])
    tokens = np.asarray(whole.tokens)
    size = np.argmax(tokens == EOS, axis=1) + 1
    assert (tokens[9:, 0] == UNK).all() and (tokens[:, 1:] != UNK).all()
    for row, wanted in zip(range(12), length, strict=True):
        assert size[row] == wanted or wanted == 0
        assert (tokens[row, size[row] :] == PAD).all() and (tokens[row, : size[row] - 1] >= 2).all()


@pytest.mark.parametrize("steps", slow_but([2], [2, 8]))
def test_the_path_ends_in_the_sample_and_changes_no_token_that_was_drawn(steps: int) -> None:
    model = method(2, "confidence", steps=steps)
    params, keys = trained(), jax.random.split(jax.random.key(7), 200)
    sample = jax.jit(model.sample, static_argnames="keep_path")
    seen = sample(params, keys, nothing_given(200, 4), keep_path=True)
    np.testing.assert_array_equal(seen.tokens, sample(params, keys, nothing_given(200, 4)).tokens)
    path = np.asarray(seen.path)
    np.testing.assert_array_equal(path[-1], seen.tokens)
    assert (path[0] == MASK).all()
    assert ((path[1:-1] == path[:-2]) | (path[:-2] == MASK)).all()


@pytest.mark.parametrize(("block_size", "sampler"), [(4, "confidence"), (4, "ancestral"), (3, "remasking")])
def test_tokens_that_are_drawn_together_make_a_text(block_size: int, sampler: str) -> None:
    """Several in a step, which may contradict each other and leave nothing for the rest of the block."""
    model = method(block_size, sampler, steps=2)
    params = trained()
    bias = params["answer"]["bias"].at[PAD].add(2.0)
    params |= {"answer": params["answer"] | {"bias": bias}}
    sample = jax.jit(model.sample)(params, jax.random.split(jax.random.key(7), 2_000), nothing_given(2_000, 4))
    texts = {tuple(row) for row in np.asarray(sample.tokens)}
    assert texts <= {tuple(row) for row in all_texts().tokens}


def test_a_given_length_is_that_of_every_sample() -> None:
    """The end is in the second block, and could come in the first."""
    model = method(2)
    given = nothing_given(500, 4)._replace(length=jnp.full(500, 3))
    tokens = np.asarray(jax.jit(model.sample)(trained(), jax.random.split(jax.random.key(7), 500), given).tokens)
    assert (np.argmax(tokens == EOS, axis=1) == 2).all()


def test_no_call_is_made_after_the_end() -> None:
    """Blocks of one token: one call for each, and one after each but the last that fills the cache."""
    model = method(1)
    sample = jax.jit(model.sample)(trained(), jax.random.split(jax.random.key(7), 100), nothing_given(100, 4))
    size = np.argmax(np.asarray(sample.tokens) == EOS, axis=1) + 1
    assert len(set(size)) > 1
    np.testing.assert_array_equal(sample.calls, 2 * size - 1)


class OneDistribution:
    """A network that predicts the same distribution of tokens at every position."""

    def bind(self, params: Any) -> "OneDistribution":
        return self

    def init_cache(self, num: int, length: int) -> tuple[()]:
        return ()

    def block_step(self, x_t: jax.Array, first: jax.Array, cache: tuple[()]) -> tuple[jax.Array, tuple[()]]:
        return jnp.broadcast_to(jnp.arange(5.0), (*x_t.shape, 5)), cache


def test_the_temperature_anneals_by_the_masked_share_of_the_block() -> None:
    """The token of a block of one is masked when it is drawn: its temperature is the first one."""
    tokens = []
    for anneal in (1.0, 0.5):
        model = method(1, anneal=anneal)
        model.__dict__["net"] = OneDistribution()
        sample = jax.jit(lambda keys, model=model: model.sample({}, keys, nothing_given(200, 4)).tokens)
        tokens.append(sample(jax.random.split(jax.random.key(7), 200)))
    np.testing.assert_array_equal(*tokens)


@pytest.mark.slow
def test_calls_are_shared_by_the_blocks() -> None:
    """Four tokens in blocks of two: at most two calls a block, with one more between the blocks."""
    params = trained()
    given = nothing_given(50, 4)._replace(length=jnp.full(50, 4))
    for steps, expected in ((2, 3), (8, 5)):
        model = method(2, "confidence", steps=steps)
        calls = model.sample(params, jax.random.split(jax.random.key(7), 50), given).calls
        # The last block has its EOS given, and one call for its word.
        assert (np.asarray(calls) == min(expected, 4)).all()


@pytest.mark.parametrize(("block_size", "steps", "share"), [(2, 4, 2), (2, 7, 3), (4, 3, 3), (1, 8, 2), (1, 2, 1)])
def test_a_block_has_the_share_of_the_steps_that_it_has_of_the_longest_text(
    block_size: int, steps: int, share: int
) -> None:
    assert method(block_size, "confidence", steps=steps)._block_sampler.steps == share


def test_learned_positions_reach_to_the_end_of_the_last_block() -> None:
    with pytest.raises(ValueError, match="max_length must be at least 6"):
        dataclasses.replace(method(3), trunk=dataclasses.replace(TRUNK, max_length=5))
    dataclasses.replace(method(3), trunk=dataclasses.replace(TRUNK, max_length=6))


def test_the_bound_says_which_samplers_it_does_not_bound() -> None:
    assert "does not do" in method(2, "entropy_bounded").bound and "does not do" not in method(2).bound


@pytest.mark.parametrize("trunk", [{"causal": True}, {"positions": "relative"}, {"positions": "xl"}])
def test_a_trunk_without_absolute_or_rotary_positions_is_refused(trunk: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="block diffusion needs"):
        dataclasses.replace(method(2), trunk=dataclasses.replace(TRUNK, **trunk))
