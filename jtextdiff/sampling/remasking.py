"""Remasking: revealed tokens may be masked again and sampled anew, so that later tokens correct earlier ones (ReMDM).

A step from t to s masks a revealed token with probability σ and reveals a masked one with probability
(ᾱ_s − (1 − σ) ᾱ_t)/(1 − ᾱ_t). For any σ up to min(1, (1 − ᾱ_s)/ᾱ_t) the share of masked tokens at s is that of the
diffusion, 1 − ᾱ_s (Wang et al. 2025, §3).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jtextdiff.diffusion.distributions import Categorical
from jtextdiff.diffusion.randomness import Keys, fold_in, per_row
from jtextdiff.diffusion.schedules import Schedule
from jtextdiff.sampling.loop import Step
from jtextdiff.sampling.masked_state import MaskedState, Predict

REMASKING = ("renoise", "cap", "rescale")


def remasking_probability(strategy: str, rate: float, alpha_bar_t: Array, alpha_bar_s: Array) -> Array:
    """Returns σ of a step: 1 − ᾱ_s ("renoise"), at most `rate` ("cap"), or `rate` times its limit ("rescale").

    "renoise" masks every token anew: all masked tokens are predicted, and each is kept with probability ᾱ_s.
    """
    limit = jnp.minimum(1.0, (1 - alpha_bar_s) / jnp.maximum(alpha_bar_t, 1e-9))
    sigma = {"renoise": 1 - alpha_bar_s, "cap": jnp.full_like(limit, rate), "rescale": rate * limit}[strategy]
    return jnp.minimum(sigma, limit)


def remasking(schedule: Schedule, predict: Predict, start: MaskedState, *, strategy: str, rate: float) -> Step:
    """Returns the step from t to s. Only tokens that are masked at the `start` are ever masked.

    Tokens that are revealed together are sampled independently, and some of them stay: the samples do not have the
    distribution of the model in the limit of many steps with "renoise", and do with the others.
    """
    free = start.masked

    def step(keys: Keys, state: MaskedState, point: tuple[Array, Array]) -> MaskedState:
        t, s = point
        alpha_bar_t, alpha_bar_s = jnp.exp(schedule(t)), jnp.exp(schedule(s))
        sigma = remasking_probability(strategy, rate, alpha_bar_t, alpha_bar_s)
        reveal_probability = (alpha_bar_s - (1 - sigma) * alpha_bar_t) / (1 - alpha_bar_t)
        u = per_row(jax.random.uniform, fold_in(keys, 2), free.shape)
        revealed = state.masked & (u < reveal_probability)
        remasked = free & ~state.masked & (u < sigma)
        log_p, hidden = predict(state.tokens, t, state.hidden)
        drawn = Categorical(logits=log_p).sample(fold_in(keys, 1))
        tokens = jnp.where(revealed, drawn, jnp.where(remasked, start.tokens, state.tokens))
        # A self-conditioned network is called in every step: later ones read its hidden states.
        calls = state.calls + (jnp.any(revealed, axis=-1) if hidden is None else 1)
        return MaskedState(tokens, (state.masked & ~revealed) | remasked, calls, hidden)

    return step
