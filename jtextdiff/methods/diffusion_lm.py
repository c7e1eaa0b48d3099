"""Diffusion-LM: Gaussian diffusion of token embeddings.

Li et al. (2022). By default the network predicts a distribution over tokens, whose expected embedding is x̂_0, is
trained by cross-entropy, and reads its previous estimate (Dieleman et al. 2022; Strudel et al. 2022). In training each
token has its own time (Chen et al. 2024). Agreement between tokens is learned where one is clean and the other noisy,
which is rare if all are equally noisy.
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.data.batches import Batch
from jtextdiff.data.word_vectors import neighbour_vectors
from jtextdiff.diffusion.distributions import Normal
from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.lengths import length_nll, sample_length
from jtextdiff.diffusion.losses import cross_entropy, squared_error, sum_over
from jtextdiff.diffusion.parameterization import TO_X_0
from jtextdiff.diffusion.randomness import Keys, fold_in, stratified_on_grid
from jtextdiff.diffusion.rounding import embedding_spread
from jtextdiff.diffusion.schedules import SCHEDULES, Time
from jtextdiff.methods.components.embedding_denoiser import Constraints, GaussianDenoiser, constraints_of
from jtextdiff.methods.components.noisy_embeddings import NoisyEmbeddings
from jtextdiff.methods.components.types import Given, Metrics, Sample, TextSpec, check_settings
from jtextdiff.nets.denoisers import EmbeddingDenoiser
from jtextdiff.nets.functional import Net, Params
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.denoiser_transforms import self_condition
from jtextdiff.sampling.energies import Energy, Learned
from jtextdiff.sampling.gaussian_samplers import Sampler
from jtextdiff.sampling.loop import State, later
from jtextdiff.sampling.phrases import Phrase

CHOICES = {
    "embeddings": ("neighbours", "tuned", "learned"),
    "schedule": tuple(SCHEDULES),
    "output": ("logits", "vector"),
    "parameterization": tuple(TO_X_0),
    "projections": ("plain", "deep"),
    "likelihood": ("bound", "released"),
}


@dataclass(frozen=True, kw_only=True)
class DiffusionLM:
    """Token embeddings x_0, noised by a Gaussian process and denoised by a bidirectional transformer."""

    text_spec: TextSpec = TextSpec()
    trunk: Transformer = Transformer()
    embed_dim: int = 64
    embed_norm: float | None = 3.0  # of every token embedding; None leaves norms free
    embeddings: str = "neighbours"  # computed from the tokens' neighbours; "tuned": trained from there; or "learned"
    output: str = "logits"  # over tokens, whose expected embedding is x̂_0; or a "vector", see `parameterization`
    parameterization: str = "x_0"  # what a vector output predicts: x_0, noise, score or v
    projections: str = "plain"  # between embeddings and trunk: one dense layer; "deep": two and a tanh, as released
    self_conditioning: float = 0.5  # share of the training steps in which the network reads its first estimate
    known_length: bool = True  # False: PAD is modelled like any token, and every text fills the length
    schedule: str = "cosine"
    num_steps: int = 2000  # T: training times are 1/T, 2/T, …, 1
    per_token_times: bool = True  # in training; False: the tokens of a text share one time, as in sampling
    noisy_x_0: bool = False  # x_0 ~ N(e(w), 1 − ᾱ(1/T)), as released; else the token's embedding itself
    mse: float = 0.0  # weights of the loss terms
    rounding: float = 0.0
    prior: float = 0.0
    cross_entropy: float = 1.0
    likelihood: str = "bound"  # what `nll` returns: an upper bound; or "released", the quantity of the authors' code
    bound_points: int = 32  # times per text at which either is estimated
    bound_start: float = 0.4  # time at which the bound predicts tokens from x_t; small ones are less tight
    sampler: Sampler = Sampler()

    prefix_only = False

    def __post_init__(self) -> None:
        check_settings(self, positive=("embed_dim", "num_steps", "bound_points"), choices=CHOICES)
        if self.likelihood == "released" and self.num_steps < 2:
            raise ValueError(f"likelihood='released' needs num_steps of at least 2, got {self.num_steps}.")
        if self.embed_norm is not None and self.embed_norm <= 0:
            raise ValueError(f"embed_norm must be above 0, or None for embeddings of any norm; got {self.embed_norm}.")
        if not 0 < self.bound_start < 1:
            raise ValueError(f"bound_start must lie between 0 and 1, got {self.bound_start}.")
        if self.output == "logits" and self.parameterization != "x_0":
            raise ValueError(
                f"output='logits' has parameterization='x_0', not {self.parameterization!r}. Set output='vector'."
            )
        if self.embeddings != "learned" and self.embed_norm is None:
            raise ValueError(f"embeddings={self.embeddings!r} have no norm: set embed_norm, or embeddings='learned'.")
        if self.output == "vector" and (self.cross_entropy or self.sampler.temperature != 1):
            raise ValueError("output='vector' has no distribution: set cross_entropy=0 and sampler.temperature=1.")

    @functools.cached_property
    def process(self) -> Gaussian:
        return Gaussian(log_alpha_bar=SCHEDULES[self.schedule](self.num_steps))

    @property
    def states(self) -> NoisyEmbeddings:
        """The states x_t, on which classifiers are trained."""
        length = 0 if self.known_length else self.text_spec.length
        return NoisyEmbeddings(self.process, self.embed_dim, self.embed_norm, self.text_spec.pad, length)

    @functools.cached_property
    def net(self) -> Net:
        return Net(
            lambda rngs: EmbeddingDenoiser(
                self.trunk,
                vocab_size=self.text_spec.vocab_size,
                embed_dim=self.embed_dim,
                embed_norm=self.embed_norm,
                learned=self.embeddings != "neighbours",
                output=self.output,
                projections=self.projections,
                self_conditioned=self.self_conditioning > 0,
                num_lengths=self.text_spec.length + 1 if self.known_length else 0,
                rngs=rngs,
            )
        )

    @property
    def bound(self) -> str:
        if self.likelihood == "released":
            return f"released {self.num_steps}-step quantity, no bound, {self.bound_points} times a text"
        sampler = "of ancestral sampling in the limit of many steps, without clamp or temperature"
        return f"continuous-time bound, {self.bound_points} times a text; {sampler}"

    def init(self, key: Key[Array, ""]) -> Params:
        return self.net.init(key)

    def init_from_data(self, params: Params, tokens: np.ndarray, offsets: np.ndarray) -> Params:
        """Returns `params` with embeddings computed from the tokens' neighbours, unless they are learned."""
        if self.embeddings == "learned":
            return params
        matrix = neighbour_vectors(tokens, offsets, self.text_spec.vocab_size, self.embed_dim)
        return {**params, "embedding": jnp.asarray(matrix)}

    def loss(self, params: Params, key: Key[Array, ""], batch: Batch) -> tuple[Float[Array, "b"], Metrics]:
        """Returns the weighted sum of the terms of non-zero weight; each is a metric (Li et al. 2022, eq. 2).

        Each is a sum over tokens divided by the mean length or, where PAD is a token like any, by the whole length.
        """
        denoiser, (tokens, valid) = self._denoiser(params), self.states.tokens_and_valid(batch)
        time_key, x_0_key, noise_key, dropout_key = (jax.random.fold_in(key, purpose) for purpose in range(4))
        t = stratified_on_grid(time_key, self._times_shape(tokens.shape), self.num_steps)
        x_0 = embedded = denoiser.net.embed(tokens)
        if self.noisy_x_0:
            x_0 = Normal(mean=embedded, std=self.process.noise(self._first_time, embedded)).sample(x_0_key)
        x_t = self.process.marginal(x_0, t).sample(noise_key)
        previous = None
        if self.self_conditioning:
            first_estimate = functools.partial(denoiser.first_estimate, x_t, t, valid)
            previous = self_condition(first_estimate, self.two_passes(key))
        prediction = denoiser.predict(x_t, t, previous, valid, dropout_key)
        # At the first time the target is the token's own embedding, noise-free (authors' code).
        target = jnp.where(later(t[..., None], self._first_time), x_0, embedded)
        values = {
            "mse": lambda: squared_error(target, denoiser.to_x_0(prediction, x_t, t)),
            "rounding": lambda: cross_entropy(denoiser.net.rounding_logits(x_0), tokens),
            "prior": lambda: jnp.mean(self.process.marginal(x_0, 1.0).mean ** 2, axis=-1),
            "cross_entropy": lambda: cross_entropy(prediction, tokens),
        }
        num_tokens = self.text_spec.mean_length if self.known_length else self.text_spec.length
        terms = {name: sum_over(values[name](), valid) / num_tokens for name in values if getattr(self, name)}
        return sum((getattr(self, name) * term for name, term in terms.items()), jnp.zeros(len(t))), terms

    def two_passes(self, key: Key[Array, ""]) -> Bool[Array, ""]:
        """Returns whether the network reads its first estimate in the training step of this key."""
        return jax.random.uniform(jax.random.fold_in(key, 4)) < self.self_conditioning

    def nll(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """Returns an upper bound on −log p(text), nats per sequence; or, by `likelihood`, the released quantity.

        It is the sum of `GaussianDenoiser.bound_terms` and −log p(length).
        """
        (tokens, valid), released = self.states.tokens_and_valid(batch), self.likelihood == "released"
        start = self._first_time if released else self.bound_start
        terms = self._denoiser(params).bound_terms(
            key, tokens, valid, start=start, num_points=self.bound_points, released=released
        )
        total = sum_over(terms, valid)
        counts, length = jnp.asarray(self.text_spec.length_counts), jnp.sum(valid, axis=-1)
        return total + length_nll(counts, length) if self.known_length else total

    def diagnostics(self, params: Params) -> dict[str, Float[Array, ""]]:
        """Returns signs of collapse of the embeddings."""
        return embedding_spread(self.net.bind(params).embedding_matrix())

    def clean_state(self, params: Params, batch: Batch) -> tuple[Float[Array, "b l d"], Bool[Array, "b l"]]:
        """Returns the embeddings of a batch's tokens, and their valid positions."""
        return self.states.embed(params, batch)

    def keyword_energy(self, params: Params, allowed: Bool[Array, "k v"]) -> Learned:
        """Returns the energy −log p(k adjacent tokens occur), the i-th one of `allowed[i]`; see `phrases.Phrase`."""
        # The model's own array, not a normalised copy: `energies.stacked` shares it between the rows of a batch.
        embedding = self.states.classifier_params(params)
        log_prob, log_not = self._phrase_log_prob, self._phrase_log_not
        return Learned(params=embedding, target=allowed, log_prob=log_prob, log_not=log_not, on_estimate=True)

    def _phrase_log_prob(self, params: Params, allowed: Array, x: Array, t: Time, valid: Any) -> Float[Array, "b"]:
        return -self._phrase(params, allowed)(x, t, valid)

    def _phrase_log_not(self, params: Params, allowed: Array, x: Array, t: Time, valid: Any) -> Float[Array, "b"]:
        return -self._phrase(params, allowed).complement(x, t, valid)

    def _phrase(self, params: Params, allowed: Array) -> Phrase:
        return Phrase(embedding=self.states.embedding_matrix(params), allowed=allowed, process=self.process)

    def sample_lengths(self, params: Params, keys: Keys, given: Given) -> Int[Array, "b"]:
        """Returns the given lengths; the others are drawn from the length distribution of the training text.

        If PAD is modelled, returns the full length.
        """
        length = sample_length(jnp.asarray(self.text_spec.length_counts), fold_in(keys, 2), given.length)
        return length if self.known_length else jnp.full_like(length, given.tokens.shape[1])

    def sample(
        self, params: Params, keys: Keys, given: Given, *, energy: Energy | None = None, keep_path: bool = False
    ) -> Sample:
        """Denoises from pure noise to tokens, guided by the energy if given; fixed tokens keep their embeddings."""
        x_1 = self.process.prior((*given.tokens.shape, self.embed_dim)).sample(fold_in(keys, 0))
        constraints = self._constraints(given, self.sample_lengths(params, keys, given))
        state, step_keys = State.start(x_1), fold_in(keys, 1)
        return self._denoiser(params).sample(state, step_keys, constraints, self.sampler, energy, keep_path=keep_path)

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
        """Noises the texts `given` to the time `strength` and denoises them; their fixed tokens stay."""
        denoiser = self._denoiser(params)
        constraints = self._constraints(given, self.sample_lengths(params, keys, given))
        x_t = self.process.marginal(denoiser.net.embed(given.tokens), strength).sample(fold_in(keys, 0))
        state, step_keys = State.start(x_t, strength), fold_in(keys, 1)
        return denoiser.sample(state, step_keys, constraints, self.sampler, energy, keep_path=keep_path)

    def _constraints(self, given: Given, length: Int[Array, "b"]) -> Constraints:
        clean = given.fixed if self.per_token_times else None
        return constraints_of(self.text_spec, given, length, clean, known_length=self.known_length)

    def _denoiser(self, params: Params) -> GaussianDenoiser:
        return GaussianDenoiser(
            net=self.net.bind(params),
            process=self.process,
            first_time=self._first_time,
            network_input=self.states.network_input,
            parameterization=None if self.output == "logits" else self.parameterization,
            self_conditioned=self.self_conditioning > 0,
            spread=self.states.spread,
        )

    @property
    def _first_time(self) -> float:
        return 1.0 / self.num_steps

    def _times_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape if self.per_token_times else (shape[0], 1)
