"""Diffusion-LM (Li et al. 2022): Gaussian diffusion of word vectors, rounded back to words.

The default answers with a distribution over words, whose expected vector is x̂_0, is trained by cross-entropy,
and sees its previous estimate (Dieleman et al. 2022; Strudel et al. 2022). In training each word has a time of its
own (Chen et al. 2024): agreement is learned where one word is clear and the other not, rare if all are equally so.
"""

import functools
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.data.batches import Batch
from jtextdiff.data.word_vectors import neighbour_vectors
from jtextdiff.diffusion import losses as objectives
from jtextdiff.diffusion.distributions import Normal
from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.parameterization import TO_X_0
from jtextdiff.diffusion.randomness import Keys, fold, on_grid
from jtextdiff.diffusion.schedules import SCHEDULES
from jtextdiff.methods.components.embedding_denoiser import Belief
from jtextdiff.methods.components.noisy_embeddings import NoisyWords
from jtextdiff.methods.components.types import Given, Language, Metrics, Sample, check_settings, possible_words, span
from jtextdiff.nets.denoisers import EmbeddingDenoiser
from jtextdiff.nets.functional import Net, Params
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling import denoiser_transforms as transforms
from jtextdiff.sampling.energies import Energy, along
from jtextdiff.sampling.gaussian_samplers import Sampler
from jtextdiff.sampling.loop import State, ticks, unroll

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

    @property
    def states(self) -> NoisyWords:
        """What x_t is: for classifiers to read."""
        length = 0 if self.known_length else self.language.length
        return NoisyWords(self.process, self.embed_dim, self.embed_norm, self.language.pad, length)

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
        belief, (tokens, valid) = self._belief(params), self.states.words(batch)
        when, jitter, noise, drop = (jax.random.fold_in(key, purpose) for purpose in range(4))
        t = on_grid(when, self._times(tokens.shape), self.num_steps)
        word = belief.net.embed(tokens)
        x_0 = Normal(mean=word, std=self.process.noise(self._first, word)).sample(jitter) if self.noisy_x_0 else word
        x_t = self.process.marginal(x_0, t).sample(noise)
        first = lambda: belief.glance(x_t, t, valid)
        previous = transforms.self_condition(first, self.two_passes(key), x_t) if self.self_conditioning else None
        answer = belief.answer(x_t, t, previous, valid, drop)
        # At the first time the target is the word's own vector, noise-free (released code).
        target = jnp.where(t[..., None] <= self._first, word, x_0)
        values = {
            "mse": lambda: objectives.squared_error(target, belief.x_0_hat(answer, x_t, t)),
            "rounding": lambda: objectives.cross_entropy(belief.net.rounding_logits(x_0), tokens),
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

    def sample(
        self, params: Params, keys: Keys, given: Given, *, energy: Energy | None = None, keep_path: bool = False
    ) -> Sample:
        """Walks from noise to words, downhill in the energy; fixed words are held at their vectors."""
        x_1 = self.process.prior((*given.tokens.shape, self.embed_dim)).sample(fold(keys, 0))
        return self._walk(params, keys, given, x_1, 1.0, energy, keep_path)

    def edit(
        self,
        params: Params,
        keys: Keys,
        given: Given,
        *,
        strength: Float[Array, ""] | float,
        energy: Energy | None = None,
        keep_path: bool = False,
    ) -> Sample:
        """The same walk from the texts `given`, noised to the time `strength`; words of theirs that are fixed stay."""
        x_t = self.process.marginal(self.net.bind(params).embed(given.tokens), strength).sample(fold(keys, 0))
        return self._walk(params, keys, given, x_t, strength, energy, keep_path)

    def _walk(
        self,
        params: Params,
        keys: Keys,
        given: Given,
        x_t: Float[Array, "b l d"],
        start: Float[Array, ""] | float,
        energy: Energy | None,
        keep_path: bool,
    ) -> Sample:
        belief, length = self._belief(params), self.lengths(params, keys, given)
        valid, end = span(given, length)
        possible = possible_words(
            self.language, given, end if self.known_length else None, with_pad=not self.known_length
        )
        rounded = lambda x: transforms.nearest(belief.net.table(), x, possible)
        words = belief.net.embed(given.tokens)
        denoise = belief.denoise(words, self._shown(given), valid, possible, self.sampler.temperature)
        clamped = transforms.clamp(denoise, lambda x: belief.net.embed(rounded(x)), below=self.sampler.clamp)
        step = self.sampler.step(self.process, transforms.infill(clamped, words, given.fixed))
        if energy is not None:
            unit = self.states.spread or 1.0
            step = self.sampler.steer(step, self.process, denoise, energy, given.fixed, valid, unit)
        written = lambda x: jnp.where(valid, rounded(x), self.language.pad)
        keep = lambda state: (written(state.x_t), None if energy is None else state.x_t) if keep_path else (None, None)
        grid = ticks(self.sampler.steps, start=start)
        state, (path, states) = unroll(step, State.start(x_t, start), fold(keys, 1), grid, keep=keep)
        seen = None if energy is None or states is None else along(energy, states, jnp.append(start, grid[1]), valid)
        return Sample(written(state.x_t), path, jnp.full(len(length), self.sampler.steps), seen)

    def _shown(self, given: Given) -> Bool[Array, "b l"] | None:
        """The given words that are shown as they are: all, to a network that can tell; else None."""
        return given.fixed if self.times == "own" else None

    def nll(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """An upper bound on −log p(text), nats a sequence; or, by `likelihood`, the quantity that the release reports.

        Its terms are `Belief.gaps` and −log p(length).
        """
        (tokens, valid), released = self.states.words(batch), self.likelihood == "released"
        begin = self._first if released else self.bound_from
        gaps = self._belief(params).gaps(key, tokens, valid, begin=begin, points=self.bound_points, released=released)
        total = objectives.sum_over(gaps, valid)
        law, length = jnp.asarray(self.language.length_counts), jnp.sum(valid, axis=-1)
        return total + objectives.length_nll(law, length) if self.known_length else total

    def _belief(self, params: Params) -> Belief:
        return Belief(
            net=self.net.bind(params),
            process=self.process,
            first=self._first,
            readable=self.states.readable,
            reading=None if self.answers == "logits" else self.reading,
            self_conditioned=self.self_conditioning > 0,
        )

    @property
    def _first(self) -> float:
        return 1.0 / self.num_steps

    def _times(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape if self.times == "own" else (shape[0], 1)
