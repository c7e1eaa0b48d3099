"""Texts from latents: reconstruction, likelihood and decoding of a text VAE."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.diffusion.losses import cross_entropy, sum_over
from jtextdiff.diffusion.randomness import Keys
from jtextdiff.methods.components.autoregressive_sampler import (
    decode,
    guided_by_words,
    previous_tokens,
    stepwise_losses,
    word_dropout,
)
from jtextdiff.methods.components.label_conditioning import guided_logits, one_hot_label
from jtextdiff.methods.components.latents import LatentSampler
from jtextdiff.methods.components.types import Given, Sample, TextSpec
from jtextdiff.sampling.phrases import WordGuide, bag_log_prob, bag_presence

TextNLL = Callable[[Float[Array, "b z"]], Float[Array, "b"]]
"""z ↦ −log p(text | z), nats."""


class LatentTextDecoder(NamedTuple):
    """A `nets.autoencoders.LatentDecoder` bound to its parameters."""

    net: Any
    text_spec: TextSpec
    num_values: int  # of the label that it reads; 0: it reads none
    absolute: Callable[[Float[Array, "b z"]], Float[Array, "b z"]]  # the latent of the method ↦ that which it reads

    def latent_input(self, z: Float[Array, "b z"], label: Int[Array, "b"] | None) -> Float[Array, "b y"]:
        """Returns the network's input: z, and the one-hot label if it reads one."""
        z = self.absolute(z)
        return jnp.concatenate([z, one_hot_label(label, len(z), self.num_values)], axis=-1) if self.num_values else z

    def training_nll(
        self,
        tokens: Int[Array, "b l"],
        valid: Bool[Array, "b l"],
        z: Float[Array, "b z"],
        label: Int[Array, "b"],
        *,
        mask_rate: float,
        mask_key: Key[Array, ""],
        dropout_key: Key[Array, ""],
    ) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
        """Returns −log p(text | z) and −log p(bag of words | z), nats; a share of the previous tokens is masked."""
        y = self.latent_input(z, label)
        previous = previous_tokens(self.text_spec, word_dropout(tokens, self.text_spec.mask, mask_rate, mask_key))
        token_nll = self.net.per_token(cross_entropy, (tokens,), previous, y, key=dropout_key)
        bag_log_p = jax.nn.log_softmax(self.net.bag_logits(y))
        bag_nll = -jnp.take_along_axis(bag_log_p, tokens, axis=-1)
        return sum_over(token_nll, valid), sum_over(bag_nll, valid)

    def text_nll(
        self, tokens: Int[Array, "b l"], valid: Bool[Array, "b l"], label: Int[Array, "b"], *, cached: bool
    ) -> TextNLL:
        """Returns z ↦ −log p(text | z), nats: all positions at once, or position by position with the cache."""

        def losses(y: Float[Array, "b y"]) -> Float[Array, "b l"]:
            if not cached:
                return self.net.per_token(cross_entropy, (tokens,), previous_tokens(self.text_spec, tokens), y)

            def next_logits(previous: Int[Array, "b"], position: Array, cache: Any) -> tuple[Array, Any]:
                return self.net.step(previous, y, position, cache)

            return stepwise_losses(self.text_spec, tokens, next_logits, self.net.init_cache(y, tokens.shape[1]))

        return lambda z: sum_over(losses(self.latent_input(z, label)), valid)

    def bag_log_prob(self, z: Float[Array, "b z"], allowed: Bool[Array, "*b k v"]) -> Float[Array, "b"]:
        """Returns log p(k tokens occur anywhere in the text | z), the i-th one of `allowed[i]`, without a label."""
        logits = self.net.bag_logits(self.latent_input(z, None))
        return bag_log_prob(logits, allowed, self.text_spec.mean_length)

    def word_presence(self, z: Float[Array, "b z"]) -> Float[Array, "b v"]:
        """Returns p(the token occurs anywhere in the text | z) of every token, without a label."""
        return bag_presence(self.net.bag_logits(self.latent_input(z, None)), self.text_spec.mean_length)

    def decode(
        self,
        sampler: LatentSampler,
        given: Given,
        keys: Keys,
        z: Float[Array, "b z"],
        *,
        guide: WordGuide | None = None,
        keep_path: bool = False,
    ) -> Sample:
        """Decodes latents by the sampler's settings, guided by words if there is a guide; a fixed prefix stays."""
        terms = sampler.guidance_terms(given.label if self.num_values else None)
        inputs = [jnp.repeat(self.latent_input(z, label), sampler.beams, axis=0) for label, _ in terms]
        next_logits = guided_logits(self.net, inputs, [weight for _, weight in terms])
        cache: Any = [self.net.init_cache(y, given.tokens.shape[1]) for y in inputs]
        if guide is not None:
            next_logits = guided_by_words(next_logits, guide)
            cache = jnp.zeros((len(inputs[0]), self.text_spec.vocab_size)), cache
        settings = sampler.decoding_settings()
        return decode(settings, self.text_spec, given, keys, next_logits, cache, keep_path=keep_path)
