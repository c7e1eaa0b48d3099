"""Diffusion-LM (Li et al. 2022): Gaussian diffusion of word vectors, rounded back to words.

The default answers with a distribution over words, whose expected vector is x̂_0, is trained by cross-entropy,
and sees its previous estimate (Dieleman et al. 2022; Strudel et al. 2022). In training each word has a time of its
own (Chen et al. 2024): agreement is learned where one word is clear and the other not, rare if all are equally so.
"""

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.core import bounds, objectives, transforms
from jtextdiff.core.distributions import Normal
from jtextdiff.core.gaussian import Gaussian
from jtextdiff.core.randomness import Keys, fold, stratified
from jtextdiff.core.readings import TO_X_0
from jtextdiff.core.samplers import Sampler
from jtextdiff.core.sampling import Denoise, State, ticks, unroll
from jtextdiff.core.schedules import SCHEDULES, Time
from jtextdiff.methods.method import Given, Language, Metrics, Sample, check_settings, possible_words, span
from jtextdiff.nets.denoisers import EmbeddingDenoiser
from jtextdiff.nets.functional import Net, Params
from jtextdiff.nets.transformer import Transformer
from jtextdiff.text.batches import Batch
from jtextdiff.text.neighbours import neighbour_vectors

CHOICES = {
    "vectors": ("neighbours", "learned"),
    "schedule": tuple(SCHEDULES),
    "answers": ("logits", "vector"),
    "reading": tuple(TO_X_0),
    "doors": ("plain", "deep"),
    "times": ("own", "shared"),
    "likelihood": ("bound", "released"),
}


