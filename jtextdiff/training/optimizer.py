"""Optimisation: AdamW or Muon with warm-up and decay, clipping, and a running mean of the parameters."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jaxtyping import Array, Int

from jtextdiff.nets.functional import Params

DECAYS = ("constant", "linear", "cosine", "cooldown")


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """AdamW (Loshchilov & Hutter 2019) and its learning rate over `decay_steps`.

    `matrices`: how those inside the transformer's blocks move. "muon" makes every step orthogonal (Jordan 2024), of
    the size that an Adam step has (Liu et al. 2025, eq. 4); all else is Adam's at the same rate.
    `decay`: constant; linear or cosine to zero; or cooldown, constant until the last quarter and then linear.
    """

    matrices: str = "adam"
    peak: float = 2e-3
    warmup: int = 100
    decay: str = "cooldown"
    decay_steps: int | None = None  # None: the run's num_steps when it is first started
    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-8
    weight_decay: float = 0.01
    clip: float | None = 1.0  # largest global norm of the gradient; None: unlimited
    accumulate: int = 1  # microbatches a step
    ema: float = 0.998
    ema_warmup: bool = True  # the mean forgets faster at first: min(ema, (1 + step)/(10 + step))

    def __post_init__(self) -> None:
        for field, names in (("matrices", ("adam", "muon")), ("decay", DECAYS)):
            if getattr(self, field) not in names:
                raise ValueError(f"{field} must be one of {names}, got {getattr(self, field)!r}.")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be in [0, 1), got {self.ema}.")
        if self.accumulate < 1:
            raise ValueError(f"accumulate must be at least 1, got {self.accumulate}.")

    def learning_rate(self, step: Any) -> Array:
        """The rate of the step after `step` finished ones."""
        steps = self.decay_steps or 1
        start = {"linear": 0.0, "cosine": 0.0, "cooldown": 0.75}.get(self.decay, 1.0)
        share = jnp.clip((step / steps - start) / max(1 - start, 1e-9), 0.0, 1.0)
        fall = {"constant": 1.0, "cosine": 0.5 * (1 + jnp.cos(jnp.pi * share))}.get(self.decay, 1 - share)
        return self.peak * jnp.minimum(1.0, (step + 1) / max(self.warmup, 1)) * fall

    def transform(self) -> optax.GradientTransformation:
        clip = optax.identity() if self.clip is None else optax.clip_by_global_norm(self.clip)
        adam = optax.adamw(
            self.learning_rate,
            b1=self.b1,
            b2=self.b2,
            eps=self.eps,
            weight_decay=self.weight_decay,
            mask=_decayed,
        )
        if self.matrices == "adam":
            return optax.chain(clip, adam)
        muon = optax.contrib.muon(self.learning_rate, weight_decay=self.weight_decay, consistent_rms=0.2)
        return optax.chain(clip, optax.partition({"adam": adam, "muon": muon}, _kinds))

    def init(self, params: Params) -> Any:
        return self.transform().init(params)

    def update(self, gradient: Params, state: Any, params: Params) -> tuple[Any, Any]:
        """One step: new parameters and optimiser state."""
        updates, state = self.transform().update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    def average(self, ema: Params, params: Params, step: Int[Array, ""]) -> Params:
        """The running mean after `step` steps. Tied weights are one leaf, and so are averaged once."""
        keep = jnp.minimum(self.ema, (1 + step) / (10 + step)) if self.ema_warmup else self.ema
        return jax.tree.map(lambda old, new: keep * old + (1 - keep) * new, ema, params)


def _kinds(params: Params) -> Any:
    """Which of the two moves an array: Muon the matrices of the blocks, Adam all else, doors and tables included."""
    inside = lambda path: any(getattr(part, "key", None) == "blocks" for part in path)
    kind = lambda path, leaf: "muon" if leaf.ndim == 2 and inside(path) else "adam"
    return jax.tree_util.tree_map_with_path(kind, params)


def _decayed(params: Params) -> Any:
    """Weight decay is for matrices: not for biases, scales and vectors, and not for what another run has learned."""
    still = lambda path: getattr(path[0], "key", None) == "frozen"
    return jax.tree_util.tree_map_with_path(lambda path, leaf: leaf.ndim > 1 and not still(path), params)
