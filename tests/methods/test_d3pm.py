"""D3PM on distributions small enough to enumerate: exact bounds for both kernels and both forms, and samples."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.cases import slow_but
from support.params import random_params

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion.discrete import absorbing
from jtextdiff.diffusion.schedules import constant, reciprocal
from jtextdiff.methods.components.discrete_denoiser import DiscreteDenoiser
from jtextdiff.methods.components.types import Given, TextSpec, nothing_given
from jtextdiff.methods.d3pm import D3PM, Sampler
from jtextdiff.nets.transformer import Transformer

ONE_TOKEN = TextSpec(vocab_size=4, mask=4, pad=0, eos=1, length=1, length_counts=(0, 1))
TWO_TOKENS = TextSpec(vocab_size=2, mask=2, pad=0, eos=1, length=2, length_counts=(0, 0, 1))
MARGINAL = np.asarray([0.4, 0.3, 0.2, 0.1])
JOINT = np.asarray([[0.3, 0.1], [0.2, 0.4]])
ENTROPY = 1.279854  # of MARGINAL and of JOINT


@dataclasses.dataclass(frozen=True)
class FixedNet:
    """A network whose logits are a given function of (x_t, index of the step)."""

    logits: Callable[[jax.Array, jax.Array], jax.Array]

    def bind(self, params: Any) -> "FixedNet":
        return self

    def per_token(self, values: Callable[..., Any], others: tuple[jax.Array, ...], *inputs: Any, **options: Any) -> Any:
        return values(self(*inputs, **options), *others)

    def __call__(self, x_t: jax.Array, t: jax.Array, *, valid: jax.Array, key: Any = None) -> jax.Array:
        return self.logits(x_t, t)


def with_logits(method: D3PM, logits: Callable[[jax.Array, jax.Array], jax.Array]) -> D3PM:
    method.__dict__["net"] = FixedNet(logits)
    return method


def batch(rows: np.ndarray) -> Batch:
    valid = np.ones(rows.shape, bool)
    return Batch(rows.astype(np.int32), valid, np.zeros_like(valid), {})


def mean_bound(method: D3PM, rows: np.ndarray, p: np.ndarray, repeat: int = 20_000) -> tuple[float, float]:
    """Returns Σ p E[bound] over the texts `rows`, and its standard error. Lengths are smoothed by 0.01 of a text."""
    nats = jax.jit(method.nll)({}, jax.random.key(0), batch(np.repeat(rows, repeat, axis=0)))
    nats = np.asarray(nats, np.float64).reshape(len(rows), repeat)
    lengths = np.asarray(method.text_spec.length_counts) + 0.01 * (np.arange(method.text_spec.length + 1) > 0)
    return float(p @ nats.mean(1) + np.log(lengths[-1] / lengths.sum())), float(np.sqrt(p**2 @ nats.var(1) / repeat))


@pytest.mark.parametrize(
    ("form", "depends_on_x_t", "nats"),
    [
        ("mixture", True, ENTROPY),
        pytest.param("joint", True, 1.755927, marks=pytest.mark.slow),
        pytest.param("joint", False, ENTROPY, marks=pytest.mark.slow),
        pytest.param("mixture", False, 2.959572, marks=pytest.mark.slow),
    ],
)
def test_the_uniform_bound_of_one_token(form: str, depends_on_x_t: bool, nats: float) -> None:
    """K = 4, T = 5, cosine: exact p(x_0 | x_t) is optimal for the mixture, and p(x_0) for the joint form."""
    method = D3PM(
        text_spec=ONE_TOKEN,
        kernel="uniform",
        schedule="cosine_d3pm",
        num_steps=5,
        form=form,
        bound_points=20,
        sampler=Sampler(steps=5),
    )
    process = method.process

    def logits(x_t: jax.Array, index: jax.Array) -> jax.Array:
        log_p = jnp.broadcast_to(jnp.log(jnp.asarray(MARGINAL)), (*x_t.shape, 4))
        return log_p + process.likelihood(x_t, jnp.zeros(()), index / 5) if depends_on_x_t else log_p

    result, error = mean_bound(with_logits(method, logits), np.arange(4)[:, None], MARGINAL, repeat=5_000)
    assert abs(result - nats) <= 5 * error + 2e-4


@pytest.mark.parametrize("num_steps", slow_but([1, 4], [1, 4, 256]))
def test_the_absorbing_bound_of_two_tokens(num_steps: int) -> None:
    """L_T = L_∞ + Σ (a_i − b_i)/(2T): a_i the entropy of a token, b_i given the other one; L_∞ that of the text."""
    method = D3PM(text_spec=TWO_TOKENS, num_steps=num_steps, bound_points=16, sampler=Sampler(steps=1))

    def logits(x_t: jax.Array, index: jax.Array) -> jax.Array:
        allowed = jnp.where((x_t == 2)[..., None], 1.0, jax.nn.one_hot(x_t, 2))
        first = jnp.einsum("ij,bj->bi", jnp.asarray(JOINT), allowed[:, 1])
        second = jnp.einsum("ij,bi->bj", jnp.asarray(JOINT), allowed[:, 0])
        return jnp.log(jnp.stack([first, second], axis=1))

    a, b = np.asarray([0.673012, 0.693147]), np.asarray([0.586707, 0.606843])
    rows = np.asarray([[0, 0], [0, 1], [1, 0], [1, 1]])
    result, error = mean_bound(with_logits(method, logits), rows, JOINT.ravel())
    assert abs(result - ENTROPY - np.sum(a - b) / (2 * num_steps)) <= 5 * error + 1e-4


def test_loss_and_bounds_of_a_network_that_does_not_read_the_text_are_its_own_nll() -> None:
    method = D3PM(text_spec=TWO_TOKENS, num_steps=4, sampler=Sampler(steps=1))
    method = with_logits(method, lambda x_t, index: 2.0 * jax.nn.one_hot(jnp.zeros_like(x_t), 2))
    rows, length_nll = batch(np.asarray([[0, 1]] * 4_000)), -np.log(1.01 / 1.02)
    exact = 2 * np.log1p(np.exp(2.0)) - 2.0

    def estimates(key: jax.Array) -> tuple[jax.Array, ...]:
        bounds = (nll({}, key, rows) - length_nll for nll in (method.nll, method.nll_check))
        return 2 * method.loss({}, key, rows)[1]["bound"], *bounds

    for nats in jax.jit(estimates)(jax.random.key(1)):
        assert abs(np.mean(nats) - exact) <= 5 * np.std(nats) / np.sqrt(len(nats)) + 1e-4


SMALL = D3PM(
    text_spec=TextSpec(vocab_size=12, mask=12, pad=0, eos=1, length=8, length_counts=(0, 0, 1, 2, 1, 1, 1, 0, 3)),
    trunk=Transformer(num_layers=1, width=16, num_heads=2, expansion=2, max_length=8),
    num_steps=20,
    sampler=Sampler(steps=6),
)


def test_the_absorbing_divergence_is_a_share_of_the_cross_entropy() -> None:
    """The closed form of the absorbing kernel equals the KL of its posteriors, including the last step."""
    params, valid = random_params(SMALL.init), jnp.ones((4, 8), bool)
    tokens, index = jax.random.randint(jax.random.key(2), (4, 8), 0, 12), jnp.asarray([1, 2, 10, 20])
    gaps = [
        jax.jit(
            lambda p, by=by_bayes: SMALL._denoiser(p).terms(jax.random.key(1), tokens, valid, index, by_bayes=by)[0]
        )(params)
        for by_bayes in (False, True)
    ]
    np.testing.assert_allclose(*gaps, atol=1e-5)
    assert jnp.max(gaps[0]) > 0.1


@pytest.mark.parametrize("name", ["ancestral", "renoise"])
@pytest.mark.parametrize("kernel", ["absorbing", "uniform"])
def test_samples_keep_given_tokens_and_do_not_depend_on_their_batch(kernel: str, name: str) -> None:
    model = dataclasses.replace(SMALL, kernel=kernel, sampler=Sampler(name=name, steps=6))
    params, keys = random_params(SMALL.init), jax.random.split(jax.random.key(3), 8)
    fixed = jnp.zeros((8, 8), bool).at[:, 1].set(True)
    given = Given(jnp.full((8, 8), 7), fixed, jnp.asarray([4, 5, 8, 3, 3, 6, 7, 4]))
    sample = jax.jit(model.sample)
    result = sample(params, keys, given)
    tokens = np.asarray(result.tokens)
    assert np.all(tokens[:, 1] == 7) and not np.any(tokens == 12) and np.all(result.calls <= 6)
    for row, length in enumerate(np.asarray(given.length)):
        assert tokens[row, length - 1] == 1 and np.all(tokens[row, length:] == 0)
    order = np.asarray([3, 1, 4, 0, 2, 7, 6, 5])
    again = sample(params, keys[order], jax.tree.map(lambda leaf: leaf[order], given))
    np.testing.assert_array_equal(again.tokens, tokens[order])


@pytest.mark.parametrize("name", ["ancestral", "renoise"])
def test_the_uniform_sampler_follows_the_marginal_of_one_token(name: str) -> None:
    """Renoising has the right distribution, too, where no two tokens are predicted together."""
    sampler = Sampler(name=name, steps=20)
    spec = TextSpec(vocab_size=6, mask=6, pad=0, eos=1, length=2, length_counts=(0, 0, 1))
    method = D3PM(text_spec=spec, kernel="uniform", schedule="cosine_d3pm", num_steps=20, sampler=sampler)
    process, log_p = method.process, jnp.log(jnp.asarray([0.0, 0.0, *MARGINAL]))
    logits = lambda x_t, index: log_p + process.likelihood(x_t, jnp.zeros(()), index / 20)
    given = nothing_given(5_000, 2)._replace(length=jnp.full(5_000, 2))
    ended = lambda x_t, index: jnp.where(jnp.arange(2)[:, None] == 1, jax.nn.one_hot(1, 6), logits(x_t, index))
    tokens = jax.jit(with_logits(method, ended).sample)({}, jax.random.split(jax.random.key(5), 5_000), given).tokens
    counts = np.bincount(np.asarray(tokens)[:, 0] - 2, minlength=4)
    assert np.sum((counts - MARGINAL * 5_000) ** 2 / (MARGINAL * 5_000)) < 21.1


def test_renoising_reads_each_token_under_the_joint_form_too() -> None:
    """Two tokens that always agree, where the network predicts each from the other alone."""
    spec = TextSpec(vocab_size=4, mask=4, pad=0, eos=1, length=3, length_counts=(0, 0, 0, 1))
    settings = {"kernel": "uniform", "schedule": "cosine_d3pm", "form": "joint", "num_steps": 64}
    method = D3PM(text_spec=spec, sampler=Sampler(name="renoise", steps=64), **settings)

    def logits(x_t: jax.Array, index: jax.Array) -> jax.Array:
        of_other = method.process.likelihood(x_t[:, jnp.asarray([1, 0, 2])], jnp.zeros(()), index / 64)
        possible = jnp.asarray([[0, 0, 1, 1], [0, 0, 1, 1], [0, 1, 0, 0]], bool)
        return jnp.where(possible, of_other, -1e9)

    given = nothing_given(2_000, 3)._replace(length=jnp.full(2_000, 3))
    tokens = jax.jit(with_logits(method, logits).sample)({}, jax.random.split(jax.random.key(6), 2_000), given).tokens
    assert np.mean(np.asarray(tokens[:, 0] == tokens[:, 1])) > 0.9  # 0.5 by chance


@pytest.mark.parametrize(
    "bad", [{"kernel": "gauss"}, {"form": "sum"}, {"schedule": "sqrt"}, {"num_steps": 0}, {"hybrid": -1.0}]
)
def test_invalid_settings_are_refused(bad: dict) -> None:
    (name,) = bad
    with pytest.raises(ValueError, match=name):
        D3PM(**bad)


def test_more_sampling_than_training_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="at most num_steps = 10"):
        D3PM(num_steps=10)


def test_a_token_follows_the_prediction_at_its_step() -> None:
    """The logits depend on the step. Tokens follow the mixture over steps, each weighted by its share."""
    text_spec = dataclasses.replace(ONE_TOKEN, length=3, length_counts=(0, 0, 0, 1))
    model = D3PM(text_spec=text_spec, num_steps=20, sampler=Sampler(steps=4))
    log_probs = jnp.log(jax.random.dirichlet(jax.random.key(7), jnp.ones(4), (21,)))
    model = with_logits(model, lambda x_t, index: jnp.repeat(log_probs[index][:, None], 3, axis=1))
    num = 20_000
    given = nothing_given(num, 3)._replace(length=jnp.full(num, 3))
    sample = jax.jit(model.sample)({}, jax.random.split(jax.random.key(2), num), given)
    one = jax.tree.map(lambda leaf: leaf[:1], given)
    distribution = np.exp(np.asarray(jax.jit(model.token_distribution)({}, one)[0], np.float64))
    distribution = distribution[2:4] / distribution[2:4].sum()
    for position in range(2):
        counts = np.bincount(np.asarray(sample.tokens)[:, position], minlength=4)[2:4]
        assert np.sum((counts - num * distribution) ** 2 / (num * distribution)) < 15.2  # 1 degree of freedom, p = 1e-4


def test_the_distribution_of_a_token_counts_that_it_may_be_guessed() -> None:
    """log_linear leaves one token in a thousand to guess. A guess that is not allowed is masked again, and revealed."""
    text_spec = dataclasses.replace(ONE_TOKEN, length=3, length_counts=(0, 0, 0, 1))
    model = D3PM(text_spec=text_spec, schedule="log_linear", num_steps=20, sampler=Sampler(steps=4))
    predicted = jnp.log(jnp.asarray([0.0, 0.0, 0.9, 0.1]))  # the tokens that are allowed
    model = with_logits(model, lambda x_t, index: jnp.broadcast_to(predicted, (*x_t.shape, 4)))
    log_p = model.token_distribution({}, nothing_given(1, 3)._replace(length=jnp.asarray([3])))
    alpha_1 = float(jnp.exp(model.process.log_alpha_bar(jnp.ones(()))))
    expected = alpha_1 / 4 * np.asarray([0, 0, 1, 1]) + (1 - alpha_1 / 2) * np.asarray([0, 0, 0.9, 0.1])
    assert alpha_1 > 5e-4
    np.testing.assert_allclose(np.exp(log_p[0]), expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("bound", ["estimated_bound", "full_bound"])
def test_a_network_that_knows_nothing_needs_log_k_nats_however_much_signal_is_left(bound: str) -> None:
    """A token that survives to t = 1 is guessed, which is the prior's part of the bound."""
    process = dataclasses.replace(absorbing(reciprocal(8), 4), log_alpha_bar=constant(1.0))
    net = FixedNet(lambda x_t, index: jnp.zeros((*x_t.shape, 4)))
    denoiser = DiscreteDenoiser(net, process, 8, 4, absorbing=True, form="mixture")
    tokens, points = jnp.zeros((1_000, 20), int), (8,) if bound == "estimated_bound" else ()
    bound_of = jax.jit(lambda key: getattr(denoiser, bound)(key, tokens, tokens == 0, *points))
    nats = bound_of(jax.random.key(0))
    assert float(nats.mean()) == pytest.approx(np.log(4), abs=0.05)


