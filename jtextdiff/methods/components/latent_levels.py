"""Latents of several levels, seen as one vector whose prior is N(0, I) (DELLA, Hu et al. 2022).

In a chain, the prior of a level depends on the levels below it, and its latent is z_l = μ_l + σ_l ε_l. The methods use
the relative latent ε alone: ε ~ N(0, I) over all levels, and the posterior of ε_l given the levels below is a normal
as well (Vahdat & Kautz 2020, NVAE, §3.2). KL(q(z_l | z_<l, x) ‖ p(z_l | z_<l)) is that of ε_l from N(0, I), and p/q of
a draw is the same in both. Only the decoder reads z. Without a chain, z = ε.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jtextdiff.diffusion.distributions import Normal
from jtextdiff.methods.components.types import check_numbers, check_settings
from jtextdiff.nets.transformer import Transformer


@dataclass(frozen=True, kw_only=True)
class Levels:
    """Settings of the levels of a latent."""

    num: int = 1
    chained: bool = False  # the prior and the posterior of a level depend on the levels below it
    spread: bool = False  # levels are read from evenly spaced blocks of the encoder; False: all from the last one
    fusion_rank: int = 0  # rank of the product by which each decoder block's values read one level; 0: they do not
    decoder_input: bool = True  # the decoder's input contains the latent; False: only its values do, as published
    free_nats: float = 0.0  # nats of KL per token of the text that cost nothing, an equal part for each level

    def __post_init__(self) -> None:
        check_settings(self, positive=("num",), choices={})
        check_numbers(self, ("free_nats",), shares=())
        if self.fusion_rank < 0:
            raise ValueError(f"levels.fusion_rank must be at least 0, got {self.fusion_rank}.")
        if not self.decoder_input and not self.fusion_rank:
            raise ValueError(
                "levels.decoder_input=False needs a fusion_rank of at least 1: nothing would read the latent."
            )
        if self.chained and self.num == 1:
            raise ValueError("levels.chained=True needs levels.num of at least 2, got 1.")

    def check(self, latent_dim: int, encoder: Transformer, decoder: Transformer) -> None:
        """Raises ValueError for numbers of levels that the latent or the networks do not have."""
        if latent_dim % self.num:
            raise ValueError(f"latent_dim must divide into levels.num equal levels, got {latent_dim} and {self.num}.")
        for name, blocks, uses in (
            ("encoder", encoder.num_layers, self.spread),
            ("decoder", decoder.num_layers, self.fusion_rank > 0),
        ):
            if uses and self.num > blocks:
                raise ValueError(f"levels.num must be at most {name}.num_layers = {blocks}, got {self.num}.")

    def decoder_trunk(self, decoder: Transformer, latent_dim: int, num_values: int) -> Transformer:
        """Returns the decoder's settings, with the fusion of one level and of any label in its values."""
        if not self.fusion_rank:
            return decoder
        context_dim = latent_dim // self.num + num_values
        return dataclasses.replace(decoder, context_dim=context_dim, fusion_rank=self.fusion_rank)

    def split(self, latent: Float[Array, "b z"]) -> Float[Array, "b n p"]:
        return latent.reshape(len(latent), self.num, -1)

    def absolute(self, chain: Any, epsilon: Float[Array, "b z"]) -> Float[Array, "b z"]:
        """Returns z from ε; `chain` is None without a chain."""
        return epsilon if chain is None else chain(self.split(epsilon)).reshape(epsilon.shape)

    def paid_kl(self, kl: Float[Array, "b z"], free_bits: float, num_tokens: Int[Array, "b"]) -> Float[Array, "b"]:
        """Returns the KL that counts in the loss: each number's beyond `free_bits`, each level's beyond its free nats.

        Kingma et al. (2016), eq. 15.
        """
        of_level = jnp.sum(self.split(jnp.maximum(kl, free_bits)), axis=-1)
        free = self.free_nats * num_tokens / self.num
        return jnp.sum(jnp.maximum(of_level, free[:, None]), axis=-1)

    def kl_by_level(self, kl: Float[Array, "b z"]) -> dict[str, Float[Array, "b"]]:
        """Returns the KL of each level if there are several."""
        sums = jnp.sum(self.split(kl), axis=-1)
        return {f"kl_{level + 1}": sums[:, level] for level in range(self.num)} if self.num > 1 else {}

    def one_level_of(self, other: Float[Array, "b z"], latent: Float[Array, "b z"]) -> list[Float[Array, "b z"]]:
        """Returns the latent with each of its levels in turn taken from `other`."""
        own, others = self.split(latent), self.split(other)
        return [own.at[:, level].set(others[:, level]).reshape(latent.shape) for level in range(self.num)]


class Posterior(NamedTuple):
    """q(ε | text): an encoder's pooled states, and the chain of the prior or None."""

    levels: Levels
    encoder: Any  # a `nets.autoencoders.TextEncoder`
    chain: Any  # a `nets.latent_chain.LatentChain`
    pooled: list[Float[Array, "b q"]]  # of each level

    def draw(self, noise: Float[Array, "b z"]) -> tuple[Float[Array, "b z"], Normal]:
        """Returns a sample ε ~ q, reparameterized by standard normal `noise`, and the posteriors of its levels.

        Each level is conditioned on the draw of the levels below it: log q(ε) and the KL are sums over the returned
        normals. Without a chain they do not depend on the noise. Zeros give each level's mean given the means below it.
        """
        parts, moments = self.levels.split(noise), []
        summary = None if self.chain is None else jnp.zeros_like(parts[:, 0])
        for level, pooled in enumerate(self.pooled):
            mean, log_var = self.encoder.posterior(level, pooled, summary)
            moments.append((mean, log_var))
            if self.chain is not None and summary is not None:
                epsilon = mean + jnp.exp(0.5 * log_var) * parts[:, level]
                summary = self.chain.extend(level, summary, self.chain.place(level, summary, epsilon))
        mean, log_var = (jnp.concatenate(part, axis=-1) for part in zip(*moments, strict=True))
        normal = Normal(mean=mean, std=jnp.exp(0.5 * log_var))
        return normal.mean + normal.std * noise, normal
