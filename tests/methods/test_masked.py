"""Masked diffusion of two tokens, by enumeration: bounds, losses and distributions of samples."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.cases import slow_but
from support.params import random_params

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion import elbo
from jtextdiff.diffusion.schedules import TOKEN_SCHEDULES
from jtextdiff.methods.components.masked_denoiser import MaskedDenoiser
from jtextdiff.methods.components.types import Given, TextSpec, nothing_given
from jtextdiff.methods.masked import Masked
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.denoiser_transforms import LogitShaping
from jtextdiff.sampling.masked_samplers import NAMES, Unmasking

JOINT = np.asarray([[0.3, 0.1], [0.2, 0.4]])
ENTROPY = 1.279854
PAD, EOS, FIRST, MASK = 0, 1, 2, 4  # tokens 2 and 3
TEXT_SPEC = TextSpec(vocab_size=4, mask=MASK, pad=PAD, eos=EOS, length=3, length_counts=(0, 0, 0, 1))
LENGTH_NLL = -np.log(1.01 / 1.03)


class Table:
    """A network with the exact joint distribution of two tokens, distorted by `wrong`. Position 2 is EOS."""

    def __init__(self, wrong: float = 0.0):
        self.joint = jnp.asarray(JOINT ** (1 - wrong) / (JOINT ** (1 - wrong)).sum())

    def bind(self, params: Any) -> "Table":
        return self

    def per_token(self, values: Callable[..., Any], others: tuple[jax.Array, ...], *inputs: Any, **options: Any) -> Any:
        return values(self(*inputs, **options), *others)

    def __call__(self, inputs: jax.Array, *, valid: jax.Array, key: Any = None) -> jax.Array:
        is_token = jax.nn.one_hot(inputs[:, :2] - FIRST, 2)
        allowed = jnp.where((inputs[:, :2] == MASK)[..., None], 1.0, is_token)
        first = jnp.einsum("ij,bj->bi", self.joint, allowed[:, 1])
        second = jnp.einsum("ij,bi->bj", self.joint, allowed[:, 0])
        words = jnp.log(jnp.stack([first, second], axis=1))
        words = jnp.pad(words, ((0, 0), (0, 0), (2, 0)), constant_values=-jnp.inf)
        end = jnp.log(jax.nn.one_hot(jnp.full((len(inputs), 1), EOS), 4))
        return jnp.concatenate([words, end], axis=1)


def method(wrong: float = 0.0, **settings: Any) -> Masked:
    masked = Masked(text_spec=TEXT_SPEC, **settings)
    masked.__dict__["net"] = Table(wrong)
    return masked


def texts(repeat: int) -> tuple[Batch, np.ndarray]:
    """Returns each of the four texts `repeat` times, and its probability."""
    rows = np.asarray([[a + FIRST, b + FIRST, EOS] for a, b in itertools.product(range(2), repeat=2)], np.int32)
    rows = np.repeat(rows, repeat, axis=0)
    valid = np.ones(rows.shape, bool)
    return Batch(rows, valid, np.zeros_like(valid), {}), np.repeat(JOINT.ravel(), repeat)


@pytest.mark.parametrize("wrong", [0.0, 0.5, -0.5])
def test_the_bound_is_above_the_exact_nll_and_tight_for_the_true_distribution(wrong: float) -> None:
    repeat, model = 8_000, method(wrong, bound_points=2)
    batch, p = texts(repeat)
    nats = np.asarray(jax.jit(model.nll)({}, jax.random.key(0), batch), np.float64) - LENGTH_NLL
    bound = np.sum(nats * p) / repeat
    error = np.sqrt(np.sum(p**2 * nats.reshape(4, repeat).var(1).repeat(repeat))) / repeat
    table = np.asarray(Table(wrong).joint, np.float64)
    exact = -np.sum(JOINT * np.log(table))
    assert bound >= exact - 5 * error
    if wrong == 0:
        assert bound == pytest.approx(ENTROPY, abs=5 * error + 1e-5)


LOSSES = [("bernoulli", name) for name in TOKEN_SCHEDULES if name != "linear"] + [("fixed_count", "reciprocal")]


@functools.cache
def bound_of_wrong(repeat: int) -> np.ndarray:
    nats = jax.jit(method(0.5, bound_points=2).nll)({}, jax.random.key(0), texts(repeat)[0])
    return np.asarray(nats, np.float64) - LENGTH_NLL


@pytest.mark.parametrize(
    "loss", slow_but([("bernoulli", "cosine_md4"), ("fixed_count", "reciprocal")], LOSSES), ids="-".join
)
def test_the_loss_has_the_mean_of_the_bound_under_any_schedule(loss: tuple[str, str]) -> None:
    repeat, model = 40_000, method(0.5, masking=loss[0], schedule=loss[1])
    batch, p = texts(repeat)
    losses = 3 * np.asarray(jax.jit(model.loss)({}, jax.random.key(1), batch)[0], np.float64)
    nats = bound_of_wrong(repeat)
    result, expected = (np.sum(value * p) / repeat for value in (losses, nats))
    error = np.sqrt(np.sum(p**2 * (losses**2 + nats**2))) / repeat
    assert abs(result - expected) <= 5 * error + 0.002  # log-linear leaves a token in a thousand unmasked


@pytest.mark.parametrize("masking", ["fixed_count", "bernoulli"])
def test_equal_weights_for_every_masked_token(masking: str) -> None:
    """The mean of 2/(L + 1) Σ −log p(masked token), by enumeration of the masks of three tokens."""
    repeat, model = 15_000, method(0.5, masking=masking, loss_weighting="words")
    batch, p = texts(repeat)
    result = np.asarray(jax.jit(model.loss)({}, jax.random.key(1), batch)[0], np.float64)
    table, rows = Table(0.5), batch.tokens[::repeat]
    expected = 0.0
    for masked in itertools.product([False, True], repeat=3):
        mask = jnp.broadcast_to(jnp.asarray(masked), (4, 3))
        inputs = jnp.where(mask, MASK, rows)
        logits = table(inputs, valid=mask)
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.asarray(rows)[..., None], axis=-1)[..., 0]
        nats = -np.sum(np.where(masked, np.asarray(log_p, np.float64), 0.0), axis=1)
        k = sum(masked)
        # k uniform in 1 … 3, all masks of k equally likely; or each masked with t, uniform: ∫ t^k (1 − t)^(3 − k) dt.
        fixed_count, bernoulli = (1 / 3) / math.comb(3, k) * 2 / 4, 2 / 3 / (4 * math.comb(3, k))
        expected += nats @ JOINT.ravel() * ((fixed_count if k else 0.0) if masking == "fixed_count" else bernoulli)
    error = np.sqrt(np.sum(p**2 * result**2)) / repeat
    assert abs(np.sum(result * p) / repeat - expected) <= 5 * error + 1e-3


@functools.cache
def samples_of(name: str, steps: int, bound: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    model = method(sampler=Unmasking(name=name, steps=steps, entropy=bound))
    keys = jax.random.split(jax.random.key(2), 10_000)
    given = nothing_given(len(keys), 3)._replace(length=jnp.full(len(keys), 3))
    sample = jax.jit(model.sample)({}, keys, given)
    return np.asarray(sample.tokens), np.asarray(sample.calls)


@pytest.mark.parametrize(("name", "steps"), [("ancestral", 200), ("first_hitting", 1), ("entropy_bounded", 1)])
def test_samplers_follow_the_exact_distribution(name: str, steps: int) -> None:
    """χ² of the four texts. About one ancestral sample in 300 reveals both tokens in one step."""
    tokens, calls = samples_of(name, max(steps, 3) if name == "entropy_bounded" else steps)
    assert np.all(tokens[:, 2] == EOS)
    counts = np.bincount((tokens[:, 0] - FIRST) * 2 + tokens[:, 1] - FIRST, minlength=4)
    expected = JOINT.ravel() * len(tokens)
    assert np.sum((counts - expected) ** 2 / expected) < 21.1  # 3 degrees of freedom, p = 1e-4
    if name != "ancestral":
        assert calls.max() <= 3


def test_tokens_revealed_in_one_call_are_independent() -> None:
    """One ancestral step samples each token from its marginal, which the samplers above avoid."""
    tokens, calls = samples_of("ancestral", 1)
    independent = np.outer(JOINT.sum(1), JOINT.sum(0)).ravel() * len(tokens)
    counts = np.bincount((tokens[:, 0] - FIRST) * 2 + tokens[:, 1] - FIRST, minlength=4)
    assert np.sum((counts - independent) ** 2 / independent) < 21.1 and np.all(calls == 1)


@pytest.mark.parametrize("steps", slow_but([2, 3], [2, 3, 5]))
def test_an_ancestral_step_that_reveals_nothing_makes_no_call(steps: int) -> None:
    """Two tokens fall in the same of S steps with probability 1/S, and are then independent. Calls are the steps that
    reveal a token."""
    tokens, calls = samples_of("ancestral", steps)
    distribution = np.outer(JOINT.sum(1), JOINT.sum(0)) / steps + JOINT * (1 - 1 / steps)
    counts = np.bincount((tokens[:, 0] - FIRST) * 2 + tokens[:, 1] - FIRST, minlength=4)
    expected = distribution.ravel() * len(tokens)
    assert np.sum((counts - expected) ** 2 / expected) < 21.1
    distinct = [len(set(each)) for each in itertools.product(range(steps), repeat=3)]
    expected = np.bincount(distinct, minlength=4)[1:] / len(distinct) * len(tokens)
    counts, possible = np.bincount(calls, minlength=4)[1:], expected > 0
    assert np.sum((counts - expected)[possible] ** 2 / expected[possible]) < 18.5  # 2 degrees of freedom, p = 1e-4
    assert not np.any(counts[~possible])


@pytest.mark.parametrize("entropy", [0.0, 10.0])
@pytest.mark.parametrize("wrong", [0.0, 0.5])
def test_the_likelihood_in_order_is_that_of_the_samples(wrong: float, entropy: float) -> None:
    """All texts sum to one; one token a call is the network's own distribution, all at once that of its marginals."""
    model = method(wrong, sampler=Unmasking(entropy=entropy, steps=3, temperature=0.5))
    nats = np.asarray(model.nll_in_order({}, jax.random.key(0), texts(1)[0]), np.float64) - LENGTH_NLL
    table = np.asarray(Table(wrong).joint, np.float64)
    marginals = np.outer(table.sum(1), table.sum(0))
    if entropy > 0 or wrong == 0:
        np.testing.assert_allclose(np.exp(-nats), (marginals if entropy else table).ravel(), rtol=1e-4)
    assert np.exp(-nats).sum() == pytest.approx(1.0, abs=1e-5)


