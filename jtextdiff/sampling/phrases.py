"""Energies of words: adjacent in noisy embeddings, anywhere in a bag of words, or in the tokens of a text."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.pytree import pytree, static
from jtextdiff.diffusion.rounding import token_log_probs
from jtextdiff.diffusion.schedules import Time
from jtextdiff.sampling.energies import MIN_ENERGY, Not, Valid, complement, log_total

LOG_SMALL_MATCH = -9.0
"""Log of a probability q below which −log(1 − q) equals q to almost all digits of float32."""

LOG_SMALL_MENTION = -12.0
"""Log of a probability q below which 1 − (1 − q)^n equals n q to all digits of float32."""

MIN_LIKELIHOOD = 1e-30
"""The smallest ratio of a word's likelihoods under two values: gains are finite, and at most 69 nats."""


@pytree
class Phrase:
    """−log p(a phrase occurs somewhere): consecutive tokens, each among those `allowed` at its place.

    `allowed` is the same for all texts or has a row for each. p = 1 − Π (1 − q) over the positions at which the phrase
    may start, where q is the product of its tokens' probabilities, as if positions were independent.
    """

    embedding: Float[Array, "v d"]
    allowed: Bool[Array, "*b k v"]
    process: Gaussian

    def __call__(self, x: Float[Array, "b l d"], t: Time, valid: Valid = None, x_0: Any = None) -> Float[Array, "b"]:
        if self._num_starts(x) < 1:
            return jnp.full(len(x), -jnp.log(MIN_ENERGY))  # the texts are shorter than the phrase
        log_q, _, fits = self._log_match(x, t, valid, x_0)
        return -_log_any(log_q, fits)

    def complement(self, x: Float[Array, "b l d"], t: Time, valid: Valid = None, x_0: Any = None) -> Float[Array, "b"]:
        """Returns −log(1 − p) = −Σ log(1 − q)."""
        if self._num_starts(x) < 1:
            return jnp.zeros(len(x))
        _, log_not_q, fits = self._log_match(x, t, valid, x_0)
        return -jnp.sum(jnp.where(fits, log_not_q, 0.0), axis=-1)

    def _num_starts(self, x: Float[Array, "b l d"]) -> int:
        return x.shape[1] - self.allowed.shape[-2] + 1

    def _log_match(
        self, x: Float[Array, "b l d"], t: Time, valid: Valid, x_0: Any
    ) -> tuple[Float[Array, "b s"], Float[Array, "b s"], Bool[Array, "b s"]]:
        """Returns log q and log(1 − q) of the phrase at each start, and whether it fits into the text there.

        log q is the sum of log p(allowed token) over the places. 1 − q is Σ p(other token at a place) · Π p(allowed
        token) over the places before it, whose logarithm has all its digits where q is close to 1.
        """
        x, t = (x, t) if x_0 is None else (x_0, 0.0)
        log_p, num_starts = token_log_probs(self.embedding, self.process, x, t), self._num_starts(x)
        log_q, log_not_q = jnp.zeros((len(x), num_starts)), jnp.full((len(x), num_starts), -jnp.inf)
        for place in range(self.allowed.shape[-2]):
            tokens = self.allowed[..., place, :].reshape(-1, 1, log_p.shape[-1])
            here = log_p[:, place : place + num_starts]
            log_not_q = jnp.logaddexp(log_not_q, log_q + log_total(here, ~tokens))
            log_q = log_q + log_total(here, tokens)
        fits = jnp.ones(log_q.shape, bool) if valid is None else valid[:, self.allowed.shape[-2] - 1 :]
        return log_q, log_not_q, fits


def _log_any(log_q: Float[Array, "b s"], possible: Bool[Array, "b s"]) -> Float[Array, "b"]:
    """Returns log(1 − Π (1 − q)) over the possible events; log MIN_ENERGY if none is possible."""
    any_possible = jnp.any(possible, axis=-1)
    possible = possible | ~any_possible[:, None]  # without any, the sum below would have no terms
    # log of Σ −log(1 − q), computed from log q where q is small, so that improbable events have a gradient, too.
    log_nats = jnp.log(complement(-jnp.maximum(log_q, LOG_SMALL_MATCH)))
    log_nats = jnp.where(log_q > LOG_SMALL_MATCH, log_nats, log_q)
    log_total = jax.nn.logsumexp(jnp.where(possible, log_nats, -jnp.inf), axis=-1)
    log_p = jnp.log(-jnp.expm1(-jnp.exp(jnp.maximum(log_total, LOG_SMALL_MATCH))))
    return jnp.where(any_possible, jnp.where(log_total > LOG_SMALL_MATCH, log_p, log_total), jnp.log(MIN_ENERGY))


def bag_log_prob(logits: Float[Array, "b v"], allowed: Bool[Array, "*b k v"], mean_length: float) -> Float[Array, "b"]:
    """Returns Σ log(1 − (1 − q)^n) over the k places: log p(allowed tokens occur somewhere, in any order), nats.

    q is the probability of a place's `allowed` tokens under the token distribution `logits` of a text, and n the mean
    length, as if the tokens of a text were independent.
    """
    log_p = jax.nn.log_softmax(logits)[:, None]
    log_q = jax.nn.logsumexp(jnp.where(allowed if allowed.ndim == 3 else allowed[None], log_p, -jnp.inf), axis=-1)
    log_absent = mean_length * jnp.log1p(-jnp.minimum(jnp.exp(log_q), 1 - 1e-6))
    log_present = jnp.log(-jnp.expm1(jnp.minimum(log_absent, -1e-7)))
    # Where q is small its logarithm has a gradient, which the power has lost.
    log_expected = log_q + math.log(mean_length)
    return jnp.sum(jnp.where(log_q < LOG_SMALL_MENTION, log_expected, log_present), axis=-1)