@dataclass(frozen=True, kw_only=True)
class DiffusionLM:
    """Word vectors x_0, destroyed by a Gaussian process and restored by a bidirectional transformer."""

    language: Language = Language()
    trunk: Transformer = Transformer()
    embed_dim: int = 64
    embed_norm: float | None = 3.0  # every word vector has this norm; None leaves them free
    vectors: str = field(default="neighbours", metadata={"absent": "learned"})  # their company in the text; or learned
    answers: str = "logits"  # "logits" over words, whose expected vector is x̂_0; or a "vector", read by `reading`
    reading: str = "x_0"  # what a vector answer predicts: x_0, noise, score or v
    doors: str = "plain"  # between vectors and trunk: one dense layer; "deep": two and a tanh, as released
    self_conditioning: float = 0.5  # share of the training steps that show the network its first estimate
    known_length: bool = True  # False: PAD is a word like any other, and every text fills the length
    schedule: str = "cosine"
    num_steps: int = 2000  # T: training times are 1/T, 2/T, …, 1
    times: str = "own"  # each word's own in training; or "shared" by the words of a text, as in sampling
    noisy_x_0: bool = False  # x_0 ~ N(e(w), 1 − ᾱ(1/T)) as released; else the word's vector itself
    mse: float = 0.0  # weights of the loss terms
    rounding: float = 0.0
    prior: float = 0.0
    cross_entropy: float = 1.0
    likelihood: str = "bound"  # what `nll` is: an upper bound; or "released", the quantity that the release reports
    bound_points: int = 32  # times at which either is estimated, a text
    bound_from: float = 0.4  # where the bound reads words off x_t; any time is valid, near 0 slight doubts cost much
    sampler: Sampler = Sampler()

    def __post_init__(self) -> None:
        check_settings(self, positive=("embed_dim", "num_steps", "bound_points"), choices=CHOICES)
        if self.likelihood == "released" and self.num_steps < 2:
            raise ValueError(f"likelihood='released' needs num_steps of at least 2, got {self.num_steps}.")
        if self.embed_norm is not None and self.embed_norm <= 0:
            raise ValueError(f"embed_norm must be above 0, or None for vectors of any length; got {self.embed_norm}.")
        if not 0 < self.bound_from < 1:
            raise ValueError(f"bound_from must lie between 0 and 1, got {self.bound_from}.")
        if self.answers == "logits" and self.reading != "x_0":
            raise ValueError(f"answers='logits' are read as x_0, not as {self.reading!r}. Set answers='vector'.")
        if self.vectors == "neighbours" and self.embed_norm is None:
            raise ValueError("vectors='neighbours' have a direction alone: set embed_norm, or vectors='learned'.")
        if self.answers == "vector" and (self.cross_entropy or self.sampler.temperature != 1):
            raise ValueError("answers='vector' has no distribution: set cross_entropy=0 and sampler.temperature=1.")

    @functools.cached_property
    def process(self) -> Gaussian:
        return Gaussian(log_alpha_bar=SCHEDULES[self.schedule](self.num_steps))

    @functools.cached_property
    def net(self) -> Net:
        return Net(
            lambda rngs: EmbeddingDenoiser(
                self.trunk,
                vocab_size=self.language.vocab_size,
                embed_dim=self.embed_dim,
                embed_norm=self.embed_norm,
                learned=self.vectors == "learned",
                answers=self.answers,
                doors=self.doors,
                self_conditioned=self.self_conditioning > 0,
                num_lengths=self.language.length + 1 if self.known_length else 0,
                rngs=rngs,
            )
        )

    @property
    def bound(self) -> str:
        kinds = {"bound": "continuous-time bound", "released": f"released {self.num_steps}-step quantity, no bound"}
        return f"{kinds[self.likelihood]}, {self.bound_points} times a text"

    @property
    def prefix_only(self) -> bool:
        return False

    def init(self, key: Key[Array, ""]) -> Params:
        return self.net.init(key)

    def prime(self, params: Params, tokens: np.ndarray, offsets: np.ndarray) -> Params:
        """With the words' vectors by their company, unless they are learned."""
        if self.vectors == "learned":
            return params
        table = neighbour_vectors(tokens, offsets, self.language.vocab_size, self.embed_dim)
        return {**params, "embedding": jnp.asarray(table)}

    def loss(self, params: Params, key: Key[Array, ""], batch: Batch) -> tuple[Float[Array, "b"], Metrics]:
        """The weighted sum of the terms that weigh anything, each a metric (Li et al. 2022, eq. 2, as released)."""
        net, (tokens, valid) = self.net.bind(params), self._words(batch)
        when, jitter, noise, drop = (jax.random.fold_in(key, purpose) for purpose in range(4))
        t = self._times(when, tokens.shape)
        word = net.embed(tokens)
        x_0 = Normal(mean=word, std=self.process.noise(self._first, word)).sample(jitter) if self.noisy_x_0 else word
        x_t = self.process.marginal(x_0, t).sample(noise)
        first = lambda: self._estimate(net, x_t, t, valid)
        previous = transforms.self_condition(first, self.two_passes(key), x_t) if self.self_conditioning else None
        answer = self._answer(net, x_t, t, previous, valid, drop)
        # At the first time the target is the word's own vector, noise-free (released code).
        target = jnp.where(t[..., None] <= self._first, word, x_0)
        values = {
            "mse": lambda: objectives.squared_error(target, self._x_0_hat(net, answer, x_t, t)),
            "rounding": lambda: objectives.cross_entropy(net.rounding_logits(x_0), tokens),
            "prior": lambda: jnp.mean(self.process.marginal(x_0, 1.0).mean ** 2, axis=-1),
            "cross_entropy": lambda: objectives.cross_entropy(answer, tokens),
        }
        terms = {name: objectives.mean_over(values[name](), valid) for name in values if getattr(self, name)}
        return sum((getattr(self, name) * term for name, term in terms.items()), jnp.zeros(len(t))), terms

    def two_passes(self, key: Key[Array, ""]) -> Bool[Array, ""]:
        """Whether the training step of this key shows the network its first estimate."""
        return jax.random.uniform(jax.random.fold_in(key, 4)) < self.self_conditioning

    def monitor(self, params: Params) -> dict[str, Float[Array, ""]]:
        """Signs of collapse among the word vectors."""
        return transforms.spread(self.net.bind(params).table())

    def lengths(self, params: Params, keys: Keys, given: Given) -> Int[Array, "b"]:
        """Those asked for; else drawn from the law fitted to the training text. The full one, if PAD is modelled."""
        drawn = objectives.draw_length(jnp.asarray(self.language.length_counts), fold(keys, 2), given.length)
        return drawn if self.known_length else jnp.full_like(drawn, given.tokens.shape[1])

    def sample(self, params: Params, keys: Keys, given: Given, *, keep_path: bool = False) -> Sample:
        """Walks from noise to words; fixed words are held at their vectors."""
        net = self.net.bind(params)
        start, walk, length = fold(keys, 0), fold(keys, 1), self.lengths(params, keys, given)
        valid, ends = span(given, length)
        with_pad = not self.known_length
        possible = possible_words(self.language, given, None if with_pad else ends, with_pad=with_pad)
        step = self.sampler.step(self.process, self._denoise(net, valid, given, possible))
        written = lambda x: jnp.where(valid, transforms.nearest(net.table(), x, possible), self.language.pad)
        keep = (lambda state: written(state.x_t)) if keep_path else (lambda state: None)
        x_1 = self.process.prior((*given.tokens.shape, self.embed_dim)).sample(start)
        state, path = unroll(step, State.start(x_1), walk, ticks(self.sampler.steps), keep=keep)
        return Sample(written(state.x_t), path, jnp.full(len(length), self.sampler.steps))

    def _denoise(self, net: Any, valid: Bool[Array, "b l"], given: Given, possible: Bool[Array, "b l v"]) -> Denoise:
        """The network as a Denoise: tempered, turned into a vector, clamped, with the given words held."""
        clear = given.fixed & (self.times == "own")  # given words are shown as they are to a network that can tell

        def answer(x_t: Array, t: Time, previous: Array) -> Array:
            seen = jnp.where(clear[..., None], net.embed(given.tokens), x_t)
            when = jnp.where(clear, self._first, t) if self.times == "own" else jnp.full((len(x_t), 1), t)
            said = self._answer(net, seen, when, previous, valid, None)
            return jnp.where(possible, said, -jnp.inf) if self.answers == "logits" else said

        spoken = transforms.temper(answer, self.sampler.temperature) if self.answers == "logits" else answer

        def denoise(x_t: Array, t: Time, previous: Array) -> Array:
            return self._x_0_hat(net, spoken(x_t, t, previous), x_t, t)

        project = lambda x_0: net.embed(transforms.nearest(net.table(), x_0, possible))
        clamped = transforms.clamp(denoise, project, below=self.sampler.clamp)
        return transforms.infill(clamped, net.embed(given.tokens), given.fixed)

    def nll(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """An upper bound on −log p(text), nats a sequence; or, by `likelihood`, the quantity that the release reports.

        The bound is `bounds.continuous_bound` of the vectors, E[−log p(w | x_t)] at its first time, and −log p(length).
        No clamp; self-conditioning by two passes, which keeps each term a function of x_t alone.
        """
        net, (tokens, valid) = self.net.bind(params), self._words(batch)
        word, begin = net.embed(tokens), self._first if self.likelihood == "released" else self.bound_from
        first, (walk, last) = jnp.full((len(tokens), 1), begin), jax.random.split(key)
        answer = lambda x_t, t: self._answer(net, x_t, t, self._estimate(net, x_t, t, valid), valid, None)
        denoise = lambda x_t, t: self._x_0_hat(net, answer(x_t, t), x_t, t)
        estimate = self.process, word, denoise, walk, begin, self.bound_points
        if self.likelihood == "released":
            gap, x_0 = bounds.released_bound(*estimate)
            logits = net.rounding_logits(x_0)
        else:
            gap, x_t = bounds.continuous_bound(*estimate), self.process.marginal(word, first).sample(last)
            logits = answer(x_t, first) if self.answers == "logits" else net.rounding_logits(denoise(x_t, first))
        total = objectives.sum_over(gap + objectives.cross_entropy(logits, tokens), valid)
        law, length = jnp.asarray(self.language.length_counts), jnp.sum(valid, axis=-1)
        return total + objectives.length_nll(law, length) if self.known_length else total

    @property
    def _first(self) -> float:
        return 1.0 / self.num_steps

    def _words(self, batch: Batch) -> tuple[Int[Array, "b l"], Bool[Array, "b l"]]:
        """The tokens of a batch and where its texts are; if PAD is a word, they fill the length."""
        if self.known_length:
            return jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        room = ((0, 0), (0, self.language.length - batch.tokens.shape[1]))
        tokens = jnp.pad(jnp.asarray(batch.tokens), room, constant_values=self.language.pad)
        return tokens, jnp.ones(tokens.shape, bool)

    def _times(self, key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "b #l"]:
        """Training times, spread evenly over the batch."""
        size = shape if self.times == "own" else (shape[0], 1)
        return jnp.ceil(stratified(key, math.prod(size)).reshape(size) * self.num_steps) / self.num_steps

    def _answer(self, net: Any, x_t: Array, t: Array, previous: Array | None, valid: Array, key: Any) -> Array:
        """What the network says of x_t, [b l d] at times [b #l]: of a linear estimate, if the vectors have a norm."""
        if self.embed_norm is not None:
            spread = self.embed_norm / self.embed_dim**0.5
            x_t = self.process.linear_estimate(x_t, t, spread)
            previous = None if previous is None else previous / spread
        return net(x_t, 1000.0 * (t - self._first), previous, valid=valid, key=key)

    def _x_0_hat(self, net: Any, answer: Array, x_t: Array, t: Time) -> Float[Array, "b l d"]:
        """The estimate in an answer: the expected word vector, or the vector as `reading` says."""
        if self.answers == "logits":
            return jax.nn.softmax(answer) @ net.table()
        return TO_X_0[self.reading](self.process, answer, x_t, t)

    def _estimate(self, net: Any, x_t: Array, t: Array, valid: Array) -> Array | None:
        """A first x̂_0 for the network to see; None if it is not self-conditioned."""
        first = lambda: self._x_0_hat(net, self._answer(net, x_t, t, None, valid, None), x_t, t)
        return first() if self.self_conditioning else None
