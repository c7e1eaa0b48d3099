"""Diffusion-LM (Li et al. 2022): Gaussian diffusion of learned word vectors, rounded back to words.

The default answers with a distribution over words, whose expected vector is x̂_0, is trained by cross-entropy,
and sees its previous estimate (Dieleman et al. 2022; Strudel et al. 2022). The paper's own model is
`answers="vector", cross_entropy=0, mse=rounding=prior=1, embed_norm=None, self_conditioning=0`.
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.core import objectives, transforms
from jtextdiff.core.distributions import Categorical, Normal
from jtextdiff.core.gaussian import Gaussian
from jtextdiff.core.randomness import Keys, fold, stratified
from jtextdiff.core.readings import TO_X_0
from jtextdiff.core.samplers import Sampler
from jtextdiff.core.sampling import Denoise, State, ticks, unroll
from jtextdiff.core.schedules import SCHEDULES, Time
from jtextdiff.methods.method import Given, Language, Metrics, Sample
from jtextdiff.nets.denoisers import EmbeddingDenoiser
from jtextdiff.nets.functional import Net, Params
from jtextdiff.nets.transformer import Transformer
from jtextdiff.text.batches import Batch


@dataclass(frozen=True, kw_only=True)
class DiffusionLM:
    """Word vectors x_0, destroyed by a Gaussian process and restored by a bidirectional transformer."""

    language: Language = Language()
    trunk: Transformer = Transformer()
    embed_dim: int = 64
    embed_norm: float | None = 4.0  # every word vector has this norm; None leaves them free
    answers: str = "logits"  # "logits" over words, whose expected vector is x̂_0; or a "vector", read by `reading`
    reading: str = "x_0"  # what a vector answer predicts: x_0, noise, score or v
    self_conditioning: float = 0.5  # share of the training steps that show the network its first estimate
    known_length: bool = True  # False: PAD is a word like any other, and every text fills the length
    schedule: str = "sqrt"
    num_steps: int = 2000  # T: training times are 1/T, 2/T, …, 1
    noisy_x_0: bool = False  # x_0 ~ N(e(w), 1 − ᾱ(1/T)) as released; else the word's vector itself
    mse: float = 0.0  # weights of the loss terms
    rounding: float = 0.0
    prior: float = 0.0
    cross_entropy: float = 1.0
    bound_steps: int = 128  # steps of the bound that `nll` reports
    sampler: Sampler = Sampler()

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {sorted(SCHEDULES)}, got {self.schedule!r}.")
        if self.answers not in ("logits", "vector"):
            raise ValueError(f"answers must be 'logits' or 'vector', got {self.answers!r}.")
        if self.reading not in TO_X_0 or (self.answers == "logits" and self.reading != "x_0"):
            raise ValueError(
                f"reading must be one of {sorted(TO_X_0)}, and x_0 where answers='logits'; got {self.reading!r}."
            )
        if self.answers == "vector" and self.cross_entropy:
            raise ValueError("cross_entropy needs answers='logits'. Set cross_entropy=0 or answers='logits'.")
        if self.answers == "vector" and self.sampler.temperature != 1.0:
            raise ValueError("sampler.temperature needs answers='logits': a vector answer has no distribution.")

    @functools.cached_property
    def process(self) -> Gaussian:
        return Gaussian(log_alpha_bar=SCHEDULES[self.schedule](self.num_steps))

    @functools.cached_property
    def net(self) -> Net:
        return Net(
            functools.partial(
                _make_net,
                trunk=self.trunk,
                vocab_size=self.language.vocab_size,
                embed_dim=self.embed_dim,
                embed_norm=self.embed_norm,
                answers=self.answers,
                self_conditioned=self.self_conditioning > 0,
                num_lengths=self.language.length + 1 if self.known_length else 0,
            )
        )

    @property
    def bound(self) -> str:
        return f"{self.bound_steps}-step bound"

    @property
    def prefix_only(self) -> bool:
        return False

    def init(self, key: Key[Array, ""]) -> Params:
        return self.net.init(key)

    def loss(self, params: Params, key: Key[Array, ""], batch: Batch) -> tuple[Float[Array, "b"], Metrics]:
        """The weighted sum of four terms, each a metric of its own (Li et al. 2022, eq. 2, as released)."""
        net, valid = self.net.bind(params), self._valid(batch.valid)
        tokens = jnp.asarray(batch.tokens)
        when, jitter, noise, coin, drop = jax.random.split(key, 5)
        t = jnp.ceil(stratified(when, len(tokens)) * self.num_steps) / self.num_steps
        word = net.embed(tokens)
        x_0 = Normal(mean=word, std=self.process.noise(self._first, word)).sample(jitter) if self.noisy_x_0 else word
        x_t = self.process.marginal(x_0, t).sample(noise)
        previous = self._first_estimate(net, x_t, t, valid, coin)
        answer = self._answer(net, x_t, t, previous, valid, drop)
        x_0_hat = self._x_0_hat(net, answer, x_t, t)
        # At the first time the target is the word's own vector, noise-free (released code).
        target = jnp.where(t[:, None, None] <= self._first, word, x_0)
        terms = {
            "mse": objectives.mean_over(objectives.squared_error(target, x_0_hat), valid),
            "rounding": objectives.mean_over(objectives.cross_entropy(net.rounding_logits(x_0), tokens), valid),
            "prior": objectives.mean_over(
                objectives.squared_error(self.process.marginal(x_0, 1.0).mean, jnp.zeros_like(x_0)), valid
            ),
        }
        if self.answers == "logits":
            terms["cross_entropy"] = objectives.mean_over(objectives.cross_entropy(answer, tokens), valid)
        weights = {name: getattr(self, name) for name in terms}
        return sum((weight * terms[name] for name, weight in weights.items() if weight), jnp.zeros(len(t))), terms

    def monitor(self, params: Params) -> dict[str, Float[Array, ""]]:
        """Signs of collapse among the word vectors."""
        return transforms.spread(self.net.bind(params).table())

    def sample(self, params: Params, keys: Keys, given: Given, *, keep_path: bool = False) -> Sample:
        """Walks from noise to words; fixed words are held at their vectors."""
        net = self.net.bind(params)
        start, walk, measure = (fold(keys, purpose) for purpose in range(3))
        length = self._length(measure, given.length)
        valid = self._valid(jnp.arange(given.tokens.shape[1]) < length[:, None])
        shape = (*given.tokens.shape, self.embed_dim)
        x_1 = self.process.prior(shape).sample(start)
        step = self.sampler.step(self.process, self._denoise(net, valid, given))
        written = functools.partial(self._written, net, valid)
        keep = (lambda state: written(state.x_t)) if keep_path else (lambda state: None)
        state = State(x_1, jnp.zeros(shape), jnp.ones(()))
        state, path = unroll(step, state, walk, ticks(self.sampler.steps), keep=keep)
        return Sample(written(state.x_t), path)

    def _denoise(self, net: Any, valid: Bool[Array, "b l"], given: Given) -> Denoise:
        """The network as a Denoise: tempered, turned into a vector, clamped, with the given words held."""

        ends = valid & ~jnp.pad(valid[:, 1:], ((0, 0), (0, 1)))
        words = jnp.arange(self.language.vocab_size)
        # Where the length is known, EOS stands at the last position and nowhere else, and PAD stands nowhere.
        possible = (words != self.language.pad) & (ends[..., None] == (words == self.language.eos))

        def answer(x_t: Array, t: Time, previous: Array) -> Array:
            said = self._answer(net, x_t, jnp.full(len(x_t), t), previous, valid, None)
            return jnp.where(possible, said, -jnp.inf) if self.known_length and self.answers == "logits" else said

        spoken = transforms.temper(answer, self.sampler.temperature) if self.answers == "logits" else answer

        def denoise(x_t: Array, t: Time, previous: Array) -> Array:
            return self._x_0_hat(net, spoken(x_t, t, previous), x_t, t)

        def project(x_0: Array) -> Array:
            return net.embed(transforms.nearest(net.table(), x_0))

        clamped = transforms.clamp(denoise, project, below=self.sampler.clamp)
        return transforms.infill(clamped, net.embed(given.tokens), given.fixed)

    def _written(self, net: Any, valid: Bool[Array, "b l"], x: Float[Array, "b l d"]) -> Int[Array, "b l"]:
        return jnp.where(valid, transforms.nearest(net.table(), x), self.language.pad)

    def nll(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """An upper bound on −log p(text), nats a sequence: the evidence bound of a `bound_steps`-step diffusion.

        KL(q(x_1|w) ‖ N(0, I)) + Σ ½ (SNR(s) − SNR(t)) E‖e(w) − x̂_0(x_t)‖² + E[−log p(w | x_{t_1})] − log p(length)
        (Kingma et al. 2021, eq. 11–13, from the first grid time t_1 on), one noise draw a term. No clamp;
        self-conditioning by two passes, which keeps each term a function of x_t alone.
        """
        net, valid = self.net.bind(params), self._valid(batch.valid)
        tokens = jnp.asarray(batch.tokens)
        x_0 = net.embed(tokens)
        times, earlier = ticks(self.bound_steps)

        def answer_at(index: Array, t: Array) -> tuple[Array, Array]:
            x_t = self.process.marginal(x_0, t).sample(jax.random.fold_in(key, index))
            whole = jnp.full(len(tokens), t)
            answer = self._answer(net, x_t, whole, self._estimate(net, x_t, whole, valid), valid, None)
            return answer, self._x_0_hat(net, answer, x_t, whole)

        def term(total: Array, tick: tuple[Array, Array, Array]) -> tuple[Array, None]:
            index, t, s = tick
            kl = objectives.denoising_kl(self.process, x_0, answer_at(index, t)[1], s, t)
            return total + objectives.sum_over(kl, valid), None

        total = objectives.sum_over(objectives.prior_kl(self.process, x_0), valid)
        total, _ = jax.lax.scan(term, total, (jnp.arange(self.bound_steps - 1), times[:-1], earlier[:-1]))
        answer, x_0_hat = answer_at(jnp.asarray(self.bound_steps - 1), times[-1])
        logits = answer if self.answers == "logits" else net.rounding_logits(x_0_hat)
        total = total + objectives.sum_over(objectives.cross_entropy(logits, tokens), valid)
        if not self.known_length:
            return total
        return total + objectives.length_nll(jnp.asarray(self.language.length_counts), jnp.sum(valid, axis=-1))

    @property
    def _first(self) -> float:
        return 1.0 / self.num_steps

    def _valid(self, valid: Any) -> Bool[Array, "b l"]:
        """Where the text is: everywhere, if PAD is a word."""
        return jnp.asarray(valid) if self.known_length else jnp.ones(valid.shape, bool)

    def _length(self, keys: Keys, asked: Int[Array, "b"]) -> Int[Array, "b"]:
        """The length asked for, or where that is 0 one drawn from the fitted law."""
        law = objectives.length_law(jnp.asarray(self.language.length_counts))
        drawn = Categorical(logits=jnp.broadcast_to(law, (len(asked), len(law)))).sample(keys)
        return jnp.where(asked > 0, asked, drawn)

    def _answer(self, net: Any, x_t: Array, t: Array, previous: Array | None, valid: Array, key: Any) -> Array:
        """What the network says of x_t; its inputs are scaled to unit variance if the vectors' norm is known."""
        if self.embed_norm is not None:
            spread = self.embed_norm / self.embed_dim**0.5
            signal, noise = self.process.signal(t, x_t), self.process.noise(t, x_t)
            x_t = x_t / jnp.sqrt((signal * spread) ** 2 + noise**2)
            previous = None if previous is None else previous / spread
        return net(x_t, 1000.0 * (t - self._first), previous, valid=valid, key=key)

    def _x_0_hat(self, net: Any, answer: Array, x_t: Array, t: Time) -> Float[Array, "b l d"]:
        """The estimate in an answer: the expected word vector, or the vector as `reading` says."""
        if self.answers == "logits":
            return jax.nn.softmax(answer) @ net.table()
        return TO_X_0[self.reading](self.process, answer, x_t, t)

    def _estimate(self, net: Any, x_t: Array, t: Array, valid: Array) -> Array | None:
        """A first x̂_0 for the network to see; None if it is not self-conditioned."""
        if not self.self_conditioning:
            return None
        return self._x_0_hat(net, self._answer(net, x_t, t, None, valid, None), x_t, t)

    def _first_estimate(self, net: Any, x_t: Array, t: Array, valid: Array, key: Key[Array, ""]) -> Array | None:
        """In a share of the steps the first x̂_0, as a constant; else zeros (Chen et al. 2023, algorithm 1)."""
        if not self.self_conditioning:
            return None
        return jax.lax.cond(
            jax.random.uniform(key) < self.self_conditioning,
            lambda: jax.lax.stop_gradient(self._estimate(net, x_t, t, valid)),
            lambda: jnp.zeros_like(x_t),
        )


def _make_net(rngs: Any, **shape: Any) -> EmbeddingDenoiser:
    return EmbeddingDenoiser(**shape, rngs=rngs)
