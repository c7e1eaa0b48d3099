"""Text VAE with a latent space for control: LatentOps and CVAE.

Learns an encoder q(z | text) and a decoder p(text | z) with one latent per text (Bowman et al. 2016; Liu et al. 2022,
LatentOps). A separate affine prior is fitted to the sampled z with stop-gradient; controls act in its whitened
coordinates, in which it is N(0, I). With a `condition` both networks read a label: a CVAE (Sohn et al. 2015) whose
prior does not depend on it. With several `levels` of latents: DELLA (Hu et al. 2022).
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion.randomness import Keys, fold_in
from jtextdiff.diffusion.schedules import Time
from jtextdiff.methods.components import affine_prior, latents
from jtextdiff.methods.components.affine_prior import standard_normal, unwhitened
from jtextdiff.methods.components.autoregressive_sampler import word_dropout
from jtextdiff.methods.components.label_conditioning import label_index, one_hot_label
from jtextdiff.methods.components.latent_decoder import LatentTextDecoder, TextNLL
from jtextdiff.methods.components.latent_levels import Levels, Posterior
from jtextdiff.methods.components.latents import DECODER, ENCODER, PRIOR, FlowLimits, LatentSampler, Rewrite
from jtextdiff.methods.components.types import (
    Given,
    Metrics,
    Sample,
    TextSpec,
    check_numbers,
    check_settings,
    nothing_given,
)
from jtextdiff.nets.autoencoders import LatentDecoder, TextEncoder
from jtextdiff.nets.functional import Net, Params
from jtextdiff.nets.latent_chain import LatentChain
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.energies import Energy, Learned, energy_terms

NUM_FRAMES = 25
"""States of a recorded path through latent space."""


@dataclass(frozen=True, kw_only=True)
class TextVAE:
    """A text encoder, and a causal decoder that reads the latent at every token and in every layer."""

    text_spec: TextSpec = TextSpec()
    encoder: Transformer = Transformer(num_layers=2)
    decoder: Transformer = Transformer(num_layers=2, causal=True)
    latent_dim: int = 64  # of all levels
    levels: Levels = Levels()
    pooling_heads: int = 4  # attention-weighted means of the encoder's states, from which the latent is computed
    memory_slots: int = 4  # positions before the text that represent the latent
    beta: float = 0.3  # final weight of the KL, relative to the reconstruction …
    beta_first: float = 0.1  # … and its weight from the first quarter of the training, over which it rises, to the last
    free_bits: float = 0.0  # nats of KL of each latent dimension that cost nothing
    bag_of_words_weight: float = 0.2  # of −log p(tokens | z) without their order
    encoder_word_dropout: float = 0.1  # share of tokens masked in the encoder's input
    decoder_word_dropout: float = 0.3  # share of previous tokens masked in the decoder's input
    importance_samples: int = 8  # latents per text in the estimate of its likelihood
    prior_fit: str = "likelihood"  # how the prior is fitted to latents; "adversarial", as published
    condition: str = ""  # the label that both networks read; "": none
    values: tuple[str, ...] = ()  # of the label; filled in from the text, "none" is no label
    label_dropout: float = 0.1  # share of texts in training whose label is hidden
    sampler: LatentSampler = LatentSampler()

    prefix_only = True
    bound_check = "the same bound, token by token with the cache"

    def __post_init__(self) -> None:
        positive = ("latent_dim", "pooling_heads", "memory_slots", "importance_samples")
        weights = ("beta", "beta_first", "free_bits", "bag_of_words_weight")
        check_settings(self, positive=positive, choices={"prior_fit": affine_prior.FITS})
        check_numbers(self, weights, shares=("encoder_word_dropout", "decoder_word_dropout", "label_dropout"))
        self.levels.check(self.latent_dim, self.encoder, self.decoder)
        if self.encoder.causal or not self.decoder.causal:
            raise ValueError("TextVAE needs encoder.causal=False and decoder.causal=True.")

    @functools.cached_property
    def encoder_net(self) -> Net:
        return Net(
            lambda rngs: TextEncoder(
                self.encoder,
                num_inputs=self._num_inputs,
                num_conditions=len(self.values),
                pooling_heads=self.pooling_heads,
                latent_dim=self.latent_dim,
                levels=self.levels.num,
                spread=self.levels.spread,
                chained=self.levels.chained,
                rngs=rngs,
            )
        )

    @functools.cached_property
    def decoder_net(self) -> Net:
        return Net(
            lambda rngs: LatentDecoder(
                self.levels.decoder_trunk(self.decoder, self.latent_dim, len(self.values)),
                num_inputs=self._num_inputs,
                vocab_size=self.text_spec.vocab_size,
                latent_dim=self.latent_dim,
                levels=self.levels.num,
                num_conditions=len(self.values),
                memory_slots=self.memory_slots,
                latent_input=self.levels.decoder_input,
                rngs=rngs,
            )
        )

    @functools.cached_property
    def chain_net(self) -> Net:
        return Net(lambda rngs: LatentChain(self.levels.num, self.latent_dim // self.levels.num, rngs=rngs))

    @property
    def _num_inputs(self) -> int:
        return max(self.text_spec.vocab_size, self.text_spec.mask) + 1

    @property
    def bound(self) -> str:
        return f"importance-weighted bound, {self.importance_samples} latents a text"

    def init(self, key: Key[Array, ""]) -> Params:
        encoder_key, decoder_key = jax.random.split(key)
        chain = {"chain": self.chain_net.init(jax.random.fold_in(key, 2))} if self.levels.chained else {}
        return chain | {
            ENCODER: self.encoder_net.init(encoder_key),
            DECODER: self.decoder_net.init(decoder_key),
            PRIOR: affine_prior.initial_prior(self.latent_dim, self.prior_fit),
        }

    def loss(self, params: Params, key: Key[Array, ""], batch: Batch) -> tuple[Float[Array, "b"], Metrics]:
        """Returns −log p(text | z) + β Σ max(KL, free bits) + weight · −log p(bag of words | z), by the mean length.

        In nats per token, with one z ~ q(z | text) per text (Kingma & Welling 2014, eq. 10) and free bits per latent
        dimension and text (Kingma et al. 2016, eq. 15). β follows `latents.beta_schedule`: texts are reconstructed
        first, and latents are ordered once they contain something. The fit of the prior adds a gradient and no value.
        The KL is summed over levels (Hu et al. 2022, eq. 6; their code takes the mean).
        """
        encoder_mask, decoder_mask, encoder_key, decoder_key, z_key, label_key = jax.random.split(key, 6)
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        label_hidden = jax.random.bernoulli(label_key, self.label_dropout, (len(tokens),))
        label = jnp.where(label_hidden, 0, label_index(batch, self.condition, self.values))
        masked = word_dropout(tokens, self.text_spec.mask, self.encoder_word_dropout, encoder_mask)
        noise = jax.random.normal(z_key, (len(tokens), self.latent_dim))
        z, normal = self.posterior(params, masked, valid, label, encoder_key).draw(noise)
        dropout = {"mask_rate": self.decoder_word_dropout, "mask_key": decoder_mask, "dropout_key": decoder_key}
        reconstruction, bag = self._decoder(params).training_nll(tokens, valid, z, label, **dropout)
        kl = normal.kl(standard_normal(z))
        terms = {"reconstruction": reconstruction, "kl": jnp.sum(kl, axis=-1), "bag": bag} | self.levels.kl_by_level(kl)
        progress = jnp.asarray(1.0 if batch.progress is None else batch.progress)
        beta = latents.beta_schedule(progress, self.beta_first, self.beta)
        paid_kl = self.levels.paid_kl(kl, self.free_bits, jnp.sum(valid, axis=-1))
        total = reconstruction + beta * paid_kl + self.bag_of_words_weight * bag
        prior_loss = affine_prior.prior_fit_loss(params[PRIOR], z, jax.random.fold_in(z_key, 0))
        return (total + prior_loss) / self.text_spec.mean_length, terms

    def posterior(
        self,
        params: Params,
        tokens: Int[Array, "b l"],
        valid: Bool[Array, "b l"],
        label: Int[Array, "b"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Posterior:
        """Returns q(z | text, label); the label is as in `Given`."""
        condition = one_hot_label(label, len(tokens), len(self.values)) if self.values else None
        encoder = self.encoder_net.bind(params[ENCODER])
        return Posterior(
            self.levels, encoder, self._chain(params), encoder.pooled(tokens, condition, valid=valid, key=key)
        )

    def nll(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """Returns −log (1/K) Σ p(text | z) p(z) / q(z | text) over K = `importance_samples` z ~ q, nats per sequence.

        In expectation it is an upper bound that falls with K (Burda et al. 2016, eq. 8). p(z) is the fitted prior, from
        which samples start. For a text with a label it bounds −log p(text | label).
        """
        return self._importance_bound(params, key, batch, cached=False)

    def nll_check(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """Returns the same bound, computed position by position with the decoder's cache."""
        return self._importance_bound(params, key, batch, cached=True)

    def _importance_bound(
        self, params: Params, key: Key[Array, ""], batch: Batch, *, cached: bool
    ) -> Float[Array, "b"]:
        posterior, text_nll = self._posterior_and_text_nll(params, batch, cached=cached)
        log_joint = lambda z: -text_nll(z) - affine_prior.prior_nll(params[PRIOR], z)
        shape = len(batch.tokens), self.latent_dim
        return latents.importance_bound(posterior.draw, log_joint, key, self.importance_samples, shape)

    def elbo_terms(self, params: Params, key: Key[Array, ""], batch: Batch) -> dict[str, Float[Array, "b"]]:
        """Returns nats per text: the KL, and −log p(text | z) with z of the text itself and of the next text.

        If there are several levels, also the KL of each, and −log p(text | z) with that level taken from the next text.
        """
        posterior, text_nll = self._posterior_and_text_nll(params, batch, cached=False)
        z, normal = posterior.draw(jax.random.normal(key, (len(batch.tokens), self.latent_dim)))
        kl, other = normal.kl(standard_normal(z)), jnp.roll(z, 1, axis=0)
        terms = {"kl": jnp.sum(kl, axis=-1), "reconstruction": text_nll(z), "shuffled": text_nll(other)}
        mixed = self.levels.one_level_of(other, z) if self.levels.num > 1 else ()
        return terms | self.levels.kl_by_level(kl) | {f"shuffled_{i}": text_nll(z) for i, z in enumerate(mixed, 1)}

    def _posterior_and_text_nll(self, params: Params, batch: Batch, *, cached: bool) -> tuple[Posterior, TextNLL]:
        """Returns q(z | text) and z ↦ −log p(text | z), nats, both given the label if there is a condition."""
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        label = label_index(batch, self.condition, self.values)
        text_nll = self._decoder(params).text_nll(tokens, valid, label, cached=cached)
        return self.posterior(params, tokens, valid, label), text_nll

    def sample(
        self, params: Params, keys: Keys, given: Given, *, start: Any = None, energy: Any = None, keep_path: Any = False
    ) -> Sample:
        """Samples texts from latents of the prior, or from `start`, moved down an energy if there is one.

        The recorded path is then that of the latents, decoded.
        """
        drawn = self.sampler.prior_sample(params[PRIOR], fold_in(keys, 0), self.latent_dim)
        epsilon = drawn if start is None else start
        if energy is None:
            return self.decode(params, keys, given, epsilon, keep_path=keep_path)
        limits, num_frames = FlowLimits(self.sampler.max_time), NUM_FRAMES if keep_path else 0
        end = self.sampler.flow(energy, epsilon, limits, num_frames=num_frames)
        sample = self.decode(params, keys, given, end.z)
        if end.path is None:
            return sample
        texts = jax.lax.map(lambda epsilon: self.decode(params, keys, given, epsilon).tokens, end.path)
        nats = jax.lax.map(lambda epsilon: energy_terms(energy, epsilon, 0.0), end.path)
        return sample._replace(path=texts, calls=jnp.full_like(sample.calls, NUM_FRAMES - 1), energies=nats)

    def rewrite(
        self, params: Params, keys: Keys, given: Given, *, energy: Energy, limits: FlowLimits, length: Any = 0
    ) -> Rewrite:
        """Moves the latents of texts along the energy's flow and decodes them, at a `length` if it is above 0."""
        source = self.encode(params, given.tokens, jnp.arange(given.tokens.shape[1]) < given.length[:, None])
        free = nothing_given(*given.tokens.shape)._replace(label=given.label, length=0 * given.length + length)
        texts_of = lambda z, guide: self.decode(params, keys, free, z, guide=guide).tokens
        return self.sampler.rewrite(texts_of, source, energy, limits)

    def clean_state(self, params: Params, batch: Batch) -> tuple[Float[Array, "b z"], None]:
        """Returns the whitened posterior means of a batch's texts; latents have no positions."""
        return self.encode(params, jnp.asarray(batch.tokens), jnp.asarray(batch.valid)), None

    def reread(self, params: Params, tokens: Int[Array, "b l"], *, energy: Energy) -> tuple[Array, Array]:
        """Returns, of finished texts, the terms of an energy at their latents [b, terms], and −ELBO there [b], nats."""
        ends = tokens == self.text_spec.eos
        valid, no_label = jnp.cumsum(ends, axis=-1) <= ends, jnp.zeros(len(tokens), jnp.int32)
        z, normal = self.posterior(params, tokens, valid).draw(jnp.zeros((len(tokens), self.latent_dim)))
        nll = self._decoder(params).text_nll(tokens, valid, no_label, cached=False)(z)
        terms = energy_terms(energy, affine_prior.whitened(params[PRIOR], z), 0.0)
        return terms, nll + jnp.sum(normal.kl(standard_normal(z)), axis=-1)

    def encode(self, params: Params, tokens: Int[Array, "b l"], valid: Bool[Array, "b l"]) -> Float[Array, "b z"]:
        """Returns the mean of q(z | text), in whitened coordinates; of a chained level given the means below it."""
        return self.latent_samples(params, tokens, valid, jnp.zeros((len(tokens), 0, self.latent_dim)))[1]

    def latent_samples(
        self, params: Params, tokens: Int[Array, "b l"], valid: Bool[Array, "b l"], noise: Float[Array, "b s z"]
    ) -> tuple[Float[Array, "b s z"], Float[Array, "b z"], Float[Array, "b"]]:
        """Returns whitened samples of q(z | text), one from each `noise`; `encode`; and the KL from N(0, I), nats."""
        posterior = self.posterior(params, tokens, valid)
        center, normal = posterior.draw(jnp.zeros((len(tokens), self.latent_dim)))
        draws = [center, *(posterior.draw(noise[:, i])[0] for i in range(noise.shape[1]))]
        mean, *samples = (affine_prior.whitened(params[PRIOR], z) for z in draws)
        return jnp.stack([mean, *samples], axis=1)[:, 1:], mean, jnp.sum(normal.kl(standard_normal(mean)), axis=-1)

    def decode(self, params: Params, keys: Keys, given: Given, epsilon: Float[Array, "b z"], **settings: Any) -> Sample:
        """Decodes whitened latents, one or more of all texts in turn, see `LatentTextDecoder.decode`."""
        keys, given = jax.tree.map(lambda leaf: leaf[jnp.arange(len(epsilon)) % len(keys)], (keys, given))
        z = unwhitened(params[PRIOR], epsilon)
        return self._decoder(params).decode(self.sampler, given, fold_in(keys, 1), z, **settings)

    def keyword_energy(self, params: Params, allowed: Bool[Array, "k v"]) -> Learned:
        """Returns the energy −log p(k tokens occur anywhere in the text | ε), the i-th one of `allowed[i]`."""
        return Learned(params=self.word_params(params), target=allowed, log_prob=self._keyword_log_prob)

    def _keyword_log_prob(self, params: Params, allowed: Any, epsilon: Any, t: Time, valid: Any) -> Float[Array, "b"]:
        return self._decoder(params).bag_log_prob(unwhitened(params[PRIOR], epsilon), allowed)

    def word_params(self, params: Params) -> Params:
        """Returns the parameters that `word_presence` needs."""
        return {name: params[name] for name in (DECODER, "chain", PRIOR) if name in params}

    def word_presence(self, params: Params, epsilon: Float[Array, "b z"]) -> Float[Array, "b v"]:
        """Returns p(the token occurs anywhere in the text | ε) of every token, without a label."""
        return self._decoder(params).word_presence(unwhitened(params[PRIOR], epsilon))

    def word_vectors(self, params: Params) -> Float[Array, "v d"]:
        return self.decoder_net.bind(params[DECODER]).word_vectors()

    def _decoder(self, params: Params) -> LatentTextDecoder:
        read = functools.partial(self.levels.absolute, self._chain(params))
        return LatentTextDecoder(self.decoder_net.bind(params[DECODER]), self.text_spec, len(self.values), read)

    def _chain(self, params: Params) -> Any:
        return self.chain_net.bind(params["chain"]) if self.levels.chained else None