def test_initial_guesses_are_allowed_tokens() -> None:
    """log_linear leaves one token in a thousand unmasked at t = 1. It is guessed and never revised."""
    text_spec = dataclasses.replace(SMALL.text_spec, vocab_size=6, mask=6, unk=2)
    model = D3PM(text_spec=text_spec, schedule="log_linear", num_steps=20, sampler=Sampler(steps=4))
    model = with_logits(model, lambda x_t, index: jnp.zeros((*x_t.shape, 6)))
    num = 4_000
    given = nothing_given(num, 8)._replace(length=jnp.full(num, 8))
    tokens = np.asarray(jax.jit(model.sample)({}, jax.random.split(jax.random.key(4), num), given).tokens)
    assert np.all(tokens[:, 7] == 1) and np.all(tokens[:, :7] >= 3)


@pytest.mark.slow
def test_the_uniform_bound_is_unbiased_for_any_number_of_terms() -> None:
    """Its terms are importance-sampled, so the mean is that of all terms."""
    logits = lambda x_t, index: 2.0 * jax.nn.one_hot(x_t, 2)
    model = D3PM(
        text_spec=TWO_TOKENS,
        kernel="uniform",
        schedule="cosine_d3pm",
        num_steps=40,
        bound_points=2,
        sampler=Sampler(steps=4),
    )
    model = with_logits(model, logits)
    rows, p = np.asarray([[0, 0], [0, 1], [1, 0], [1, 1]]), JOINT.ravel()
    estimate, error = mean_bound(model, rows, p)
    nats = jax.jit(model.nll_check)({}, jax.random.key(6), batch(np.repeat(rows, 5_000, axis=0)))
    nats = np.asarray(nats, np.float64).reshape(4, -1)
    lengths = np.asarray(TWO_TOKENS.length_counts) + 0.01 * (np.arange(3) > 0)
    full_bound = p @ nats.mean(1) + np.log(lengths[-1] / lengths.sum())
    assert abs(estimate - full_bound) <= 5 * np.hypot(error, np.sqrt(p**2 @ nats.var(1) / nats.shape[1]))


