"""Remasking: revealed tokens are masked again and drawn anew, so that later tokens correct earlier ones.

A step of ReMDM from t to s masks a revealed token with probability σ and reveals a masked one with probability
(ᾱ_s − (1 − σ) ᾱ_t)/(1 − ᾱ_t). For any σ up to min(1, (1 − ᾱ_s)/ᾱ_t) the share of masked tokens at s is that of the
diffusion, 1 − ᾱ_s (Wang et al. 2025, §3). `corrected` makes any unmasking step go on with a finished text.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jtextdiff.diffusion.distributions import Categorical
from jtextdiff.diffusion.masking import top_k_mask
from jtextdiff.diffusion.randomness import Keys, fold_in, per_row
from jtextdiff.diffusion.schedules import Schedule
from jtextdiff.sampling.loop import Step
from jtextdiff.sampling.masked_state import MaskedState, Predict

REMASKING = ("renoise", "cap", "rescale", "confidence", "loop")
CORRECTIONS = ("off", "doubtful", "random")
LOOP_TIME = 0.1
"""The time at which "loop" stays, with nine tokens in ten revealed under a linear schedule."""


def remasking_probability(strategy: str, rate: float, alpha_bar_t: Array, alpha_bar_s: Array) -> Array:
    """Returns σ of a step, at most its limit; of "confidence", the sum over the tokens of a text.

    "renoise": 1 − ᾱ_s. It masks every token anew: all masked tokens are predicted, and each is kept with probability
    ᾱ_s. "cap": at most `rate`. "rescale": `rate` times the limit. "confidence": the limit. "loop": `rate` in the steps
    that stay at one time, and 0 in the others.
    """
    limit = jnp.minimum(1.0, (1 - alpha_bar_s) / jnp.maximum(alpha_bar_t, 1e-9))
    sigma = {
        "renoise": 1 - alpha_bar_s,
        "cap": jnp.full_like(limit, rate),
        "rescale": rate * limit,
        "confidence": limit,
        "loop": jnp.where(alpha_bar_s == alpha_bar_t, rate, 0.0),
    }[strategy]
    return jnp.minimum(sigma, limit)


def loop_times(num_steps: int) -> tuple[Array, Array]:
    """Returns (t, s) of each step: down to LOOP_TIME in 45 %, there for 50 %, down to 0 (Wang et al. 2025, §4.2)."""
    done = np.arange(num_steps + 1) / num_steps
    times = jnp.asarray(np.interp(done, (0, 0.45, 0.95, 1), (1, LOOP_TIME, LOOP_TIME, 0)), float)
    return times[:-1], times[1:]


def remasking(schedule: Schedule, predict: Predict, start: MaskedState, *, strategy: str, rate: float) -> Step:
    """Returns the step from t to s. Only tokens that are masked at the `start` are ever masked.

    Tokens that are revealed together are sampled independently, and some of them stay: the samples do not have the
    distribution of the model in the limit of many steps with "renoise". With "cap" and "rescale" they do. "confidence"
    masks one token of a text at most on the average, by a softmax of −p when it was drawn, and reveals as many more.
    """
    free = start.masked

    def step(keys: Keys, state: MaskedState, point: tuple[Array, Array]) -> MaskedState:
        t, s = point
        alpha_bar_t, alpha_bar_s = jnp.exp(schedule(t)), jnp.exp(schedule(s))
        sigma = remasking_probability(strategy, rate, alpha_bar_t, alpha_bar_s)
        reveal_probability = (alpha_bar_s - (1 - sigma) * alpha_bar_t) / (1 - alpha_bar_t)
        if strategy == "confidence":
            plain = (alpha_bar_s - alpha_bar_t) / (1 - alpha_bar_t)
            written, num_masked = free & ~state.masked, jnp.sum(state.masked, axis=-1, keepdims=True)
            total = jnp.minimum(sigma, 1 - plain) * ((num_masked > 0) & jnp.any(written, axis=-1, keepdims=True))
            sigma = total * jax.nn.softmax(-jnp.exp(state.log_p), axis=-1, where=written)
            reveal_probability = plain + total / jnp.maximum(num_masked, 1)
        u = per_row(jax.random.uniform, fold_in(keys, 2), free.shape)
        revealed = state.masked & (u < reveal_probability)
        remasked = free & ~state.masked & (u < sigma)
        log_p, hidden = predict(state.tokens, t, state.hidden)
        drawn = Categorical(logits=log_p).sample(fold_in(keys, 1))
        tokens = jnp.where(revealed, drawn, jnp.where(remasked, start.tokens, state.tokens))
        log_p_drawn = jnp.where(revealed, Categorical(logits=log_p).log_prob(drawn), state.log_p)
        # A self-conditioned network is called in every step: later ones read its hidden states.
        calls = state.calls + (jnp.any(revealed, axis=-1) if hidden is None else 1)
        return MaskedState(tokens, (state.masked & ~revealed) | remasked, calls, log_p_drawn, hidden)

    return step


def corrected(step: Step, start: MaskedState, *, choice: str, count: int) -> Step:
    """Returns the step that masks `count` tokens of each finished text again, and reveals as `step` does.

    "random": any tokens that were masked at the `start`; one at a time this is Gibbs sampling, which leaves the
    distribution as it is if predictions are exact. "doubtful": one with probability proportional to (1 − p)/p, where p
    is the probability of the token when it was drawn. That favours likely texts, at some cost in variety.
    """

    def correct(keys: Keys, state: MaskedState, point: Array) -> MaskedState:
        finished = ~jnp.any(state.masked, axis=-1, keepdims=True)
        again = (
            start.masked & finished & top_k_mask(_priority(keys, state, start, choice), jnp.full(len(finished), count))
        )
        tokens = jnp.where(again, start.tokens, state.tokens)
        return step(keys, state._replace(tokens=tokens, masked=state.masked | again), point)

    return correct


def _priority(keys: Keys, state: MaskedState, start: MaskedState, choice: str) -> Float[Array, "b l"]:
    """Returns Gumbel noise plus the log-odds against each token, if doubtful ones are to be masked."""
    gumbel = per_row(jax.random.gumbel, fold_in(keys, 3), start.tokens.shape)
    if choice == "doubtful":
        doubt = jnp.log(-jnp.expm1(jnp.minimum(state.log_p, -1e-6))) - state.log_p
        gumbel = gumbel + doubt
    return jnp.where(start.masked, gumbel, -jnp.inf)