def test_an_unknown_word_is_a_token_like_others_in_the_likelihood_in_order() -> None:
    model = Masked(text_spec=dataclasses.replace(TEXT_SPEC, unk=FIRST))
    model.__dict__["net"] = Table()
    nats = model.nll_in_order({}, jax.random.key(0), texts(1)[0])
    np.testing.assert_allclose(nats, -np.log(JOINT).ravel() + LENGTH_NLL, rtol=1e-4)


def test_the_temperature_anneals_by_the_masked_share_of_the_text_without_its_padding() -> None:
    """A text that is all masked has the first temperature, whatever its length."""
    given, length = nothing_given(2, 3), jnp.asarray([2, 3])
    log_p = []
    for anneal in (1.0, 0.5):
        start, predict = MaskedDenoiser(Table(), TEXT_SPEC).start(given, length, LogitShaping(anneal=anneal))
        log_p.append(jax.jit(predict)(start.tokens, 1.0, None)[0][:, 0])
    np.testing.assert_allclose(*log_p, rtol=1e-6)


def test_planner_weights_have_mean_one_prefer_likely_tokens_and_have_no_gradient() -> None:
    masked = jnp.asarray([[True, True, False], [False, False, False]])
    nats = jnp.asarray([[1.0, 2.0, 5.0], [1.0, 1.0, 1.0]])
    weighted = elbo.planner_weighted(lambda masked: nats)(masked)
    share = np.exp(-1.0) / (np.exp(-1.0) + np.exp(-2.0))
    np.testing.assert_allclose(weighted[0, :2], [0.5 + share, 2 * (0.5 + 1 - share)], rtol=1e-6)
    np.testing.assert_allclose(weighted[1], 0.5)
    gradient = jax.grad(lambda nats: elbo.planner_weighted(lambda masked: nats)(masked)[0, 0])(nats)
    np.testing.assert_allclose(gradient[0], [0.5 + share, 0, 0], rtol=1e-6)