@pytest.mark.parametrize(("kernel", "name"), [("absorbing", "token_distribution"), ("uniform", "sample")])
def test_the_network_reads_the_step_from_which_tokens_are_revealed(kernel: str, name: str) -> None:
    """Times 1, 3/4, 1/2 and 1/4 of twenty steps are the steps 20, 15, 10 and 5."""
    read = []

    def logits(x_t: jax.Array, index: jax.Array) -> jax.Array:
        jax.debug.callback(lambda index: read.append(int(index[0])), index, ordered=True)
        return jnp.zeros((*x_t.shape, 4))

    text_spec = dataclasses.replace(ONE_TOKEN, length=3, length_counts=(0, 0, 0, 1))
    model = with_logits(D3PM(text_spec=text_spec, kernel=kernel, num_steps=20, sampler=Sampler(steps=4)), logits)
    keys = {"keys": jax.random.split(jax.random.key(0), 1)} if name == "sample" else {}
    jax.jit(getattr(model, name))({}, given=nothing_given(1, 3)._replace(length=jnp.asarray([3])), **keys)
    jax.effects_barrier()
    assert read == [20, 15, 10, 5]


def test_lambda_weighs_the_cross_entropy_against_each_term() -> None:
    """A loss of T terms and λ T of the cross-entropy: at λ T = 3 a quarter is the bound."""
    model = D3PM(text_spec=TWO_TOKENS, num_steps=20, hybrid=3 / 20, sampler=Sampler(steps=1))
    model = with_logits(model, lambda x_t, index: 2.0 * jax.nn.one_hot(jnp.zeros_like(x_t), 2))
    loss, terms = jax.jit(model.loss)({}, jax.random.key(1), batch(np.asarray([[0, 1]] * 8)))
    np.testing.assert_allclose(loss, 0.25 * terms["bound"] + 0.75 * terms["cross_entropy"], rtol=1e-5)
    assert float(jnp.max(jnp.abs(terms["bound"] - terms["cross_entropy"]))) > 0.1
