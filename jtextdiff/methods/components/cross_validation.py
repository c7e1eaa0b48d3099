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
from scipy.sparse import csr_matrix
from scipy.special import logsumexp

from jtextdiff.metrics.calibration import balanced_weights, calibrated, fold_ids
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


WordWeights = dict[str, Array]
"""`weights` of each word for each value, [v, c], a `factor` of them, and a `bias`, [c], in nats."""

WordScore = Callable[[Int[np.ndarray, "m"], Float[np.ndarray, "v c"]], Float[np.ndarray, "m c"]]
"""(rows of texts, weights of words) ↦ the sum of the weights of the words of each text."""

WORD_FOLDS = 3
"""Parts of the labelled texts, each of which is left out once to calibrate the weights of words; fewer of few texts."""


def fit_word_weights(
    occurrences: csr_matrix, score: WordScore, p: Float[np.ndarray, "n c"], labelled: Bool[np.ndarray, "n"]
) -> tuple[WordWeights, Float[np.ndarray, "m c"]]:
    """Returns the weights of words, and the logits of each labelled text by those that were fitted without it.

    Naive-Bayes weighted logistic regression on which words occur in the texts, to the probabilities `p` of their
    values, which are 1 or 0 in labelled texts. One factor and one bias for all weights make them calibrated on left-out
    labelled texts, whose words `score` may expect instead of knowing.
    """
    value, logits = p.argmax(-1), np.zeros(p.shape)
    num_folds = min(WORD_FOLDS, *np.bincount(value[labelled], minlength=p.shape[1]))
    fold = np.arange(len(p)) % num_folds
    fold[labelled] = fold_ids(value[labelled], num_folds)
    for left_out in range(num_folds):
        rows, others = labelled & (fold == left_out), fold != left_out
        weights, bias = fit_occurrences(occurrences[others], p[others])
        logits[rows] = score(np.flatnonzero(rows), weights) + bias
    factor, shift = calibrated(logits[labelled], value[labelled])
    weights, bias = fit_occurrences(occurrences, p)
    weights = jnp.asarray(weights - weights.mean(axis=-1, keepdims=True), jnp.float32)
    fitted = {
        "weights": weights,
        "factor": jnp.float32(factor),
        "bias": jnp.asarray(factor * bias + shift, jnp.float32),
    }
    return fitted, factor * logits[labelled] + shift


def log_p_of_words(words: WordWeights, occurrences: csr_matrix) -> Float[np.ndarray, "n c"]:
    """Returns log p of every value by which words occur in each text."""
    logits = float(words["factor"]) * (occurrences @ np.asarray(words["weights"])) + np.asarray(words["bias"])
    return logits - logsumexp(logits, axis=-1, keepdims=True)


def initial_word_weights(num_words: int, num_values: int) -> WordWeights:
    """Returns weights of zero."""
    return {"weights": jnp.zeros((num_words, num_values)), "factor": jnp.ones(()), "bias": jnp.zeros(num_values)}