def test_an_entropy_bound_reveals_more_tokens_per_call() -> None:
    assert samples_of("entropy_bounded", 3, 10.0)[1].max() == 1
    assert samples_of("entropy_bounded", 3, 0.0)[1].max() == 2  # EOS is certain, and is revealed with the first token


MOST_CALLS = {"confidence": 3, "entropy_bounded": 2, "ancestral": 3}
FEW_AND_MANY = [("confidence", 2), ("confidence", 7), ("entropy_bounded", 1), ("entropy_bounded", 3)]
FEW_AND_MANY += [("ancestral", 2), ("ancestral", 200)]


@pytest.mark.parametrize("case", slow_but(FEW_AND_MANY, itertools.product(MOST_CALLS, (1, 2, 3, 7, 200))), ids=str)
def test_calls_are_at_most_steps_and_tokens(case: tuple[str, int]) -> None:
    name, steps = case
    tokens, calls = samples_of(name, steps)
    assert calls.max() == min(steps, MOST_CALLS[name]) and MASK not in tokens


SMALL = Masked(
    text_spec=dataclasses.replace(
        TEXT_SPEC, vocab_size=12, mask=12, length=8, length_counts=(0, 0, 1, 2, 1, 1, 1, 0, 3)
    ),
    trunk=Transformer(num_layers=1, width=16, num_heads=2, expansion=2, max_length=8),
)


