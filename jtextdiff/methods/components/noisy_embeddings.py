"""Noisy words: word vectors under a Gaussian process, which a classifier reads and an energy moves."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.randomness import stratified
from jtextdiff.diffusion.schedules import Time
from jtextdiff.nets.denoisers import of_norm
from jtextdiff.nets.functional import Params


class NoisyWords(NamedTuple):
    """The states of a Diffusion-LM: what they are made of and how they are best looked at."""

    process: Gaussian
    dim: int  # numbers of a vector
    norm: float | None  # of every word's vector; None: free
    pad: int
    length: int  # positions that a text fills if PAD is a word like any other; 0: it is not

    @property
    def spread(self) -> float | None:
        """The standard deviation of a vector's coordinate; None: not known."""
        return None if self.norm is None else self.norm / self.dim**0.5

    def words(self, batch: Batch) -> tuple[Int[Array, "b l"], Bool[Array, "b l"]]:
        """The tokens of a batch and where its texts are; if PAD is a word, they fill the length."""
        if not self.length:
            return jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        room = ((0, 0), (0, self.length - batch.tokens.shape[1]))
        tokens = jnp.pad(jnp.asarray(batch.tokens), room, constant_values=self.pad)
        return tokens, jnp.ones(tokens.shape, bool)

    def showing(self, params: Params) -> Params:
        """Those of the base's parameters that `clean` and `represent` need."""
        return {"embedding": params["embedding"]}

    def table(self, params: Params) -> Float[Array, "v d"]:
        """The vector of each word."""
        return of_norm(params["embedding"], self.norm)

    def clean(self, params: Params, batch: Batch) -> tuple[Float[Array, "b l d"], Bool[Array, "b l"]]:
        """The vectors of a batch's words, and where its texts are."""
        tokens, valid = self.words(batch)
        return self.table(params)[tokens], valid

    def represent(
        self, params: Params, key: Key[Array, ""], batch: Batch
    ) -> tuple[Float[Array, "b l d"], Float[Array, "b 1"], Bool[Array, "b l"]]:
        """x_t of texts, a time t in (0, 1] of each, the times spread evenly, and which positions are text."""
        when, noise = jax.random.split(key)
        x_0, valid = self.clean(params, batch)
        t = stratified(when, len(x_0))[:, None]
        return self.process.marginal(x_0, t).sample(noise), t, valid

    def readable(self, x_t: Float[Array, "b l d"], t: Time) -> Float[Array, "b l d"]:
        """x_t as a network is best shown it: its linear estimate of x_0, of one size at any t; if that is known."""
        return x_t if self.spread is None else self.process.linear_estimate(x_t, t, self.spread)
