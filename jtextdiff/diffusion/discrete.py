"""Absorbing and uniform diffusion of tokens: prior, marginal and posterior.

Everything is in log space and O(K) per token. x_0 is given as log-probabilities of the K states: `delta(tokens, K)` for
known tokens, a log-softmax for a prediction. No matrix is formed: a row of Q̄ = ᾱ I + (1 − ᾱ) 1πᵀ is two numbers and
the stationary distribution π (Austin et al. 2021, §3.1, A.2).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jtextdiff.diffusion.distributions import Categorical
from jtextdiff.diffusion.pytree import pytree, static
from jtextdiff.diffusion.randomness import Keys, fold_in, per_row
from jtextdiff.diffusion.schedules import Schedule, Time, expand_like

MAX_FINAL_SIGNAL = 0.01
"""Largest allowed ᾱ(1). Tokens that survive are guessed at the start of a sample, and count in the bound."""

LogProbs = Float[Array, "*b k"]


@pytree
class Discrete:
    """The forward process: x_t = x_0 with probability ᾱ_t, else x_t ~ π."""

    log_alpha_bar: Schedule = static()
    log_pi: Float[Array, "k"]
    log_guess: Float[Array, "k"]  # p(x_0) assumed for tokens that survive to t = 1

    def prior(self, shape: tuple[int, ...]) -> Categorical:
        """Returns p(x_1): π, except for the share ᾱ_1 that the schedule may leave, which is guessed."""
        log_p = _log_mix(self.log_alpha_bar(jnp.ones(())), self.log_guess, self.log_pi)
        return Categorical(logits=jnp.broadcast_to(log_p, (*shape, len(log_p))))

    def marginal(self, x_0: LogProbs, t: Time) -> Categorical:
        """Returns q(x_t | x_0) = ᾱ_t x_0 + (1 − ᾱ_t) π."""
        return Categorical(logits=_log_mix(expand_like(self.log_alpha_bar(t), x_0), x_0, self._log_pi_like(x_0)))

    def noised(self, keys: Keys, x_0: Int[Array, "b l"], t: Time) -> Int[Array, "b l"]:
        """Samples x_t ~ q(x_t | x_0) of known tokens, as `marginal` but without an array of K numbers per token."""
        u_keep, u_pi = (per_row(jax.random.uniform, fold_in(keys, purpose), x_0.shape) for purpose in range(2))
        cumulative = jnp.cumsum(jnp.exp(self.log_pi))
        from_pi = jnp.minimum(jnp.searchsorted(cumulative, u_pi, side="right"), len(cumulative) - 1)
        return jnp.where(u_keep < jnp.exp(expand_like(self.log_alpha_bar(t), x_0)), x_0, from_pi)

    def likelihood(self, x_t: Int[Array, "*b"], s: Time, t: Time) -> LogProbs:
        """Returns log q(x_t | x_s) for each value of x_s."""
        identity = delta(x_t, len(self.log_pi))
        log_alpha = expand_like(self.log_alpha_bar(t) - self.log_alpha_bar(s), identity)
        return _log_mix(log_alpha, identity, self.log_pi[x_t][..., None])

    def posterior(self, x_0: LogProbs, x_t: Int[Array, "*b"], s: Time, t: Time) -> Categorical:
        """Returns Σ p(x_0) q(x_s | x_t, x_0) for s < t, by Bayes: q(x_t | x_s) Σ q(x_s | x_0) p(x_0) / q(x_t | x_0).

        Values of x_0 that cannot become x_t are left out of the sum. Austin et al. (2021), eq. 3, for a known x_0.
        """
        log_q_t = self.likelihood(x_t, jnp.zeros(()), t)
        possible = log_q_t > -jnp.inf
        log_ratio = jnp.where(possible, x_0 - jnp.where(possible, log_q_t, 0.0), -jnp.inf)
        from_pi = self._log_pi_like(x_0) + jax.nn.logsumexp(log_ratio, axis=-1, keepdims=True)
        log_q_s = _log_mix(expand_like(self.log_alpha_bar(s), x_0), log_ratio, from_pi)
        return Categorical(logits=self.likelihood(x_t, s, t) + log_q_s)

    def joint(self, x_0: LogProbs, x_t: Int[Array, "*b"], t: Time) -> LogProbs:
        """Returns p(x_0) q(x_t | x_0), normalised: with it, `posterior` is D3PM's p(x_s | x_t), which weighs x_t twice.

        Austin et al. (2021), eq. 4: q(x_t | x_s) Σ q(x_s | x_0) p(x_0). It changes nothing for an absorbing state.
        """
        return jax.nn.log_softmax(x_0 + self.likelihood(x_t, jnp.zeros(()), t))

    def _log_pi_like(self, x_0: LogProbs) -> LogProbs:
        return jnp.broadcast_to(self.log_pi, x_0.shape)


def absorbing(schedule: Schedule, vocab_size: int) -> Discrete:
    """Returns the process in which tokens become MASK, state `vocab_size`, and stay masked.

    Raises ValueError if too many tokens are unmasked at t = 1.
    """
    _check_final_signal(schedule)
    is_mask = np.arange(vocab_size + 1) == vocab_size
    log_pi = jnp.asarray(np.where(is_mask, 0.0, -np.inf), float)
    log_guess = jnp.asarray(np.where(is_mask, -np.inf, -np.log(vocab_size)), float)
    return Discrete(log_alpha_bar=schedule, log_pi=log_pi, log_guess=log_guess)


def uniform(schedule: Schedule, vocab_size: int) -> Discrete:
    """Returns the process in which tokens become any token, themselves included.

    Raises ValueError if too many tokens are unchanged at t = 1.
    """
    _check_final_signal(schedule)
    log_p = jnp.full(vocab_size, -jnp.log(vocab_size))
    return Discrete(log_alpha_bar=schedule, log_pi=log_p, log_guess=log_p)


def delta(tokens: Int[Array, "*b"], num_states: int) -> LogProbs:
    """Returns the log-probabilities of a point mass: 0 at the token, −∞ elsewhere."""
    states = jnp.arange(num_states).reshape((1,) * tokens.ndim + (-1,))
    return jnp.where(tokens[..., None] == states, 0.0, -jnp.inf)


def _log_mix(log_weight: Array, log_p: Array, log_q: Array) -> Array:
    """Returns log(w p + (1 − w) q) from logarithms."""
    return jnp.logaddexp(log_weight + log_p, jnp.log(-jnp.expm1(log_weight)) + log_q)


def _check_final_signal(schedule: Schedule) -> None:
    with jax.ensure_compile_time_eval(), jax.transfer_guard("allow"):  # one number, under any transfer guard
        alpha_bar_1 = float(jnp.exp(schedule(jnp.ones(()))))
    if not alpha_bar_1 <= MAX_FINAL_SIGNAL:
        raise ValueError(
            f"The schedule leaves {alpha_bar_1:.3g} of the tokens unchanged at t = 1, but at most {MAX_FINAL_SIGNAL} "
            "is allowed: sampling would not start where noised texts end. Choose a schedule that falls further."
        )
