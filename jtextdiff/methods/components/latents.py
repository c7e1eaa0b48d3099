"""Latent sampling and flow of text VAEs, the β schedule and the importance-weighted bound."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key
from scipy.sparse import csr_matrix

from jtextdiff.diffusion import schedules
from jtextdiff.diffusion.distributions import Normal
from jtextdiff.diffusion.gaussian import Gaussian
from jtextdiff.diffusion.randomness import Keys
from jtextdiff.methods.components.affine_prior import standard_normal, whitened
from jtextdiff.methods.components.autoregressive_sampler import DecodingSettings
from jtextdiff.methods.components.types import check_settings
from jtextdiff.nets.functional import Params
from jtextdiff.sampling.energies import Energy, NoiseAveraged, energy_terms
from jtextdiff.sampling.latent_flow import FlowResult, descend
from jtextdiff.sampling.phrases import WordGuide
from jtextdiff.sampling.rectified_flow import Field

MIN_DIVERGENCE = 1.0
"""Nats: with a smaller KL from the prior, a latent has next to no information about its text."""


class FlowLimits(NamedTuple):
    """How far latents move along a flow, along which one, and how they are decoded."""

    max_time: Float[Array, ""] | float | None  # of the flow down the energy; None: until the probability is reached
    target_probability: Float[Array, "*s"] | float = 1.0  # of all controls together, at which a latent stops, in order
    source_pull: Float[Array, ""] | float = 0.0
    field: Field | None = None  # followed at the same time
    decoded: Int[Array, "d"] | None = None  # number of the stop of each text that is written; None: all, once
    guide: WordGuide | None = None  # of the writing, with a strength and a hold for each of these texts


class Rewrite(NamedTuple):
    """Rewritten texts, in the order of `FlowLimits.decoded`, and how far their latents moved."""

    tokens: Int[Array, "b d l"]
    before: Float[Array, "b d parts"]  # −log p of each part of the energy, nats, at the latent of the source …
    after: Float[Array, "b d parts"]  # … and at the stop
    distance: Float[Array, "b d"]  # between the two, in standard deviations of the prior
    steps: Int[Array, "b d"]  # of the solver, from the stop before
    solved: Bool[Array, "b d"]  # whether the flow was solved; if not, the latent is that of the stop before


@dataclass(frozen=True, kw_only=True)
class LatentSampler:
    """Settings of latent sampling: the initial latent, the flow that controls move it along, and the decoding."""

    name: str = "greedy"  # or sample, or beam: see DecodingSettings
    temperature: float = 1.0
    top_p: float = 1.0
    beams: int = 1
    guidance_scale: float = 1.0  # of classifier-free guidance, in a model with a condition
    prior: str = "affine"  # of latents before they are moved: the fitted prior, or "standard", N(0, I)
    max_time: float = 5.025  # of the flow; LatentOps' schedule amounts to 5.025
    num_noise_averages: int = 0  # noises over which energies are averaged, for the posterior; 0: none, as published

    def __post_init__(self) -> None:
        if not 0 <= self.max_time <= 1e6 or self.num_noise_averages < 0:
            raise ValueError(
                f"sampler.max_time must be from 0 to a million, and num_noise_averages at least 0; "
                f"got {self.max_time} and {self.num_noise_averages}."
            )
        check_settings(self, positive=("beams",), choices={"prior": ("affine", "standard")})
        self.decoding_settings()  # checks its own fields

    def decoding_settings(self) -> DecodingSettings:
        """Returns the settings of the decoder. Raises ValueError for those that do not fit together."""
        return DecodingSettings(name=self.name, temperature=self.temperature, top_p=self.top_p, beams=self.beams)

    def guidance_terms(self, label: Int[Array, "b"] | None) -> list[tuple[Int[Array, "b"] | None, float]]:
        """Returns the labels (None: no label) on which the decoder conditions, with the weight of each one's logits.

        The logits are l(no label) + guidance_scale · (l(label) − l(no label)) (Ho & Salimans 2022).
        """
        if label is None or self.guidance_scale == 1:
            return [(label, 1.0)]
        return [(label, self.guidance_scale), (None, 1 - self.guidance_scale)]

    def prior_sample(self, prior: Params, keys: Keys, dim: int) -> Float[Array, "b z"]:
        """Samples initial latents, in whitened coordinates."""
        sample = standard_normal(jnp.zeros((len(keys), dim))).sample(keys)
        return whitened(prior, sample) if self.prior == "standard" else sample

    def flow(
        self,
        energy: Energy,
        epsilon: Float[Array, "b z"],
        limits: FlowLimits,
        *,
        num_frames: int = 0,
    ) -> FlowResult:
        """Moves whitened latents down the energy, and along a field if there is one. See `latent_flow.descend`."""
        schedule, followed = None if limits.max_time is None else schedules.constant(2 * limits.max_time), energy
        if self.num_noise_averages and schedule is not None:
            half = jax.random.normal(jax.random.key(0), ((self.num_noise_averages + 1) // 2, epsilon.shape[-1]))
            noises = jnp.concatenate([half, -half])
            followed = NoiseAveraged(energy=energy, noises=noises, process=Gaussian(log_alpha_bar=schedule))
        return descend(
            followed,
            epsilon,
            schedule,
            energy_threshold=-jnp.log(limits.target_probability),
            source_pull=limits.source_pull,
            num_frames=num_frames,
            stop_energy=energy,
            field=limits.field,
        )

    def rewrite(
        self,
        decode: Callable[[Float[Array, "n z"], WordGuide | None], Int[Array, "n l"]],
        source: Float[Array, "b z"],
        energy: Energy,
        limits: FlowLimits,
    ) -> Rewrite:
        """Moves latents along the energy's flow, and decodes them at the target probabilities, all at once.

        Without a time, the way to a stop goes on from the one before; with one, each begins at the source.
        """
        before, targets = energy_terms(energy, source, 0.0), jnp.atleast_1d(jnp.asarray(limits.target_probability))

        def stop(start: Array, target: Array) -> tuple[Array, Any]:
            end = self.flow(energy, start, limits._replace(target_probability=target))
            distance, after = jnp.linalg.norm(end.z - source, axis=-1), energy_terms(energy, end.z, 0.0)
            following = end.z if limits.max_time is None else source
            return following, (end.z, before, after, distance, end.steps, end.solved)

        ends = jax.lax.scan(stop, source, targets)[1]
        z, *others = ends if limits.decoded is None else jax.tree.map(lambda leaf: leaf[limits.decoded], ends)
        tokens = decode(jnp.concatenate(z), limits.guide and limits.guide.repeated(len(z)))
        tokens = tokens.reshape(*z.shape[:2], -1)
        return Rewrite(*(jnp.swapaxes(leaf, 0, 1) for leaf in (tokens, *others)))


ENCODER, DECODER, PRIOR = "reader", "writer", "law"
"""Parts of a text VAE's parameters, under the names that checkpoints store."""


