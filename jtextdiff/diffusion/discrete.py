"""Discrete diffusion: how words are destroyed, and what undoing it would mean; in log space, O(K) a word.

x_0 is stated as log-probabilities of the K states: `delta(tokens, K)` for a certainty, a log-softmax for a belief.
No matrix is made: rows of Q̄ = ᾱ I + (1 − ᾱ) 1πᵀ are two numbers and the law π (Austin et al. 2021, §3.1, A.2).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jtextdiff.diffusion.distributions import Categorical
from jtextdiff.diffusion.pytree import pytree, static
from jtextdiff.diffusion.randomness import Keys, draw, fold
from jtextdiff.diffusion.schedules import Schedule, Time, against

MAX_LEFT = 0.01
"""ᾱ(1), at most: what is left is guessed at the start of a sample, and paid for in the bound."""

LogProbs = Float[Array, "*b k"]


@pytree
class Discrete:
    """With probability ᾱ_t a word is still itself; else it has been drawn anew from π."""

    log_alpha_bar: Schedule = static()
    log_pi: Float[Array, "k"]
    log_guess: Float[Array, "k"]  # what a word may be where the process has not reached it at t = 1

    def prior(self, shape: tuple[int, ...]) -> Categorical:
        """p(x_1): π, but for the share ᾱ_1 that a schedule may leave, which is guessed."""
        law = _mix(self.log_alpha_bar(jnp.ones(())), self.log_guess, self.log_pi)
        return Categorical(logits=jnp.broadcast_to(law, (*shape, len(law))))

    def marginal(self, x_0: LogProbs, t: Time) -> Categorical:
        """q(x_t | x_0) = ᾱ_t x_0 + (1 − ᾱ_t) π."""
        return Categorical(logits=_mix(against(self.log_alpha_bar(t), x_0), x_0, self._law(x_0)))

    def noised(self, keys: Keys, x_0: Int[Array, "b l"], t: Time) -> Int[Array, "b l"]:
        """x_t ~ q(x_t | x_0) of certain words: the same law as `marginal`, without an array of K numbers a word."""
        kept, lot = (draw(jax.random.uniform, fold(keys, purpose), x_0.shape) for purpose in range(2))
        below = jnp.cumsum(jnp.exp(self.log_pi))
        fresh = jnp.minimum(jnp.searchsorted(below, lot, side="right"), len(below) - 1)
        return jnp.where(kept < jnp.exp(against(self.log_alpha_bar(t), x_0)), x_0, fresh)

    def likelihood(self, x_t: Int[Array, "*b"], s: Time, t: Time) -> LogProbs:
        """log q(x_t | x_s) for each x_s."""
        seen = delta(x_t, len(self.log_pi))
        kept = against(self.log_alpha_bar(t) - self.log_alpha_bar(s), seen)
        return _mix(kept, seen, self.log_pi[x_t][..., None])

    def posterior(self, x_0: LogProbs, x_t: Int[Array, "*b"], s: Time, t: Time) -> Categorical:
        """Σ p(x_0) q(x_s | x_t, x_0) for s < t, by Bayes: q(x_t | x_s) Σ q(x_s | x_0) p(x_0) / q(x_t | x_0).

        x_0 that could not have become x_t count nothing. Austin et al. (2021), eq. 3, for a certain x_0.
        """
        could = self.likelihood(x_t, jnp.zeros(()), t)
        each = jnp.where(could > -jnp.inf, x_0 - jnp.where(could > -jnp.inf, could, 0.0), -jnp.inf)
        fresh = self._law(x_0) + jax.nn.logsumexp(each, axis=-1, keepdims=True)
        return Categorical(logits=self.likelihood(x_t, s, t) + _mix(against(self.log_alpha_bar(s), x_0), each, fresh))

    def joint(self, x_0: LogProbs, x_t: Int[Array, "*b"], t: Time) -> LogProbs:
        """p(x_0) q(x_t | x_0), normalised: the belief whose `posterior` is D3PM's p(x_s | x_t), which weighs x_t twice.

        Austin et al. (2021), eq. 4: q(x_t | x_s) Σ q(x_s | x_0) p(x_0). The same as without for an absorbing state.
        """
        return jax.nn.log_softmax(x_0 + self.likelihood(x_t, jnp.zeros(()), t))

    def _law(self, like: LogProbs) -> LogProbs:
        return jnp.broadcast_to(self.log_pi, like.shape)


def absorbing(schedule: Schedule, num_words: int) -> Discrete:
    """Words become MASK, state `num_words`, and stay so. Raises ValueError if too many never do."""
    _check_end(schedule)
    states = np.arange(num_words + 1)
    log_pi = np.where(states == num_words, 0.0, -np.inf)
    log_guess = np.where(states == num_words, -np.inf, -np.log(num_words))
    log_pi, log_guess = (jnp.asarray(law, float) for law in (log_pi, log_guess))
    return Discrete(log_alpha_bar=schedule, log_pi=log_pi, log_guess=log_guess)


def uniform(schedule: Schedule, num_words: int) -> Discrete:
    """Words become any word, themselves included. Raises ValueError if too many never do."""
    _check_end(schedule)
    law = jnp.full(num_words, -jnp.log(num_words))
    return Discrete(log_alpha_bar=schedule, log_pi=law, log_guess=law)


def _check_end(schedule: Schedule) -> None:
    with jax.ensure_compile_time_eval(), jax.transfer_guard("allow"):  # one number, whoever watches
        left = float(jnp.exp(schedule(jnp.ones(()))))
    if not left <= MAX_LEFT:
        raise ValueError(
            f"The schedule leaves {left:.3g} of the words as they are at t = 1, of at most {MAX_LEFT}: samples would "
            "not start where texts end. Choose one that falls further."
        )


def delta(tokens: Int[Array, "*b"], num_states: int) -> LogProbs:
    """The log-probabilities of a certainty: 0 at the token, −∞ elsewhere."""
    states = jnp.arange(num_states).reshape((1,) * tokens.ndim + (-1,))
    return jnp.where(tokens[..., None] == states, 0.0, -jnp.inf)


def revealed(log_alpha_bar: Schedule, s: Time, t: Time) -> Array:
    """(ᾱ_s − ᾱ_t)/(1 − ᾱ_t): the probability that a word masked at t is no longer so at s < t."""
    log_s, log_t = log_alpha_bar(s), log_alpha_bar(t)
    return jnp.exp(log_s) * jnp.expm1(log_t - log_s) / jnp.expm1(log_t)


def reveal_rate(log_alpha_bar: Schedule, t: Time) -> Array:
    """−ᾱ′/(1 − ᾱ) = d log(1 − ᾱ)/dt: what a masked word weighs in the bound in continuous time.

    Sahoo et al. (2024), eq. 10; Shi et al. (2024), eq. 4. Looked up just before t = 1, where log ᾱ is infinite.
    """
    t = jnp.minimum(t, 1 - 1e-6)
    log_masked = lambda t: jnp.log(-jnp.expm1(log_alpha_bar(t)))
    return jax.jvp(log_masked, (t,), (jnp.ones_like(t),))[1]


def _mix(log_kept: Array, x: Array, y: Array) -> Array:
    """log(kept · x + (1 − kept) · y), all as logarithms."""
    return jnp.logaddexp(log_kept + x, jnp.log(-jnp.expm1(log_kept)) + y)


def largest(values: Float[Array, "b l"], count: Int[Array, "b"]) -> Bool[Array, "b l"]:
    """Where the `count` largest of each row are; of equal ones the first."""
    rank = jnp.argsort(jnp.argsort(-values, axis=-1), axis=-1)
    return rank < count[:, None]
