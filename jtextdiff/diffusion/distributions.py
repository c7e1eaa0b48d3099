"""Distributions: values that know their sample, their mode, their log-density and their divergence."""

import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jtextdiff.diffusion.pytree import pytree
from jtextdiff.diffusion.randomness import Keys, draw, fold


class Distribution(Protocol):
    """What is asked of randomness; all answers are per element, in nats."""

    def sample(self, keys: Keys) -> Array: ...
    def mode(self) -> Array: ...
    def log_prob(self, x: Array) -> Array: ...
    def kl(self, other: Any) -> Array: ...


@pytree
class Normal:
    """Independent normals; `std` broadcasts against `mean`, and std = 0 is the point at the mean."""

    mean: Float[Array, "..."]
    std: Float[Array, "..."]

    def sample(self, keys: Keys) -> Float[Array, "..."]:
        return self.mean + self.std * draw(jax.random.normal, keys, self.mean.shape)

    def mode(self) -> Float[Array, "..."]:
        return self.mean

    def log_prob(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Log-density in nats an element."""
        z = (x - self.mean) / self.std
        return -0.5 * (z**2 + math.log(2 * math.pi)) - jnp.log(self.std)

    def kl(self, other: "Normal") -> Float[Array, "..."]:
        """KL(self ‖ other), nats an element."""
        ratio = (self.std / other.std) ** 2
        return 0.5 * (ratio - 1 - jnp.log(ratio) + ((self.mean - other.mean) / other.std) ** 2)


@pytree
class Categorical:
    """Independent categoricals over the last axis of unnormalised `logits`."""

    logits: Float[Array, "*b k"]

    def sample(self, keys: Keys) -> Int[Array, "*b"]:
        """One of √K blocks by its share, then one of its √K categories: two numbers are drawn, and not K.

        With a row's own key, whatever the other rows are. A Gumbel race takes twenty times as long at K = 1,000.
        """
        k = self.logits.shape[-1]
        size = math.isqrt(max(k - 1, 0)) + 1
        p = jnp.exp(self.logits - jnp.max(self.logits, axis=-1, keepdims=True))
        p = jnp.pad(p, [(0, 0)] * (p.ndim - 1) + [(0, size * size - k)]).reshape(*p.shape[:-1], size, size)
        block = _pick(fold(keys, 0), jnp.sum(p, axis=-1))
        within = jnp.take_along_axis(p, block[..., None, None], axis=-2)[..., 0, :]
        return block * size + _pick(fold(keys, 1), within)

    def mode(self) -> Int[Array, "*b"]:
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

    def log_prob(self, x: Int[Array, "*b"]) -> Float[Array, "*b"]:
        """Log-probability in nats."""
        return jnp.take_along_axis(jax.nn.log_softmax(self.logits), x[..., None], axis=-1)[..., 0]

    def kl(self, other: "Categorical") -> Float[Array, "*b"]:
        """KL(self ‖ other), nats; categories that self never takes count nothing."""
        mine, theirs = jax.nn.log_softmax(self.logits), jax.nn.log_softmax(other.logits)
        return jnp.sum(jnp.where(mine > -jnp.inf, jnp.exp(mine) * (mine - theirs), 0.0), axis=-1)


def _pick(keys: Keys, p: Float[Array, "*b k"]) -> Int[Array, "*b"]:
    """An index with probability p / Σ p, and never one of probability 0, however sums are rounded."""
    below = jnp.cumsum(p, axis=-1)
    lot = draw(jax.random.uniform, keys, p.shape[:-1]) + 2.0**-24  # never 0, which any first entry would win
    target = lot[..., None] * below[..., -1:]
    return jnp.argmax(jnp.where(p > 0, 1 + (below > target), 0), axis=-1).astype(jnp.int32)


def check_narrowing(temperature: float, top_p: float = 1.0) -> None:
    """Raises ValueError for settings of a sampler that `narrowed` cannot follow."""
    if not 1e-6 <= temperature < math.inf:
        raise ValueError(f"sampler.temperature must be a number of at least 1e-6, got {temperature}.")
    if not 0 < top_p <= 1:
        raise ValueError(f"sampler.top_p must be above 0 and at most 1, got {top_p}.")


def narrowed(logits: Float[Array, "*b k"], temperature: float, top_p: float = 1.0) -> Float[Array, "*b k"]:
    """A law sharpened by a temperature and cut to its likeliest words (Holtzman et al. 2020), normalised."""
    log_p = jax.nn.log_softmax(logits / temperature)
    if top_p == 1:
        return log_p
    ordered = jnp.sort(log_p, axis=-1, descending=True)
    before = jnp.cumsum(jnp.exp(ordered), axis=-1) - jnp.exp(ordered)
    least = jnp.min(jnp.where(before < top_p, ordered, jnp.inf), axis=-1, keepdims=True)
    return jax.nn.log_softmax(jnp.where(log_p >= least, log_p, -jnp.inf))