class LabelledLatents(NamedTuple):
    """Encoded texts with the value of one label each; latents are whitened."""

    samples: Float[Array, "n s z"]  # of q(z | text)
    mean: Float[Array, "n z"]
    kl: Float[Array, "n"]  # from N(0, I), nats
    value: Int[np.ndarray, "n"]
    source_samples: Float[Array, "n s z"] | None = None  # of q(z | the text of which this one is an edit), if known
    occurrences: csr_matrix | None = None  # which tokens occur in each text, 1 or 0, [n, v]


def beta_schedule(progress: Float[Array, "*b"], first: float, last: float) -> Float[Array, "*b"]:
    """Returns the weight β of the KL: it rises from 0 to `first` in the first quarter of training.

    In the first half of the last quarter it changes to `last`.
    """
    values = jnp.asarray([0, first, first, last])
    return jnp.asarray(jnp.interp(progress, jnp.asarray([0, 0.25, 0.75, 0.875]), values))


def importance_bound(
    draw: Callable[[Float[Array, "b z"]], tuple[Float[Array, "b z"], Normal]],
    log_joint: Callable[[Float[Array, "b z"]], Float[Array, "b"]],
    key: Key[Array, ""],
    num: int,
    shape: tuple[int, int],
) -> Float[Array, "b"]:
    """Returns −log (1/num) Σ p(text, z) / q(z | text) over z ~ q, nats (Burda et al. 2016, eq. 8).

    `draw` maps noise of this `shape` to z and the normals that it is drawn from: see `latent_levels.Posterior`.
    """

    def log_weight(key: Key[Array, ""]) -> Float[Array, "b"]:
        z, normal = draw(jax.random.normal(key, shape))
        return log_joint(z) - jnp.sum(normal.log_prob(z), axis=-1)

    return math.log(num) - jax.nn.logsumexp(jax.lax.map(log_weight, jax.random.split(key, num)), axis=0)


def collapse_warnings(kl: Mapping[str, float]) -> list[str]:
    """Returns warnings of posterior collapse: of the whole latent, or of each level whose KL is small.

    `kl` holds the KL from the prior in nats per text, as `kl` and, of level l, as `kl_l`; other names are ignored.
    """
    remedy = "Train with a smaller method.beta and method.beta_first, or a larger method.free_bits"
    if kl["kl"] < MIN_DIVERGENCE:
        return [
            f"warning: latents have {kl['kl']:.2g} nats of information about a text (posterior collapse), so controls "
            f"cannot change its words. {remedy}."
        ]
    dead = {name.removeprefix("kl_"): nats for name, nats in kl.items() if name.startswith("kl_")}
    return [
        f"warning: level {level} of the latent has {nats:.2g} nats of information about a text. "
        f"{remedy} or method.levels.free_nats, or fewer levels."
        for level, nats in dead.items()
        if nats < MIN_DIVERGENCE
    ]
