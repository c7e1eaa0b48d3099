"""Noised token embeddings, the input of classifiers of Diffusion-LM."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.randomness import stratified
from jtextdiff.diffusion.schedules import Time
from jtextdiff.nets.denoisers import with_norm
from jtextdiff.nets.functional import Params


class NoisyEmbeddings(NamedTuple):
    """The states x_t of a Diffusion-LM."""

    process: Gaussian
    dim: int  # of a token embedding
    norm: float | None  # of every token embedding; None: free
    pad: int
    length: int  # positions that every text fills if PAD is modelled like any token; 0: PAD is not modelled

    @property
    def spread(self) -> float | None:
        """The standard deviation of an embedding's coordinates; None if norms are free."""
        return None if self.norm is None else self.norm / self.dim**0.5

    def tokens_and_valid(self, batch: Batch) -> tuple[Int[Array, "b l"], Bool[Array, "b l"]]:
        """Returns a batch's tokens and their valid positions; if PAD is modelled, texts fill `length` positions."""
        if not self.length:
            return jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        padding = ((0, 0), (0, self.length - batch.tokens.shape[1]))
        tokens = jnp.pad(jnp.asarray(batch.tokens), padding, constant_values=self.pad)
        return tokens, jnp.ones(tokens.shape, bool)

    def classifier_params(self, params: Params) -> Params:
        """Returns those of the base's parameters that a classifier of its states needs."""
        return {"embedding": params["embedding"]}

    def embedding_matrix(self, params: Params) -> Float[Array, "v d"]:
        """Returns the embedding of each token."""
        return with_norm(params["embedding"], self.norm)

    def embed(self, params: Params, batch: Batch) -> tuple[Float[Array, "b l d"], Bool[Array, "b l"]]:
        """Returns the embeddings x_0 of a batch's tokens, and their valid positions."""
        tokens, valid = self.tokens_and_valid(batch)
        return self.embedding_matrix(params)[tokens], valid

    def noised(
        self, params: Params, key: Key[Array, ""], batch: Batch
    ) -> tuple[Float[Array, "b l d"], Float[Array, "b 1"], Bool[Array, "b l"]]:
        """Returns x_t of a batch, one stratified time t in (0, 1] per text, and the valid positions."""
        time_key, noise_key = jax.random.split(key)
        x_0, valid = self.embed(params, batch)
        t = stratified(time_key, len(x_0))[:, None]
        return self.process.marginal(x_0, t).sample(noise_key), t, valid

    def network_input(self, x_t: Float[Array, "b l d"], t: Time) -> Float[Array, "b l d"]:
        """Returns the linear estimate of x_0 from x_t, of one size at any t; x_t itself if norms are free."""
        return x_t if self.spread is None else self.process.linear_estimate(x_t, t, self.spread)
