"""MDLM/MD4 masked diffusion in continuous time.

Sahoo et al. (2024, MDLM) and Shi et al. (2024, MD4). Tokens are replaced by MASK; the network predicts them. An
unmasked token never changes, and MASK is never predicted: both hold by construction. The share of masked tokens
implies the time (Ou et al. 2025), so that the network needs no time input; one that has it, as in SEDD (Lou et al.
2024), reads the time of this share.
"""

import dataclasses
import functools
from dataclasses import dataclass
from importlib.util import find_spec

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion.elbo import MaskedLosses, any_order_bound, any_order_loss, mean_over_strata, planner_weighted
from jtextdiff.diffusion.lengths import length_nll, sample_length
from jtextdiff.diffusion.losses import sum_over
from jtextdiff.diffusion.masking import reveal_rate
from jtextdiff.diffusion.randomness import Keys, fold_in, stratified
from jtextdiff.diffusion.schedules import TOKEN_SCHEDULES, Schedule
from jtextdiff.methods.components.masked_denoiser import (
    MaskedDenoiser,
    any_order_bound_name,
    first_hidden,
    masked_denoiser_net,
    unmask,
)
from jtextdiff.methods.components.types import (
    Given,
    Metrics,
    Sample,
    TextSpec,
    check_numbers,
    check_settings,
    nothing_given,
)
from jtextdiff.nets.denoisers import Head
from jtextdiff.nets.functional import Net, Params
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.denoiser_transforms import LogitShaping
from jtextdiff.sampling.energies import Energy
from jtextdiff.sampling.masked_samplers import Unmasking, nll_in_order
from jtextdiff.sampling.masked_state import Hidden, MaskedState


