"""Masked sampling block by block: later blocks wait, given tokens stay, one block is the plain sampler, rows differ."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.cases import slow_but

from jtextdiff.diffusion.schedules import TOKEN_SCHEDULES
from jtextdiff.sampling import masked_samplers as unmasking
from jtextdiff.sampling.loop import unroll
from jtextdiff.sampling.masked_samplers import Unmasking, nll_in_order
from jtextdiff.sampling.masked_state import MaskedState

MASK, LENGTH, ROWS = 9, 10, 8
SCHEDULE = TOKEN_SCHEDULES["reciprocal"](1000)
NAMES = [name for name in unmasking.NAMES if name not in unmasking.REVISING]
TABLE = jnp.asarray(np.random.default_rng(5).normal(size=(LENGTH, LENGTH, MASK + 1, MASK)), jnp.float32)
PLACES = np.arange(LENGTH)[None]
NUM_GIVEN = np.asarray([2, 2, 7, 2, 2, 2, 2, 2])[:, None]  # tokens at the start of each row; the second has one more
GIVEN = jnp.asarray((PLACES < NUM_GIVEN) | ((PLACES == 6) & (np.arange(ROWS)[:, None] == 1)))


def predict(x_t: jax.Array, t: Any, hidden: None) -> tuple[jax.Array, None]:
    """Each token has logits that depend on all others, MASK included."""
    columns = jnp.arange(LENGTH)[None, :, None]
    logits = TABLE[columns, jnp.arange(LENGTH)[None, None], x_t[:, None, :]].sum(axis=2)
    return jax.nn.log_softmax(logits), hidden


def predict_locally(x_t: jax.Array, t: Any, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Each token has logits that depend on its neighbours, at any width, and on the number of calls."""
    beside = jnp.pad(x_t, ((0, 0), (1, 1)), constant_values=4)
    logits = TABLE[0, 0, beside[:, :-2]] + TABLE[1, 1, x_t] + TABLE[2, 2, beside[:, 2:]]
    return jax.nn.log_softmax(logits + 3 * jnp.cos(hidden * jnp.arange(float(MASK))[None, None])), hidden + 1


def start_of(given: jax.Array) -> MaskedState:
    return MaskedState.start(jnp.where(given, 4, MASK), ~given)


def path_of(sampler: Unmasking, given: jax.Array, local: bool = False) -> tuple[MaskedState, np.ndarray]:
    start, keys = start_of(given), jax.random.split(jax.random.key(1), ROWS)[: len(given)]
    start = start._replace(hidden=jnp.zeros((*given.shape, 1)) if local else None)
    step, grid = sampler.step_and_grid(SCHEDULE, predict_locally if local else predict, keys, start)
    done = lambda state: ~jnp.any(state.masked)
    end, path = unroll(step, start, keys, grid, record=lambda state: state.tokens, done=done)
    return end, np.asarray(path)


@pytest.mark.parametrize("name", slow_but(["confidence"], NAMES))
def test_one_block_is_the_plain_sampler(name: str) -> None:
    in_one, plain = (path_of(Unmasking(name=name, steps=4, block_length=length), GIVEN)[0] for length in (LENGTH, None))
    jax.tree.map(np.testing.assert_array_equal, in_one, plain)


@pytest.mark.parametrize("name", slow_but(["confidence"], NAMES))
def test_later_blocks_wait_and_given_tokens_stay(name: str) -> None:
    """A block is the next three tokens that were not given."""
    end, path = path_of(Unmasking(name=name, steps=20, block_length=3), GIVEN)
    given = np.asarray(GIVEN)
    assert np.all(path[:, given] == 4) and not end.masked.any() and np.all(end.tokens < MASK)
    for row in range(ROWS):
        free = np.flatnonzero(~given[row])
        for first in range(3, len(free), 3):
            before, later = free[:first], free[first:]
            written = (path[:, row, later] < MASK).any(axis=1)
            assert not (path[:-1, row, before] == MASK).any(axis=1)[written[1:]].any()
    assert np.all(np.asarray(end.calls) <= (~given).sum(axis=1))


@pytest.mark.parametrize("prompt", [0, 30])
def test_a_block_has_an_even_share_of_its_tokens_in_each_of_its_calls(prompt: int) -> None:
    """Six calls of ten tokens to write: three for each block of five, which reveal two, two and one."""
    given = jnp.broadcast_to(jnp.arange(prompt + 10) < prompt, (ROWS, prompt + 10))
    end, path = path_of(Unmasking(name="confidence", steps=6, block_length=5), given, local=True)
    revealed = -np.diff((path == MASK).sum(axis=-1), axis=0)
    np.testing.assert_array_equal(revealed[:6], np.tile([[2], [2], [1]] * 2, ROWS))
    assert np.all(np.asarray(end.calls) == 6)


def test_a_block_takes_one_call_at_least_and_one_a_token_at_most() -> None:
    for steps, calls in ((1, 4), (100, LENGTH)):
        end, _ = path_of(Unmasking(name="confidence", steps=steps, block_length=3), jnp.zeros((ROWS, LENGTH), bool))
        assert not end.masked.any() and np.all(np.asarray(end.calls) == calls)


@pytest.mark.parametrize("name", slow_but(["entropy_bounded"], NAMES))
@pytest.mark.parametrize("steps", slow_but([9], [1, 6, 9]))
def test_a_text_depends_neither_on_the_width_of_its_batch_nor_on_other_texts(name: str, steps: int) -> None:
    sampler, lengths = Unmasking(name=name, steps=steps, block_length=3, entropy=1.5), [9, 4, 12, 7, 9, 9, 8, 15]

    def end_of(rows: int, width: int) -> MaskedState:
        given = jnp.arange(width)[None] >= jnp.asarray(lengths[:rows])[:, None]
        return path_of(sampler, given, local=True)[0]

    narrow, wide = end_of(2, 9), end_of(8, 16)
    np.testing.assert_array_equal(narrow.tokens, wide.tokens[:2, :9])
    np.testing.assert_array_equal(narrow.calls, wide.calls[:2])


def test_blocks_of_one_token_have_the_likelihood_of_left_to_right() -> None:
    start, tokens = start_of(GIVEN), jax.random.randint(jax.random.key(2), GIVEN.shape, 0, MASK)
    tokens = jnp.where(GIVEN, 4, tokens)
    in_blocks = Unmasking(name="entropy_bounded", steps=LENGTH, block_length=1)
    in_order = Unmasking(name="ordered", order="left_to_right", steps=LENGTH)
    nats = [nll_in_order(sampler, SCHEDULE, predict, start, tokens) for sampler in (in_blocks, in_order)]
    np.testing.assert_allclose(*nats, rtol=1e-5)
    assert "in blocks" in in_blocks.description


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"block_length": 0}, "sampler.block_length must be at least 1, got 0"),
        ({"name": "remasking"}, "name='remasking'; use another sampler, such as --sampler confidence"),
        ({"correct": "random"}, "correct='random'; use --override method.sampler.correct=off"),
    ],
)
def test_what_revises_tokens_has_no_blocks(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Unmasking(**{"block_length": 4} | settings)