@pytest.mark.parametrize("name", slow_but(set(NAMES) - {"ordered", "self_planning"}, NAMES))
def test_samples_keep_given_tokens_and_do_not_depend_on_their_batch(name: str) -> None:
    model = dataclasses.replace(SMALL, sampler=Unmasking(name=name, steps=4))
    params, keys = random_params(SMALL.init), jax.random.split(jax.random.key(3), 8)
    fixed = jnp.zeros((8, 8), bool).at[:, 1].set(True)
    given = Given(jnp.full((8, 8), 7), fixed, jnp.asarray([0, 5, 8, 0, 3, 0, 0, 4]))
    sample = jax.jit(model.sample)
    tokens = np.asarray(sample(params, keys, given).tokens)
    assert np.all(tokens[:, 1] == 7) and not np.any(tokens == 12)
    for row in (1, 2, 4, 7):
        length = int(given.length[row])
        assert tokens[row, length - 1] == EOS and np.all(tokens[row, length:] == PAD)
    order = np.asarray([3, 1, 4, 0, 2, 7, 6, 5])
    again = sample(params, keys[order], jax.tree.map(lambda leaf: leaf[order], given))
    np.testing.assert_array_equal(again.tokens, tokens[order])


def test_logits_depend_on_the_mask_and_not_on_masked_tokens() -> None:
    params, valid = random_params(SMALL.init), jnp.ones((1, 4), bool)
    masked = jnp.asarray([[False, True, False, True]])
    tokens, other = jnp.asarray([[5, 6, 7, 1]]), jnp.asarray([[5, 9, 7, 8]])
    logits = jax.jit(lambda weights, tokens: SMALL.net.bind(weights)(jnp.where(masked, 12, tokens), valid=valid))
    np.testing.assert_array_equal(logits(params, tokens), logits(params, other))
    table = params["embed"]["embedding"]
    changed = {**params, "embed": {"embedding": table.at[12].add(1.0)}}
    assert jnp.all(jnp.any(logits(changed, tokens) != logits(params, tokens), axis=-1))


class Uniform(Table):
    """A network that predicts all four tokens of the vocabulary alike."""

    def __call__(self, inputs: jax.Array, *, valid: jax.Array, key: Any = None) -> jax.Array:
        return jnp.zeros((*inputs.shape, 4))


@pytest.mark.parametrize(("mask", "choices"), [(3, 3), (4, 4)])
def test_mask_is_never_predicted_whether_or_not_it_is_in_the_vocabulary(mask: int, choices: int) -> None:
    text_spec, everywhere = dataclasses.replace(TEXT_SPEC, mask=mask), jnp.ones((1, 3), bool)
    losses = MaskedDenoiser(Uniform(), text_spec).losses(jnp.asarray([[2, 0, 1]]), everywhere)
    np.testing.assert_allclose(losses(everywhere), np.full((1, 3), np.log(choices)), rtol=1e-6)


def test_the_chain_rule_in_one_order_has_the_mean_of_the_bound() -> None:
    repeat, model = 8_000, method(0.5, bound_points=2)
    batch, p = texts(repeat)
    losses = model._denoiser({}).losses(jnp.asarray(batch.tokens), jnp.asarray(batch.valid))
    one_order = jax.jit(lambda valid: elbo.one_order_bound(losses, jax.random.key(5), valid))
    chain = np.asarray(one_order(jnp.asarray(batch.valid)), np.float64)
    nats = np.asarray(jax.jit(model.nll)({}, jax.random.key(0), batch), np.float64) - LENGTH_NLL
    error = np.sqrt(np.sum(p**2 * (chain - nats) ** 2)) / repeat
    assert abs(np.sum((chain - nats) * p) / repeat) <= 5 * error


def test_the_bound_says_which_samplers_it_does_not_bound() -> None:
    bound_of = {name: Masked(text_spec=TEXT_SPEC, sampler=Unmasking(name=name)).bound for name in NAMES}
    assert bound_of["ancestral"] == bound_of["first_hitting"] == "exact-k bound, 16 numbers of masked tokens a text"
    for name in ("confidence", "entropy_bounded"):
        assert bound_of[name].endswith(f"; of unmasking in random order, which {name} does not do")
    corrected = Masked(text_spec=TEXT_SPEC, sampler=Unmasking(name="ancestral", correct="random")).bound
    assert corrected.endswith("which ancestral with corrections does not do")