@dataclass(frozen=True, kw_only=True)
class Masked:
    """A bidirectional transformer that predicts masked tokens, given the length of the text if it `reads_length`."""

    text_spec: TextSpec = TextSpec()
    trunk: Transformer = Transformer()
    reads_length: bool = True  # the network has an embedding of the text's length; published ones have none
    head: Head = Head()
    time_input: str = "none"  # what the network reads of the time: "sigma", −log ᾱ, or "t", which is 1 − ᾱ
    param_dtype: str = "float32"  # of the stored parameters; "bfloat16": half the memory, for models that do not train
    lora_rank: int = 0  # of adapters of the blocks' kernels, which alone are trained; 0: all parameters are
    masking: str = "fixed_count"  # in training: exactly k of L tokens; "bernoulli": each independently, as published
    self_conditioning: float = 0.0  # share of the training steps in which the network reads its own hidden states
    loss_weighting: str = "bound"  # of masked tokens in training; "words": all equal; "planner": more for likely ones
    schedule: str = "reciprocal"
    bound_points: int = 16  # numbers of masked tokens per text at which the bound is estimated
    sampler: Unmasking = Unmasking()

    prefix_only = False
    guided_by_words = True

    def __post_init__(self) -> None:
        choices = {
            "time_input": ("none", "sigma", "t"),
            "masking": ("fixed_count", "bernoulli"),
            "loss_weighting": ("bound", "words", "planner"),
            "schedule": tuple(TOKEN_SCHEDULES),
            "param_dtype": ("float32", "bfloat16"),
        }
        check_settings(self, positive=("bound_points",), choices=choices)
        check_numbers(self, ("lora_rank",), shares=("self_conditioning",))
        if self.lora_rank and find_spec("qwix") is None:
            raise ValueError("lora_rank needs the package qwix: pip install -e '.[lora]'.")
        if self.lora_rank and (self.trunk.scan or self.trunk.remat):
            raise ValueError("lora_rank does not go with trunk.scan or trunk.remat, in which qwix finds no kernels.")

    @property
    def log_alpha_bar(self) -> Schedule:
        return TOKEN_SCHEDULES[self.schedule](1000)

    @functools.cached_property
    def net(self) -> Net:
        return masked_denoiser_net(
            self.text_spec,
            self.trunk,
            timed=self.time_input != "none",
            reads_length=self.reads_length,
            self_conditioned=self.self_conditioning > 0,
            head=self.head,
            param_dtype=self.param_dtype,
            lora_rank=self.lora_rank,
        )

    @property
    def bound(self) -> str:
        return any_order_bound_name(self.bound_points, self.sampler.description, self.self_conditioning > 0)

    def init(self, key: Key[Array, ""]) -> Params:
        return self.net.init(key)

    def loss(self, params: Params, key: Key[Array, ""], batch: Batch) -> tuple[Float[Array, "b"], Metrics]:
        """Estimates the bound on −log p(tokens), divided by the mean length, at one stratified time per text.

        "bernoulli": −ᾱ′/(1 − ᾱ) Σ −log p(x_0 | x_t) over masked tokens (Sahoo et al. 2024, eq. 10). "fixed_count": L
        times the mean of −log p over k of L tokens, which has the same mean under any schedule, without large weights
        at small t. A `loss_weighting` of "words" multiplies it by twice the masked share, so that all masked tokens
        weigh nearly the same. That is no bound, and gives texts with many masked tokens more weight. "planner": see
        `planner_weighted`.
        """
        time_key, mask_key, dropout_key = (jax.random.fold_in(key, purpose) for purpose in range(3))
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        losses = self._denoiser(params).losses(tokens, valid, dropout_key, two_passes=self.two_passes(key))
        if self.loss_weighting == "planner":
            losses = planner_weighted(losses)
        t = stratified(time_key, len(tokens))
        if self.masking == "fixed_count":
            length = jnp.sum(valid, axis=-1)
            nats, masked_share = any_order_loss(losses, mask_key, valid, t), jnp.ceil(t * length) / (length + 1)
        else:
            nats, masked_share = self._bound_at(losses, mask_key, valid, t), -jnp.expm1(self.log_alpha_bar(t))
        loss = nats / self.text_spec.mean_length
        name = "weighted_loss" if self.loss_weighting == "planner" else "bound"
        return (2 * masked_share * loss if self.loss_weighting == "words" else loss), {name: loss}

    def two_passes(self, key: Key[Array, ""]) -> Bool[Array, ""]:
        """Returns whether the network reads its own hidden states in the training step of this key."""
        return jax.random.uniform(jax.random.fold_in(key, 3)) < self.self_conditioning

    def nll(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """Returns an upper bound on −log p(text), nats per sequence: `any_order_bound` plus −log p(length).

        It has the mean of the loss under any schedule, with far less variance. It bounds texts that are unmasked one by
        one in random order, not those of the other samplers; see `nll_in_order`.
        """
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        losses = self._denoiser(params).losses(tokens, valid)
        return any_order_bound(losses, key, valid, self.bound_points) + self._length_nll(valid)

    def continuation_nll(
        self, params: Params, key: Key[Array, ""], batch: Batch, scored: Bool[Array, "b l"]
    ) -> Float[Array, "b"]:
        """Returns an upper bound on −log p(the tokens that are scored | all others and the length), nats.

        It is `any_order_bound` of these tokens, and exact for one of them.
        """
        losses = self._denoiser(params).losses(jnp.asarray(batch.tokens), jnp.asarray(batch.valid))
        return any_order_bound(losses, key, jnp.asarray(scored), self.bound_points)

    def nll_in_order(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """Returns −log p(text) if its length is drawn first, then its tokens in the order of the sampler; exact.

        At temperature 1, without top-p and corrections; nats per sequence. Only of a sampler that `has_order`. Here an
        unknown word is a token like others, which `sample` never draws.
        """
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        length = jnp.sum(valid, axis=-1)
        denoiser = self._denoiser(params)._replace(text_spec=dataclasses.replace(self.text_spec, unk=-1))
        given = nothing_given(*tokens.shape)
        start, predict = denoiser.start(given, length, LogitShaping())
        state = MaskedState.start(start.tokens, start.masked, self._first_hidden(start.tokens))
        return nll_in_order(self.sampler, self.log_alpha_bar, predict, state, tokens) + self._length_nll(valid)

    @property
    def bound_check(self) -> str:
        return f"bound in continuous time, {self.bound_points} times a text"

    def nll_check(self, params: Params, key: Key[Array, ""], batch: Batch) -> Float[Array, "b"]:
        """Estimates the same bound as the "bernoulli" loss does, by a mean over times instead of over masked counts."""
        tokens, valid = jnp.asarray(batch.tokens), jnp.asarray(batch.valid)
        losses = self._denoiser(params).losses(tokens, valid)

        def bound_at(t: Float[Array, "b"], key: Key[Array, ""]) -> Float[Array, "b"]:
            return self._bound_at(losses, key, valid, t)

        return mean_over_strata(bound_at, key, self.bound_points, (len(tokens),)) + self._length_nll(valid)

    def sample_lengths(self, params: Params, keys: Keys, given: Given) -> Int[Array, "b"]:
        """Returns the given lengths; the others are drawn from the length distribution of the training text."""
        return sample_length(jnp.asarray(self.text_spec.length_counts), fold_in(keys, 1), given.length)

    def sample(
        self, params: Params, keys: Keys, given: Given, *, energy: Energy | None = None, keep_path: bool = False
    ) -> Sample:
        """Unmasks tokens until none is masked; fixed tokens are unmasked from the start."""
        length = self.sample_lengths(params, keys, given)
        start, predict = self._denoiser(params).start(given, length, self.sampler.shaping, energy)
        state = MaskedState.start(start.tokens, start.masked, self._first_hidden(start.tokens))
        return unmask(self.sampler, self.log_alpha_bar, predict, keys, state, keep_path=keep_path)

    def token_distribution(self, params: Params, given: Given) -> Float[Array, "b v"] | None:
        """Returns log p of the one missing token; None if it is revised by hidden states of the step before."""
        settings = self.sampler
        if self.self_conditioning and settings.revises:
            return None
        start, predict = self._denoiser(params).start(given, given.length, settings.shaping)
        return start.first_masked(predict(start.tokens, 1.0, self._first_hidden(start.tokens))[0])

    def _first_hidden(self, tokens: Int[Array, "b l"]) -> Hidden:
        return first_hidden(self.trunk, tokens, self.self_conditioning > 0)

    def _denoiser(self, params: Params) -> MaskedDenoiser:
        return MaskedDenoiser(self.net.bind(params), self.text_spec, self.self_conditioning > 0, self.time_input)

    def _bound_at(
        self, losses: MaskedLosses, key: Key[Array, ""], valid: Bool[Array, "b l"], t: Float[Array, "b"]
    ) -> Float[Array, "b"]:
        """Estimates −ᾱ′/(1 − ᾱ) Σ −log p(x_0 | x_t) over the tokens that are masked at t, nats per text."""
        masked_share = -jnp.expm1(self.log_alpha_bar(t))
        masked = valid & (jax.random.uniform(key, valid.shape) < masked_share[:, None])
        return reveal_rate(self.log_alpha_bar, t) * sum_over(losses(masked), masked)

    def _length_nll(self, valid: Bool[Array, "b l"]) -> Float[Array, "b"]:
        return length_nll(jnp.asarray(self.text_spec.length_counts), jnp.sum(valid, axis=-1))
