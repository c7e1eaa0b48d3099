"""Text VAE: a text as one latent, and texts written from it (Bowman et al. 2016; Liu et al. 2022, LatentOps).

It learns q(z | text) and p(text | z); and, beside them and without moving them, where the latents of texts lie: the
initial law, an affine map of N(0, I), fitted to the z that are drawn in training. Controls work where it is N(0, I).

With a condition both are told the value of a label: a CVAE (Sohn et al. 2015) whose latent does not depend on it.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion import losses as objectives
from jtextdiff.diffusion.distributions import Normal
from jtextdiff.diffusion.randomness import Keys, fold
from jtextdiff.diffusion.schedules import Time
from jtextdiff.methods.components import latents
from jtextdiff.methods.components.autoregressive_sampler import hidden, token_before, write
from jtextdiff.methods.components.label_conditioning import label_of, one_of, read_as_told
from jtextdiff.methods.components.latents import FITS, LatentSampler, Rewrite
from jtextdiff.methods.components.types import (
    Given,
    Language,
    Metrics,
    Sample,
    check_numbers,
    check_settings,
    nothing_given,
)
from jtextdiff.nets.autoencoders import LatentDecoder, TextEncoder
from jtextdiff.nets.functional import Net, Params
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.energies import Energy, Learned, mentioned, parts

FRAMES = 25
"""States of a path through latent space that are shown."""


@dataclass(frozen=True, kw_only=True)
class TextVAE:
    """An encoder, a latent, and a causal decoder that sees it at every word and in every layer."""

    language: Language = Language()
    encoder: Transformer = Transformer(num_layers=2)
    decoder: Transformer = Transformer(num_layers=2, causal=True)
    latent_dim: int = 64
    queries: int = 4  # weighted means of the encoder's states that the latent is read off
    slots: int = 4  # positions before the text that hold the latent
    beta: float = 0.3  # what a nat of divergence counts at last, beside one of the text …
    beta_first: float = 0.1  # … and from the first quarter of the training, over which it rises, to the last
    free_bits: float = 0.0  # nats of divergence that each number of the latent has for nothing
    bag: float = 0.2  # what it counts that the latent alone tells a text's words, in no order
    hidden_read: float = 0.1  # share of words that the encoder does not see
    hidden_written: float = 0.3  # share of the words before it that the decoder does not see
    importance: int = 8  # latents a text that its likelihood is estimated with
    fit: str = "likelihood"  # of the initial law to latents; "adversarial", as published
    condition: str = ""  # a label that both are told of each text; "": none
    values: tuple[str, ...] = ()  # of the label; filled in from the text, "none" tells nothing
    untold: float = 0.1  # share of texts in training whose label is not told
    sampler: LatentSampler = LatentSampler()

    def __post_init__(self) -> None:
        check_settings(self, positive=("latent_dim", "queries", "slots", "importance"), choices={"fit": FITS})
        check_numbers(
            self, ("beta", "beta_first", "free_bits", "bag"), shares=("hidden_read", "hidden_written", "untold")
        )
        if self.encoder.causal or not self.decoder.causal:
            raise ValueError("TextVAE reads with encoder.causal=False and writes with decoder.causal=True.")

    @functools.cached_property
    def reader(self) -> Net:
        shape = {"num_inputs": self._num_inputs, "num_beside": len(self.values), "queries": self.queries}
        return Net(lambda rngs: TextEncoder(self.encoder, latent_dim=self.latent_dim, rngs=rngs, **shape))

    @functools.cached_property
    def writer(self) -> Net:
        shape = {"num_inputs": self._num_inputs, "vocab_size": self.language.vocab_size, "slots": self.slots}
        num_latent = self.latent_dim + len(self.values)
        return Net(lambda rngs: LatentDecoder(self.decoder, num_latent=num_latent, rngs=rngs, **shape))

    @property
    def bound(self) -> str:
        return f"importance-weighted bound, {self.importance} latents a text"

    @property
    def prefix_only(self) -> bool:
        return True

    def init(self, key: Key[Array, ""]) -> Params:
        read, written = jax.random.split(key)
        return {
            "reader": self.reader.init(read),
            "writer": self.writer.init(written),
            "law": latents.fresh_law(self.latent_dim, self.fit),
        }

    def loss(self, params: Params, key: Key[Array, ""], batch: Batch) -> tuple[Float[Array, "b"], Metrics]:
        """(−log p(text | z) + β Σ max(KL, free bits) + bag · −log p(words | z)) by the mean length, nats a token.

        β rises from 0 to `beta_first` in the first quarter of the training and to `beta` in the first half of the last:
        a text is told first, and latents are ordered once there is something in them.

        One z ~ q(z | text) a text (Kingma & Welling 2014, eq. 10); free bits of each number of the latent (Kingma et
        al. 2016, eq. 15, of a single text). What fits the initial law adds a gradient and no number.
        """
        hide_read, hide_written, drop_read, drop_written, noise, tell = jax.random.split(key, 6)
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        label = label_of(batch, self.condition, self.values) * ~jax.random.bernoulli(tell, self.untold, (len(tokens),))
        law = self.posterior(
            params, hidden(tokens, self.language.mask, self.hidden_read, hide_read), valid, label, drop_read
        )
        z = law.sample(noise)
        earlier = token_before(self.language, hidden(tokens, self.language.mask, self.hidden_written, hide_written))
        writer = self.writer.bind(params["writer"])
        full = self._with_label(z, label)
        told = writer.per_word(objectives.cross_entropy, (tokens,), earlier, full, key=drop_written)
        words = jax.nn.log_softmax(writer.words(full))
        kl = law.kl(latents.standard(z))
        terms = {
            "reconstruction": objectives.sum_over(told, valid),
            "kl": jnp.sum(kl, axis=-1),
            "bag": objectives.sum_over(-jnp.take_along_axis(words, tokens, axis=-1), valid),
        }
        paid = jnp.sum(jnp.maximum(kl, self.free_bits), axis=-1)
        beta = latents.risen(jnp.asarray(1.0 if batch.progress is None else batch.progress), self.beta_first, self.beta)
        total = terms["reconstruction"] + beta * paid + self.bag * terms["bag"]
        return (
            total + latents.fit_loss(params["law"], z, jax.random.fold_in(noise, 0))
        ) / self.language.mean_length, terms

    def posterior(
        self,
        params: Params,
        tokens: Int[Array, "b l"],
        valid: Bool[Array, "b l"],
        label: Int[Array, "b"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Normal:
        """q(z | text, label); a label as `Given` has it."""
        beside = one_of(label, len(tokens), len(self.values)) if self.values else None
        mean, log_var = self.reader.bind(params["reader"])(tokens, beside, valid=valid, key=key)
        return Normal(mean=mean, std=jnp.exp(0.5 * log_var))

    def nll(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """−log (1/K) Σ p(text | z) p(z) / q(z | text) over K = `importance` z of q, nats a sequence, in the mean an
        upper bound that falls with K (Burda et al. 2016, eq. 8); p(z) is the initial law, from which samples come. Of a
        text with a label it is −log p(text | label)."""
        return self._bounded(params, key, batch, latents.losses_at_once)

    @property
    def bound_again(self) -> str:
        return "the same, written word by word from what is kept of those before"

    def nll_again(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """The same bound, each text read as the sampler would write it."""
        return self._bounded(params, key, batch, latents.losses_one_by_one)

    def _bounded(self, params: Params, key: Key[Array, ""], batch: Batch, losses: latents.Losses) -> Float[Array, "b"]:
        law, told = self._heard(params, batch, losses)
        log_joint = lambda z: -told(z) - latents.law_nll(params["law"], z)
        return latents.importance_bound(law, log_joint, key, self.importance)

    def watched(self, params: Params, key: Key[Array, ""], batch: Batch) -> dict[str, Float[Array, "b"]]:
        """Nats a text: the divergence of q(z | text), and −log p(text | z) of its own z and of the next text's."""
        law, told = self._heard(params, batch, latents.losses_at_once)
        z = law.sample(key)
        kl = jnp.sum(law.kl(latents.standard(z)), axis=-1)
        return {"kl": kl, "reconstruction": told(z), "shuffled": told(jnp.roll(z, 1, axis=0))}

    def _heard(self, params: Params, batch: Batch, losses: latents.Losses) -> tuple[Normal, Callable[..., Any]]:
        """q(z | text), and z ↦ −log p(text | z), nats, both told the label if there is a condition."""
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        label, writer = label_of(batch, self.condition, self.values), self.writer.bind(params["writer"])
        of_words = lambda z: losses(self.language, writer, tokens, self._with_label(z, label))
        return self.posterior(params, tokens, valid, label), lambda z: objectives.sum_over(of_words(z), valid)

    def sample(
        self, params: Params, keys: Keys, given: Given, *, start: Any = None, energy: Any = None, keep_path: Any = False
    ) -> Sample:
        """Texts from latents of the initial law, or from `start`, moved by an energy if there is one; the path is then
        the latent's."""
        epsilon = self.sampler.first(params["law"], fold(keys, 0), self.latent_dim) if start is None else start
        if energy is None:
            return self.decode(params, keys, given, epsilon, keep_path=keep_path)
        moved = self.sampler.moved(energy, epsilon, tau=self.sampler.tau, frames=FRAMES if keep_path else 0)
        drawn = self.decode(params, keys, given, moved.z)
        if moved.path is None:
            return drawn
        texts = jax.lax.map(lambda z: self.decode(params, keys, given, z).tokens, moved.path)
        nats = jax.lax.map(lambda z: parts(energy, z, 0.0), moved.path)
        return drawn._replace(path=texts, calls=jnp.full_like(drawn.calls, FRAMES - 1), energies=nats)

    def rewrite(
        self, params: Params, keys: Keys, given: Given, *, energy: Energy, length: Any = 0, **flow: Any
    ) -> Rewrite:
        """The texts `given`, written anew from where the energy has taken their latents, at any length or at this;
        `flow` are the tau, until and keep of `LatentSampler.moved`."""
        valid = jnp.arange(given.tokens.shape[1]) < given.length[:, None]
        start = self.encode(params, given.tokens, valid)
        found = self.sampler.moved(energy, start, **flow)
        free = nothing_given(*given.tokens.shape)._replace(label=given.label)
        drawn = self.decode(params, keys, free._replace(length=free.length + length), found.z)
        before, after = (parts(energy, epsilon, 0.0) for epsilon in (start, found.z))
        moved = jnp.linalg.norm(found.z - start, axis=-1)
        return Rewrite(drawn.tokens, before, after, moved, found.steps, found.solved)

    def reread(self, params: Params, tokens: Int[Array, "b l"], *, energy: Energy) -> Float[Array, "b parts"]:
        """What an energy's parts say of finished texts, in nats."""
        is_end = tokens == self.language.eos
        end = jnp.where(jnp.any(is_end, axis=-1), jnp.argmax(is_end, axis=-1), tokens.shape[1] - 1)
        return parts(energy, self.encode(params, tokens, jnp.arange(tokens.shape[1]) <= end[:, None]), 0.0)

    def encode(self, params: Params, tokens: Int[Array, "b l"], valid: Bool[Array, "b l"]) -> Float[Array, "b z"]:
        """The middle of q(z | text), in the coordinates where the initial law is N(0, I)."""
        return latents.whitened(params["law"], self.posterior(params, tokens, valid).mean)

    def decode(
        self, params: Params, keys: Keys, given: Given, epsilon: Float[Array, "b z"], *, keep_path: bool = False
    ) -> Sample:
        """Texts from latents in these coordinates, as the sampler has them written; a fixed prefix stays.

        The label's logits are l(no label) + sharpen · (l(label) − l(no label)) (Ho & Salimans 2022).
        """
        z, writer = latents.coloured(params["law"], epsilon), self.writer.bind(params["writer"])
        told = self.sampler.tellings(given.label if self.values else None)
        full = [jnp.repeat(self._with_label(z, label), self.sampler.beams, axis=0) for label, _ in told]
        read = read_as_told(writer, full, [much for _, much in told])
        kept = [writer.empty(each, given.tokens.shape[1]) for each in full]
        return write(self.sampler.writer, self.language, given, fold(keys, 1), read, kept, keep_path=keep_path)

    def mentioning(self, params: Params, allowed: Bool[Array, "k v"]) -> Learned:
        """The energy −log p(words stand somewhere, in any order | ε), each one of those that its place allows."""
        own = {name: params[name] for name in ("writer", "law")}
        return Learned(params=own, target=allowed, log_prob=self._mentioned)

    def _mentioned(self, params: Params, allowed: Any, epsilon: Any, t: Time, valid: Any) -> Float[Array, "b"]:
        z = self._with_label(latents.coloured(params["law"], epsilon), None)
        return mentioned(self.writer.bind(params["writer"]).words(z), allowed, self.language.mean_length)

    def _with_label(self, z: Float[Array, "b z"], label: Int[Array, "b"] | None) -> Float[Array, "b y"]:
        """What the decoder sees: the latent, and the label if there is a condition."""
        return jnp.concatenate([z, one_of(label, len(z), len(self.values))], axis=-1) if self.values else z

    @property
    def _num_inputs(self) -> int:
        return max(self.language.vocab_size, self.language.mask) + 1
