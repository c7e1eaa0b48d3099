"""Reverse steps and bound terms of discrete diffusion, by a network that predicts x_0 (Austin et al. 2021)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.diffusion.discrete import Discrete, LogProbs, delta
from jtextdiff.diffusion.distributions import Categorical
from jtextdiff.diffusion.elbo import mean_over_strata
from jtextdiff.diffusion.losses import cross_entropy
from jtextdiff.diffusion.masking import reveal_probability
from jtextdiff.diffusion.schedules import Time, sigma
from jtextdiff.sampling.denoiser_transforms import self_condition


class DiscreteDenoiser(NamedTuple):
    """A network bound to its parameters, and the process of `num_steps` steps that it reverses."""

    net: Any  # a TokenDenoiser of the step, or of σ
    process: Discrete
    num_steps: int  # T
    vocab_size: int  # MASK is the state after the tokens
    absorbing: bool
    form: str  # see `D3PM.form`
    self_conditioned: bool = False
    reads_sigma: bool = False

    def network_time(self, index: Int[Array, "b"]) -> Array:
        """Returns what the network reads at step `index` of T."""
        return sigma(self.process.log_alpha_bar(index / self.num_steps)) if self.reads_sigma else index

    def reverse(self, log_p: LogProbs, x_t: Int[Array, "b l"], s: Time, t: Time) -> Categorical:
        """Returns p(x_s | x_t) for a predicted distribution of x_0."""
        return self.process.posterior(self.x_0(log_p, x_t, t), x_t, s, t)

    def x_0(self, log_p: LogProbs, x_t: Int[Array, "b l"], t: Time) -> LogProbs:
        """Returns log p(x_0 | x_t) from the network's prediction, which under "joint" has yet to be weighed by x_t."""
        return self.process.joint(log_p, x_t, t) if self.form == "joint" else log_p

    def terms(
        self,
        noise_key: Key[Array, ""],
        tokens: Int[Array, "b l"],
        valid: Bool[Array, "b l"],
        index: Int[Array, "b"],
        dropout_key: Key[Array, ""] | None = None,
        *,
        two_passes: Bool[Array, ""] | bool = True,
        by_bayes: bool = False,
    ) -> tuple[Float[Array, "b l"], Float[Array, "b l"]]:
        """Returns KL(q(x_s | x_t, x_0) ‖ p(x_s | x_t)) of step `index` of T, and −log p(x_0 | x_t), nats per position.

        At the last step the KL is −log p(x_0 | x_1). For masked tokens it is (ᾱ_s − ᾱ_t)/(1 − ᾱ_t) times the second
        value, a closed form that `by_bayes` replaces by the KL of the posteriors themselves. With `two_passes`, a
        self-conditioned network reads its hidden states of a first pass over the same x_t.
        """
        process, s, t = self.process, (index - 1) / self.num_steps, index / self.num_steps
        x_t, time = process.noised(noise_key, tokens, t), self.network_time(index)

        def kl_and_nll(logits: Array, x_t: Int[Array, "b m"], tokens: Int[Array, "b m"]) -> tuple[Array, Array]:
            nll = cross_entropy(logits, tokens)
            if self.absorbing and not by_bayes:
                share = reveal_probability(process.log_alpha_bar, s, t)[:, None]
                return jnp.where(x_t == self.vocab_size, share * nll, 0.0), nll
            x_0 = self._delta(tokens)
            mask_state = ((0, 0), (0, 0), (0, x_0.shape[-1] - logits.shape[-1]))
            log_p = jnp.pad(jax.nn.log_softmax(logits), mask_state, constant_values=-jnp.inf)
            return process.posterior(x_0, x_t, s, t).kl(self.reverse(log_p, x_t, s, t)), nll

        if not self.self_conditioned:
            return self.net.per_token(kl_and_nll, (x_t, tokens), x_t, time, valid=valid, key=dropout_key)
        previous = self_condition(lambda: self.net.hidden(x_t, time, valid=valid), jnp.asarray(two_passes))
        return self.net.per_token(kl_and_nll, (x_t, tokens), x_t, time, previous=previous, valid=valid, key=dropout_key)

    def estimated_bound(
        self, key: Key[Array, ""], tokens: Int[Array, "b l"], valid: Bool[Array, "b l"], num_points: int
    ) -> Float[Array, "b l"]:
        """Estimates the sum of the prior term and the T step terms from `num_points` of them, nats per position."""

        def estimate(u: Float[Array, "b"], noise_key: Key[Array, ""]) -> Float[Array, "b l"]:
            index, inverse_probability = self._importance_sampled_step(u)
            kl, _ = self.terms(noise_key, tokens, valid, index)
            return inverse_probability[:, None] * kl

        return mean_over_strata(estimate, key, num_points, tokens.shape) + self._prior_kl()

    def full_bound(
        self, key: Key[Array, ""], tokens: Int[Array, "b l"], valid: Bool[Array, "b l"]
    ) -> Float[Array, "b l"]:
        """Returns the same sum with all T terms, as KL of posteriors: one network call per step."""

        def add(total: Array, index: Array) -> tuple[Array, None]:
            noise_key, step = jax.random.fold_in(key, index), jnp.full(len(tokens), index)
            kl, _ = self.terms(noise_key, tokens, valid, step, by_bayes=True)
            return total + kl, None

        steps = jnp.arange(1, self.num_steps + 1)
        return jax.lax.scan(add, jnp.zeros(tokens.shape), steps)[0] + self._prior_kl()

    def _importance_sampled_step(self, u: Float[Array, "b"]) -> tuple[Int[Array, "b"], Float[Array, "b"]]:
        """Returns a step n of T, and one over the probability of drawing it when u is uniform in (0, 1].

        Under the uniform kernel the first steps have the largest terms, so they are drawn more often: n = ⌈T u²⌉ has
        probability √(n/T) − √((n − 1)/T), whose inverse is T (√(n/T) + √((n − 1)/T)).
        """
        if self.absorbing:
            return jnp.maximum(jnp.ceil(u * self.num_steps), 1).astype(int), jnp.full_like(u, self.num_steps)
        index = jnp.maximum(jnp.ceil(u**2 * self.num_steps), 1)
        roots = jnp.sqrt(index / self.num_steps) + jnp.sqrt((index - 1) / self.num_steps)
        return index.astype(int), self.num_steps * roots

    def _prior_kl(self) -> Float[Array, "1 1"]:
        """Returns KL(q(x_1 | x_0) ‖ p(x_1)), nats, which is the same for every token."""
        any_token = jnp.zeros((1, 1), int)
        return self.process.marginal(self._delta(any_token), 1.0).kl(self.process.prior((1, 1)))

    def _delta(self, tokens: Int[Array, "b l"]) -> LogProbs:
        return delta(tokens, self.vocab_size + self.absorbing)
