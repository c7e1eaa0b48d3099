"""Cross-validated L-BFGS fitting of an ensemble of classifiers to labelled latents.

Each member is fitted without one fold of the texts. The log-loss on the left-out folds selects the weight penalty,
and one temperature for all members, so that probabilities are calibrated.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.special import logsumexp

from jtextdiff.metrics.ngram_classifier import fit_occurrences
from jtextdiff.nets.functional import Params

MAX_PENALTY_TEXTS = 1_000
"""Largest number of texts on which penalties are compared."""

TEMPERATURES = np.geomspace(0.1, 10.0, 201)

MemberLogits = Callable[[Params, Float[Array, "n z"]], Float[Array, "n c"]]
"""(one member's parameters, latents) ↦ its logits."""


class CrossValidation(NamedTuple):
    """Samples of the latents of n texts, the value of each text, and the member that is fitted without it."""

    epsilon: Float[Array, "s n z"]
    value: Int[Array, "n"]
    fold: Int[Array, "n"]
    weight: Float[Array, "n"]  # of each text; the values together weigh the same

    @functools.partial(jax.jit, static_argnums=1)
    def holdout_log_p(self, logits: MemberLogits, ensemble: Params) -> Float[Array, "s n c"]:
        """log p of the values of each text under the member that was fitted without it."""
        of_sample = jax.vmap(logits, (0, None))
        by_member = jnp.stack([of_sample(ensemble, sample) for sample in self.epsilon])  # [s, m, n, c]
        left_out = self.fold[None] == jnp.arange(by_member.shape[1])[:, None]
        return jax.nn.log_softmax(jnp.sum(jnp.where(left_out[None, :, :, None], by_member, 0.0), axis=1))


def cross_validation(epsilon: Float[Array, "s n z"], value: Int[np.ndarray, "n"], num_folds: int) -> CrossValidation:
    """Divides the texts into folds."""
    fold = jnp.asarray(fold_ids(value, num_folds))
    return CrossValidation(epsilon, jnp.asarray(value), fold, jnp.asarray(balanced_weights(value)))


def balanced_weights(value: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Returns the weight of each text, of mean 1, under which all values are equally frequent.

    A classifier that has learned from more texts of one value would find it in texts of the other.
    """
    counts = np.bincount(value)
    return (len(value) / (np.count_nonzero(counts) * counts[value])).astype(np.float32)


def fold_ids(value: Int[np.ndarray, "n"], num_folds: int) -> Int[np.ndarray, "n"]:
    """Returns the fold of each text; each value has the same number of texts in every fold, to within one."""
    fold = np.zeros(len(value), int)
    for which in np.unique(value):
        rows = np.flatnonzero(value == which)
        fold[rows] = np.arange(len(rows)) % num_folds
    return fold


def fit_ensemble(
    logits: MemberLogits,
    initial: Params,
    epsilon: Float[Array, "s n z"],
    value: Int[np.ndarray, "n"],
    *,
    penalties: Sequence[float],
    max_iterations: int,
) -> tuple[Params, float, dict[str, float]]:
    """Returns the fitted members, their temperature and the metrics on left-out folds.

    `initial` holds the members' initial parameters along its first axis. Penalties are compared on MAX_PENALTY_TEXTS
    evenly spaced texts; all texts are then fitted with the best one.
    """
    num_members = len(jax.tree.leaves(initial)[0])
    all_texts = cross_validation(epsilon, value, num_members)
    num = min(MAX_PENALTY_TEXTS, len(value))
    rows = np.arange(num) * len(value) // num
    subset = cross_validation(epsilon[:, rows], value[rows], num_members)
    fit = functools.partial(_fit_members, logits, max_iterations)
    candidates = [fit(subset, initial, jnp.float32(penalty)) for penalty in penalties]
    losses = [float(weighted_loss(subset.holdout_log_p(logits, net), subset)) for net in candidates]
    penalty = penalties[int(np.argmin(losses))]
    ensemble = fit(all_texts, initial, jnp.float32(penalty))
    log_p = all_texts.holdout_log_p(logits, ensemble)
    scaled = _losses_at(TEMPERATURES, log_p, all_texts)
    temperature = float(TEMPERATURES[int(np.argmin(scaled))])
    correct = (np.asarray(log_p).argmax(-1) == value).mean(axis=0)
    accuracy = np.average(correct, weights=balanced_weights(value))
    metrics = {"log_loss": float(np.min(scaled)), "accuracy": float(accuracy)}
    return ensemble, temperature, metrics | {"penalty": penalty, "temperature": temperature}


@functools.partial(jax.jit, static_argnums=(0, 1))
def _fit_members(
    logits: MemberLogits, max_iterations: int, texts: CrossValidation, initial: Params, penalty: Float[Array, ""]
) -> Params:
    members = jnp.arange(len(jax.tree.leaves(initial)[0]))
    fit = functools.partial(_fit_member, logits, max_iterations)
    with jax.default_matmul_precision("highest"):  # L-BFGS follows small differences of the loss
        return jax.vmap(fit, (None, 0, 0, None))(texts, initial, members, penalty)


def _fit_member(
    logits: MemberLogits,
    max_iterations: int,
    texts: CrossValidation,
    net: Params,
    member: Int[Array, ""],
    penalty: Float[Array, ""],
) -> Params:
    """Fits one member by L-BFGS to all texts outside its fold."""
    fitted_on = jnp.where(texts.fold != member, texts.weight, 0.0)

    def loss(net: Params) -> Float[Array, ""]:
        log_p = jax.nn.log_softmax(jax.vmap(functools.partial(logits, net))(texts.epsilon))
        weights = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(net) if leaf.ndim > 1)
        nats = jnp.mean(log_loss(log_p, texts.value) @ fitted_on)
        return (nats + 0.5 * penalty * weights) / jnp.sum(fitted_on)

    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry: tuple[Params, Any], _: None) -> tuple[tuple[Params, Any], None]:
        net, state = carry
        nats, gradient = value_and_grad(net, state=state)
        updates, state = solver.update(gradient, state, net, value=nats, grad=gradient, value_fn=loss)
        updated: Any = optax.apply_updates(net, updates)
        return (updated, state), None

    return jax.lax.scan(step, (net, solver.init(net)), None, length=max_iterations)[0][0]


@jax.jit
def _losses_at(
    temperatures: Float[Array, "k"], log_p: Float[Array, "s n c"], texts: CrossValidation
) -> Float[Array, "k"]:
    """Returns the weighted loss at each temperature, one after another: [k, s, n, c] may not fit into memory."""
    return jax.lax.map(lambda t: weighted_loss(jax.nn.log_softmax(log_p / t), texts), temperatures)


@jax.jit
def weighted_loss(log_p: Float[Array, "s n c"], texts: CrossValidation) -> Float[Array, ""]:
    """Returns the mean loss, nats, with the weights of the texts."""
    return jnp.mean(log_loss(log_p, texts.value) * texts.weight)


def log_loss(log_p: Float[Array, "s n c"], value: Int[Array, "n"]) -> Float[Array, "s n"]:
    """−log p of the value of each text, for each of its samples, in nats."""
    return -jnp.take_along_axis(log_p, jnp.broadcast_to(value, log_p.shape[:2])[..., None], axis=-1)[..., 0]


def calibrated(logits: Float[np.ndarray, "n c"], value: Int[np.ndarray, "n"]) -> tuple[float, Float[np.ndarray, "c"]]:
    """Returns the factor and the bias of logits with the least log-loss; all values weigh the same."""
    weights = balanced_weights(value)

    def loss(flat: Float[np.ndarray, "p"]) -> float:
        scaled = np.exp(flat[0]) * logits + flat[1:]
        return float(np.average(logsumexp(scaled, axis=-1) - scaled[np.arange(len(value)), value], weights=weights))

    bounds = [(-MAX_LOG_FACTOR, MAX_LOG_FACTOR)] + [(None, None)] * logits.shape[1]
    solution = minimize(loss, np.zeros(1 + logits.shape[1]), bounds=bounds).x
    return float(np.exp(solution[0])), solution[1:]


MAX_LOG_FACTOR = 2.0
"""Limit of the log of the factor: labels that words decide without exception would make it infinite."""

WordWeights = dict[str, Array]
"""`weights` of each word for each value, [v, c], a `factor` of them, and a `bias`, [c], in nats."""

WordScore = Callable[[Int[np.ndarray, "m"], Float[np.ndarray, "v c"]], Float[np.ndarray, "m c"]]
"""(rows of texts, weights of words) ↦ the sum of the weights of the words of each text."""

WORD_FOLDS = 3
"""Parts of the labelled texts, each of which is left out once to calibrate the weights of words."""


def fit_word_weights(
    occurrences: csr_matrix, score: WordScore, value: Int[np.ndarray, "n"], num_values: int
) -> tuple[WordWeights, Float[np.ndarray, "n c"]]:
    """Returns the weights of words, and the logits of each text by those that were fitted without it.

    Naive-Bayes weighted logistic regression on which words occur in the texts. One factor and one bias for all of them
    make it calibrated on left-out texts, whose words `score` may expect instead of knowing.
    """
    fold, logits = fold_ids(value, WORD_FOLDS), np.zeros((len(value), num_values))
    for left_out in range(WORD_FOLDS):
        rows, others = fold == left_out, fold != left_out
        weights, bias = fit_occurrences(occurrences[others], value[others], num_values)
        logits[rows] = score(np.flatnonzero(rows), weights) + bias
    factor, shift = calibrated(logits, value)
    weights, bias = fit_occurrences(occurrences, value, num_values)
    weights = jnp.asarray(weights - weights.mean(axis=-1, keepdims=True), jnp.float32)
    fitted = {
        "weights": weights,
        "factor": jnp.float32(factor),
        "bias": jnp.asarray(factor * bias + shift, jnp.float32),
    }
    return fitted, factor * logits + shift


def initial_word_weights(num_words: int, num_values: int) -> WordWeights:
    """Returns weights of zero."""
    return {"weights": jnp.zeros((num_words, num_values)), "factor": jnp.ones(()), "bias": jnp.zeros(num_values)}


def calibration_error(
    confidence: Float[np.ndarray, "n"],
    correct: Bool[np.ndarray, "n"] | Float[np.ndarray, "n"],
    weights: Float[np.ndarray, "n"],
    bins: int = 15,
) -> float:
    """Returns |mean confidence − accuracy|, averaged over `bins` equal bins of confidence (Guo et al. 2017)."""
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, weights * (confidence - correct), minlength=bins)
    return float(np.abs(gaps).sum() / weights.sum())
