"""AdamW or Muon with warm-up and decay, clipping, and an exponential moving average of the parameters."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jaxtyping import Array, Int

from jtextdiff.nets.functional import Params, has_adapters, is_adapter

DECAYS = ("constant", "linear", "cosine", "cooldown")


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """AdamW (Loshchilov & Hutter 2019), or Muon for some matrices, with a learning rate over `decay_steps`.

    `matrix_optimizer`: of the matrices inside the transformer's blocks. "muon" makes their updates orthogonal (Jordan
    2024), with the RMS of an Adam update (Liu et al. 2025, eq. 4); all other parameters use Adam at the same rate.
    `decay`: constant; linear or cosine to zero; or cooldown, constant until the last quarter and then linear to zero.
    """

    matrix_optimizer: str = "adam"
    peak: float = 2e-3  # learning rate after warm-up
    warmup: int = 100  # steps of linear warm-up
    decay: str = "cooldown"
    decay_steps: int | None = None  # None: the run's num_steps when it is first started
    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-8
    weight_decay: float = 0.01
    clip: float | None = 1.0  # largest global norm of the gradient; None: unlimited
    accumulate: int = 1  # microbatches per step
    ema: float = 0.998  # decay of the moving average; 0: none
    ema_warmup: bool = True  # decay faster at first: min(ema, (1 + step)/(10 + step))

    def __post_init__(self) -> None:
        for field, names in (("matrix_optimizer", ("adam", "muon")), ("decay", DECAYS)):
            if getattr(self, field) not in names:
                raise ValueError(f"{field} must be one of {names}, got {getattr(self, field)!r}.")
        for field in ("ema", "b1", "b2"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(f"{field} must be in [0, 1), got {getattr(self, field)}.")
        for field in ("peak", "eps", "clip"):
            if getattr(self, field) is not None and not 0 < getattr(self, field) < math.inf:
                raise ValueError(f"{field} must be a number above 0, got {getattr(self, field)}.")
        if self.decay_steps is not None and self.decay_steps < 1:
            raise ValueError(f"decay_steps must be at least 1, or None, got {self.decay_steps}.")
        for field in ("warmup", "weight_decay"):
            if not 0 <= getattr(self, field) < math.inf:
                raise ValueError(f"{field} must be a number of at least 0, got {getattr(self, field)}.")
        if self.accumulate < 1:
            raise ValueError(f"accumulate must be at least 1, got {self.accumulate}.")

    def learning_rate(self, step: Any) -> Array:
        """Returns the learning rate of the step after `step` finished ones."""
        if self.decay != "constant" and not self.decay_steps:
            raise ValueError(f"optim.decay={self.decay!r} needs optim.decay_steps, the number of steps until it ends.")
        steps = self.decay_steps or 1
        start = {"linear": 0.0, "cosine": 0.0, "cooldown": 0.75}.get(self.decay, 1.0)
        fraction = jnp.clip((step / steps - start) / max(1 - start, 1e-9), 0.0, 1.0)
        factor = {"constant": 1.0, "cosine": 0.5 * (1 + jnp.cos(jnp.pi * fraction))}.get(self.decay, 1 - fraction)
        return self.peak * jnp.minimum(1.0, (step + 1) / max(self.warmup, 1)) * factor

    def transform(self, adapters: bool = False) -> optax.GradientTransformation:
        """Returns the optax transformation: clipping, then Adam or Muon; of `adapters` alone if there are any."""
        if adapters:
            return optax.partition({"trained": self.transform(), "frozen": optax.set_to_zero()}, _trained_of)
        clip = optax.identity() if self.clip is None else optax.clip_by_global_norm(self.clip)
        adam = optax.adamw(
            self.learning_rate,
            b1=self.b1,
            b2=self.b2,
            eps=self.eps,
            weight_decay=self.weight_decay,
            mask=_weight_decay_mask,
        )
        if self.matrix_optimizer == "adam":
            return optax.chain(clip, adam)
        muon = optax.contrib.muon(self.learning_rate, weight_decay=self.weight_decay, consistent_rms=0.2)
        return optax.chain(clip, optax.partition({"adam": adam, "muon": muon}, _optimizer_of))

    def init(self, params: Params) -> Any:
        return self.transform(has_adapters(params)).init(params)

    def update(self, gradient: Params, state: Any, params: Params) -> tuple[Any, Any]:
        """Returns the parameters and the optimizer state after one step."""
        updates, state = self.transform(has_adapters(params)).update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    def average(self, ema: Params, params: Params, step: Int[Array, ""]) -> Params:
        """Returns the moving average after `step` steps. Tied weights are one leaf, and so are averaged once."""
        decay = jnp.minimum(self.ema, (1 + step) / (10 + step)) if self.ema_warmup else self.ema
        trained = _trained_of(params) if has_adapters(params) else jax.tree.map(lambda leaf: "trained", params)

        def average(old: Array, new: Array, label: str) -> Array:
            return decay * old + (1 - decay) * new if label == "trained" else new

        return jax.tree.map(average, ema, params, trained)


def _trained_of(params: Params) -> Any:
    """Returns "trained" for adapters and "frozen" for all other arrays."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: "trained" if is_adapter(path) else "frozen", params)


def _optimizer_of(params: Params) -> Any:
    """Returns "muon" for the matrices of the blocks and "adam" for all other arrays, projections and embeddings too."""

    def name(path: tuple[Any, ...], leaf: Array) -> str:
        in_block = any(getattr(part, "key", None) == "blocks" for part in path)
        return "muon" if leaf.ndim == 2 and in_block else "adam"

    return jax.tree_util.tree_map_with_path(name, params)


def _weight_decay_mask(params: Params) -> Any:
    """Returns True for matrices, except those of a frozen base; False for biases, scales and vectors."""

    def decays(path: tuple[Any, ...], leaf: Array) -> bool:
        return leaf.ndim > 1 and getattr(path[0], "key", None) != "frozen"

    return jax.tree_util.tree_map_with_path(decays, params)