def bag_presence(logits: Float[Array, "b v"], mean_length: float) -> Float[Array, "b v"]:
    """Returns 1 − (1 − q)^n of every token: that it occurs among n tokens that are drawn from `logits`."""
    return -jnp.expm1(mean_length * jnp.log1p(-jnp.minimum(jax.nn.softmax(logits), 1 - 1e-6)))


@pytree
class WordEnergy:
    """−log p(target | which words occur in a text): logistic regression. It also guides samplers of tokens."""

    weights: Float[Array, "v c"]
    bias: Float[Array, "c"]
    factor: Float[Array, ""]  # of the weights
    target: Bool[Array, "*b c"]  # a text has one of these values
    label: str = static(default="")  # energies of different labels are not stacked

    def __call__(self, x: Int[Array, "b l"], t: Time, valid: Valid = None, x_0: Any = None) -> Float[Array, "b"]:
        return -log_total(jax.nn.log_softmax(self._logits(occurring(x, valid, len(self.weights)))), self.target)

    def complement(self, x: Int[Array, "b l"], t: Time, valid: Valid = None, x_0: Any = None) -> Float[Array, "b"]:
        """Returns −log p(a value outside the target)."""
        return self.excluded()(x, t, valid, x_0)

    def excluded(self) -> "WordEnergy":
        """Returns the energy of the values outside the target."""
        return dataclasses.replace(self, target=~self.target)

    def gain(self, occurs: Float[Array, "b v"]) -> Float[Array, "b v"]:
        """Returns log p(target | the words and one more) − log p(target | the words), nats, for each word to be added.

        A word that occurs already adds nothing, and none adds much where the target is probable.
        """
        # By Bayes' rule, log p(word | target, words) − log p(word | words): means, over the values, of its likelihood.
        logits = self._logits(occurs)
        likelihood = jnp.maximum(jax.nn.softmax(self.factor * self.weights), MIN_LIKELIHOOD)
        accepted = self.target | ~jnp.any(self.target, axis=-1, keepdims=True)  # without a target, nothing is gained
        of_target, of_all = jax.nn.softmax(jnp.where(accepted, logits, -jnp.inf)), jax.nn.softmax(logits)
        mean = lambda p: jnp.matmul(p, likelihood.T, precision="highest")
        return (1 - occurs) * jnp.log(mean(of_target) / mean(of_all))

    def token_weights(self) -> Float[Array, "v"]:
        """Returns what each word says for the one target: its mean weight for these values less that for the others."""
        target = self.target.astype(jnp.float32)
        return self.weights @ (
            target / jnp.maximum(target.sum(), 1) - (1 - target) / jnp.maximum((1 - target).sum(), 1)
        )

    def _logits(self, occurs: Float[Array, "b v"]) -> Float[Array, "b c"]:
        return self.factor * (occurs @ self.weights) + self.bias


def occurring(tokens: Int[Array, "b l"], counted: Valid, vocab_size: int) -> Float[Array, "b v"]:
    """Returns 1 for each token that occurs at a `counted` position, else 0; other ids are no tokens."""
    ones = jnp.ones(tokens.shape) if counted is None else counted.astype(jnp.float32)
    rows = jnp.arange(len(tokens))[:, None]
    return jnp.zeros((len(tokens), vocab_size)).at[rows, tokens].max(ones, mode="drop")


def word_terms(energy: Any) -> list[tuple[WordEnergy, Any]]:
    """Returns the terms of a sum of `WordEnergy` and their `Not`, with their weights; other terms as they are."""
    terms: list[Any] = [
        term.energy.excluded() if isinstance(term, Not) and isinstance(term.energy, WordEnergy) else term
        for term in energy.energies
    ]
    return list(zip(terms, energy.weights, strict=True))


def token_bias(energy: Any, occurs: Float[Array, "b v"]) -> Float[Array, "b 1 v"]:
    """Returns what is added to the logits of the tokens to be sampled so that they follow an energy of words, nats.

    p(token) p(target | the words so far and it) / p(target | the words so far): exact for one token at a time, if the
    classifier judges unfinished texts as it does finished ones.
    """
    terms = [jnp.reshape(jnp.asarray(weight), (-1, 1)) * term.gain(occurs) for term, weight in word_terms(energy)]
    return sum(terms[1:], terms[0])[:, None]


@pytree
class WordGuide:
    """What is added to the logits of an edit that is written from left to right.

    `strength` times the gain of each token for an energy of words (`token_bias`), and `hold` nats for a neutral token
    of the source that the edit does not have yet. With a strength of 1 the last token is drawn by Bayes' rule.
    """

    energy: Any  # a Sum, see `word_terms`; its targets are those of all texts
    neutral: Float[Array, "v"]  # from 0 to 1: 1 if a token says nothing of the controls
    source: Float[Array, "b v"]  # 1 for each token that occurs in the source
    strength: Float[Array, "*b"] | float
    hold: Float[Array, "*b"] | float

    def __call__(self, occurs: Float[Array, "b v"]) -> Float[Array, "b v"]:
        strength, hold = (jnp.reshape(jnp.asarray(each), (-1, 1)) for each in (self.strength, self.hold))
        return strength * token_bias(self.energy, occurs)[:, 0] + hold * self.neutral * self.source * (1 - occurs)

    def repeated(self, num: int) -> "WordGuide":
        """Returns the guide of all texts `num` times in turn, each time with the next strength and the next hold."""
        each = lambda leaf: jnp.repeat(jnp.asarray(leaf), len(self.source))
        source = jnp.tile(self.source, (num, 1))
        return dataclasses.replace(self, source=source, strength=each(self.strength), hold=each(self.hold))
