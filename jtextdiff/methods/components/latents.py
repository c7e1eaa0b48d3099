"""Latents: where the latents of texts lie, the coordinates in which that law is N(0, I), and the ways through them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.diffusion import losses as objectives
from jtextdiff.diffusion import schedules
from jtextdiff.diffusion.distributions import Normal
from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.randomness import Keys
from jtextdiff.methods.components.autoregressive_sampler import Writer, losses_by_word, token_before
from jtextdiff.methods.components.types import Language, check_settings
from jtextdiff.nets.functional import Params
from jtextdiff.sampling.energies import Energy, NoiseAveraged
from jtextdiff.sampling.latent_flow import Descent, descend

Losses = Callable[[Language, Any, Int[Array, "b l"], Float[Array, "b y"]], Float[Array, "b l"]]
"""(language, writer, tokens, what the writer sees of the latent) ↦ −log p of each token given those before it, nats."""


@dataclass(frozen=True, kw_only=True)
class LatentSampler:
    """How a latent is moved to where controls want it, and how the text is written from it."""

    name: str = "greedy"  # or sample, or beam: see methods/writing
    temperature: float = 1.0
    top_p: float = 1.0
    beams: int = 1
    sharpen: float = 1.0  # of a model with a condition: how much the label counts
    law: str = "affine"  # of latents before they are moved: the one fitted, or "standard", N(0, I)
    tau: float = 5.025  # the flow's time; LatentOps' schedule comes to 5.025
    averaged: int = 0  # noises that an energy is averaged over on the way, for the posterior; 0: frozen, as published

    def __post_init__(self) -> None:
        if not 0 <= self.tau <= 1e6 or self.averaged < 0:
            raise ValueError(
                f"sampler.tau must be from 0 to a million, averaged at least 0: {self.tau}, {self.averaged}."
            )
        check_settings(self, positive=("beams",), choices={"law": ("affine", "standard")})
        self.writer  # noqa: B018, its own checks

    @property
    def writer(self) -> Writer:
        return Writer(name=self.name, temperature=self.temperature, top_p=self.top_p, beams=self.beams)

    def tellings(self, label: Int[Array, "b"] | None) -> list[tuple[Int[Array, "b"] | None, float]]:
        """What the decoder is told, and what each of its answers weighs: the label, and no label if it is sharpened."""
        if label is None or self.sharpen == 1:
            return [(label, 1.0)]
        return [(label, self.sharpen), (None, 1 - self.sharpen)]

    def first(self, law: Params, keys: Keys, dim: int) -> Float[Array, "b z"]:
        """Latents to begin with, in the coordinates in which the law is N(0, I)."""
        drawn = standard(jnp.zeros((len(keys), dim))).sample(keys)
        return whitened(law, drawn) if self.law == "standard" else drawn

    def moved(
        self,
        energy: Energy,
        epsilon: Float[Array, "b z"],
        *,
        tau: Float[Array, ""] | float,
        until: Float[Array, ""] | float = 1.0,
        keep: Float[Array, ""] | float = 0.0,
        frames: int = 0,
    ) -> Descent:
        """Downhill for the time `tau`, or until what is wanted has the probability `until`; see `flow.descend`."""
        schedule, followed = schedules.constant(2 * tau), energy
        if self.averaged:
            half = jax.random.normal(jax.random.key(0), ((self.averaged + 1) // 2, epsilon.shape[-1]))
            noises = jnp.concatenate([half, -half])
            followed = NoiseAveraged(energy=energy, noises=noises, process=Gaussian(log_alpha_bar=schedule))
        how = {"enough": -jnp.log(until), "keep": keep, "frames": frames, "wanted": energy}
        return descend(followed, epsilon, schedule, **how)


class Rewrite(NamedTuple):
    """Texts rewritten, and what has become of each: all that is told of an edit."""

    tokens: Int[Array, "b l"]
    before: Float[Array, "b parts"]  # nats: −log p of each thing wanted, where the text's latent was …
    after: Float[Array, "b parts"]  # … and where it has come to
    moved: Float[Array, "b"]  # the distance between, in standard deviations of the initial law
    steps: Int[Array, "b"]
    solved: Bool[Array, "b"]  # whether the way was found; else the latent is the text's own


FITS = ("likelihood", "adversarial")
"""How an affine law comes to be that of latents: made likely under it, or told by a critic from its draws."""

SELDOM = 1 / 8
"""What a step of the adversarial law weighs beside one of its critic: the release takes one in eight."""


def fresh_law(dim: int, fit: str = "likelihood") -> Params:
    """The parameters of an affine law: N(0, I); to be fitted adversarially N(0, I/3), as the release's random matrix
    is in the mean, with a critic that tells nothing."""
    law = {"scale": jnp.zeros((dim, dim)), "shift": jnp.zeros(dim)}
    if fit == "likelihood":
        return law
    critic = {"weights": jnp.zeros(dim), "bias": jnp.zeros(())}
    return {**law, "scale": 0.5 * math.log(3) * jnp.eye(dim), "critic": critic}


def fit_loss(law: Params, z: Float[Array, "b z"], key: Key[Array, ""]) -> Float[Array, "b"]:
    """What fits the law to z of texts, and a critic if there is one; zero, with a gradient to those two alone.

    −log p(z), nats; or as LatentOps fits its law, a GAN (Liu et al. 2022, §3.4) with an affine generator and a linear
    critic, both by the binary cross-entropy of the critic's answer.
    """
    z = jax.lax.stop_gradient(z)
    if "critic" in law:
        made = coloured(law, jax.random.normal(key, z.shape))
        tell = lambda critic, z: z @ critic["weights"] + critic["bias"]
        own, other = tell(law["critic"], z), tell(law["critic"], jax.lax.stop_gradient(made))
        taken_in = tell(jax.lax.stop_gradient(law["critic"]), made)
        loss = jax.nn.softplus(-own) + jax.nn.softplus(other) + SELDOM * jax.nn.softplus(-taken_in)
    else:
        loss = law_nll(law, z)
    return loss - jax.lax.stop_gradient(loss)


def whitened(law: Params, z: Float[Array, "b z"]) -> Float[Array, "b z"]:
    """ε = A z − c, which is N(0, I) where z has the law; A is lower triangular."""
    return z @ _matrix(law).T - law["shift"][None]


def coloured(law: Params, epsilon: Float[Array, "b z"]) -> Float[Array, "b z"]:
    """z = A⁻¹ (ε + c), the way back."""
    return jax.scipy.linalg.solve_triangular(_matrix(law), (epsilon + law["shift"][None]).T, lower=True).T


def law_nll(law: Params, z: Float[Array, "b z"]) -> Float[Array, "b"]:
    """−log p(z), nats."""
    squares = whitened(law, z) ** 2 + math.log(2 * math.pi)
    return 0.5 * jnp.sum(squares, axis=-1) - jnp.sum(jnp.diag(law["scale"]))


def standard(z: Float[Array, "b z"]) -> Normal:
    """N(0, I)."""
    return Normal(mean=jnp.zeros_like(z), std=jnp.ones(()))


def risen(progress: Float[Array, "*b"], first: float, last: float) -> Float[Array, "*b"]:
    """What a nat of divergence counts: from 0 to `first` in the first quarter, to `last` in the first half of the
    last."""
    values = jnp.asarray([0, first, first, last])
    return jnp.asarray(jnp.interp(progress, jnp.asarray([0, 0.25, 0.75, 0.875]), values))


def importance_bound(
    law: Normal, log_joint: Callable[[Float[Array, "b z"]], Float[Array, "b"]], key: Key[Array, ""], num: int
) -> Float[Array, "b"]:
    """−log (1/num) Σ p(text, z) / q(z | text) over z of the law q, nats (Burda et al. 2016, eq. 8)."""

    def weight(key: Key[Array, ""]) -> Float[Array, "b"]:
        z = law.sample(key)
        return log_joint(z) - jnp.sum(law.log_prob(z), axis=-1)

    return math.log(num) - jax.nn.logsumexp(jax.lax.map(weight, jax.random.split(key, num)), axis=0)


def losses_at_once(
    language: Language, writer: Any, tokens: Int[Array, "b l"], z: Float[Array, "b y"]
) -> Float[Array, "b l"]:
    """`Losses` in one reading, as in training."""
    return writer.per_word(objectives.cross_entropy, (tokens,), token_before(language, tokens), z)


def losses_one_by_one(
    language: Language, writer: Any, tokens: Int[Array, "b l"], z: Float[Array, "b y"]
) -> Float[Array, "b l"]:
    """The same word by word, as the sampler has it."""
    read = lambda last, position, kept: writer.step(last, z, position, kept)
    return losses_by_word(language, tokens, read, writer.empty(z, tokens.shape[1]))


def _matrix(law: Params) -> Float[Array, "z z"]:
    """A: below the diagonal the scale's own entries, on it their exponentials."""
    return jnp.tril(law["scale"], -1) + jnp.diag(jnp.exp(jnp.diag(law["scale"])))


LITTLE = 1.0
"""Nats: a latent with less divergence than this says next to nothing of its text."""


def collapse_warning(divergence: float) -> str | None:
    """A warning where latents hold next to nothing, else None."""
    if divergence >= LITTLE:
        return None
    return (
        f"warning: the latent holds {divergence:.2g} nats of a text, next to nothing: controls will not reach "
        "words. Train with a smaller method.beta and method.beta_first, or a larger method.free_bits."
    )
