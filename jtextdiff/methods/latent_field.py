"""Latent fields: learned ODEs between the latents of a label's values, fitted to few labelled texts."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.diffusion import schedules
from jtextdiff.diffusion.randomness import stratified
from jtextdiff.methods.components.latents import PRIOR, LabelledLatents
from jtextdiff.methods.components.types import TextSpec, check_numbers, check_settings
from jtextdiff.methods.method import LatentVariableModel
from jtextdiff.metrics.calibration import fold_ids
from jtextdiff.nets.functional import Net, Params
from jtextdiff.nets.latent_field import LatentFieldNet
from jtextdiff.sampling.energies import Sum
from jtextdiff.sampling.latent_flow import descend
from jtextdiff.sampling.rectified_flow import (
    Field,
    energy_distance,
    normal_velocity,
    regression_loss,
    transport_order,
)

BLOCK = 1024
"""Pairs that are assigned together."""

HELD_OUT_FOLDS = 10
"""One of them selects the training step that is kept."""

SHRINKAGE = 0.1
"""Added to the variances of the two normals."""

NUM_TESTS = 20
"""Times that the loss on left-out texts is computed in a fit, on `NUM_TESTED` pairs for each value."""

NUM_TESTED = 1_024
NUM_MOVED = 1_000
"""Latents that are moved to measure distances."""

GOLDEN_RATIO = 0.618034
"""Its multiples, modulo 1, are spread evenly over the times."""


class Pairs(NamedTuple):
    """Starts and ends of paths, and the value at the end."""

    x_0: Float[Array, "n z"]
    x_1: Float[Array, "n z"]
    target: Int[Array, "n"]


@dataclass(frozen=True, kw_only=True)
class LatentField:
    """The velocity of the rectified flow from latents of texts with other values of a label to those with one value.

    It is the difference of their means plus a network that is zero at first. All values weigh the same in the fit.
    """

    text_spec: TextSpec = TextSpec()
    base: Any = None  # the method whose latents are moved; filled in from its run
    label: str = ""
    values: tuple[str, ...] = ()  # filled in from the text
    velocity: str = "network"  # or "shift", the difference of the means alone, or "normal", the flow of two normals
    coupling: str = "transport"  # near latents are paired; "independent": any two; "paired": texts and edits of them
    width: int = 256
    samples: int = 4  # latents of each text that are fitted to, drawn from q(z | text)
    pairs: int = 65_536  # for each value
    steps: int = 3_000
    batch: int = 512
    rate: float = 1e-3  # of Adam at first; it falls to 0
    ema: float = 0.999
    max_texts: int = 20_000  # labelled texts that are fitted to, evenly spaced in the split

    def __post_init__(self) -> None:
        choices = {"velocity": ("network", "shift", "normal"), "coupling": ("transport", "independent", "paired")}
        check_settings(self, positive=("samples", "pairs", "steps", "batch", "width", "max_texts"), choices=choices)
        check_numbers(self, ("rate",), shares=("ema",))
        if self.base is not None and not isinstance(self.base, LatentVariableModel):
            raise ValueError(f"{type(self.base).__name__} has no latent to move: take a TextVAE.")

    @functools.cached_property
    def net(self) -> Net:
        return Net(
            lambda rngs: LatentFieldNet(
                dim=self.base.latent_dim, num_targets=max(len(self.values), 1), width=self.width, rngs=rngs
            )
        )

    def init(self, key: Key[Array, ""]) -> Params:
        """Returns `net`, the moments of both ends for each value, and as `frozen` the base's prior, its identity."""
        net_key, base_key = jax.random.split(key)
        shape = (max(len(self.values), 1), self.base.latent_dim)
        moments = {"mean": jnp.zeros(shape), "cov": jnp.broadcast_to(jnp.eye(shape[1]), (*shape, shape[1]))}
        return {
            "net": self.net.init(net_key),
            "others": moments,
            "target": moments,
            "frozen": {PRIOR: self.base.init(base_key)[PRIOR]},
        }

    def field(self, params: Params, value: str, strength: float) -> Field:
        """Returns the field towards a value. Raises ValueError for another than those of the label."""
        reached = [self.values[target] for target in self._targets]
        if value not in reached:
            raise ValueError(f"no field of {self.label} leads to {value!r}; there are fields to: {', '.join(reached)}.")
        used = {name: params[name] for name in ("net", "others", "target")}
        target = jnp.asarray(self.values.index(value))
        return Field(params=used, target=target, strength=jnp.float32(strength), velocity=self.velocity_of)

    def velocity_of(
        self, params: Params, target: Int[Array, "*b"], x: Float[Array, "b z"], s: Float[Array, "b"]
    ) -> Float[Array, "b z"]:
        """Returns dx/ds at the time s from 0 to 1, towards one target or one for each row."""
        others, end = ({name: part[target] for name, part in params[side].items()} for side in ("others", "target"))
        if self.velocity == "normal":
            return normal_velocity(others["mean"], others["cov"], end["mean"], end["cov"], x, s)
        shift = end["mean"] - others["mean"]
        if self.velocity == "shift":
            return jnp.broadcast_to(shift, x.shape)
        one_hot = jnp.broadcast_to(jax.nn.one_hot(target, len(self.values)), (len(x), len(self.values)))
        return shift + self.net.bind(params["net"])(x, s, one_hot)

    def fit_latents(self, key: Key[Array, ""], base: Params, texts: LabelledLatents) -> tuple[Params, dict[str, float]]:
        """Returns the parameters fitted to labelled texts, and the loss of each velocity on left-out texts.

        The step with the smallest loss on these is kept.
        """
        if (self.coupling == "paired") != (texts.source_samples is not None):
            raise ValueError('coupling="paired", and no other, needs texts with the latents of their sources.')
        if len(self._targets) < 2:
            raise ValueError(f"a field leads from some values of {self.label} to another, and it has one value only")
        held_out = fold_ids(texts.value, HELD_OUT_FOLDS) == 0
        moments = {side: self._moments(texts, ~held_out, side) for side in ("others", "target")}
        params = self.init(key) | {"frozen": {PRIOR: base[PRIOR]}} | moments
        random = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
        fitted_on = self._pairs(texts, ~held_out, self.pairs, random)
        tested_on = self._pairs(texts, held_out, min(self.pairs, NUM_TESTED), random)
        losses = {
            f"{name}_loss": float(_loss(dataclasses.replace(self, velocity=name), params, tested_on))
            for name in ("shift", "normal")
        }
        if self.velocity != "network":
            return params, {"loss": losses[f"{self.velocity}_loss"], **losses}
        net, loss = _fit_net(self, params, fitted_on, tested_on, key)
        return {**params, "net": net}, {"loss": float(loss), **losses}

    def report(self, params: Params, texts: LabelledLatents) -> dict[str, float]:
        """Returns energy distances to the latents of a value: of those of other values, and of their ends.

        Means over values, in whitened coordinates, of texts that were not fitted to; the posterior means, at most
        NUM_MOVED of each side. `valid_floor` is that between two halves of the value's own latents.
        """
        distances = []
        for value in self._targets:
            others, ends = (self._has_end(texts, side, value) for side in ("others", "target"))
            if others.sum() < 4 or ends.sum() < 4:
                continue
            start, goal = (np.asarray(texts.mean)[rows][:NUM_MOVED] for rows in (others, ends))
            moved = np.asarray(_moved(self.field(params, self.values[value], 1.0), jnp.asarray(start)))
            pairs = ((start, goal), (moved, goal), (goal[::2], goal[1::2]))
            distances.append([energy_distance(one, other) for one, other in pairs])
        names = ("valid_distance_before", "valid_distance_after", "valid_floor")
        return dict(zip(names, np.mean(distances, axis=0).tolist(), strict=True)) if distances else {}

    def describe(self, metrics: dict[str, float], num_valid: int) -> list[str]:
        """Returns how well the field carries latents of other values to those of one, in sentences."""
        lines = [
            f"Loss on left-out texts: {metrics['loss']:.3f}; of the difference of the means alone "
            f"{metrics['shift_loss']:.3f}, of the flow of two normals {metrics['normal_loss']:.3f}."
        ]
        if "valid_floor" in metrics:
            lines.append(
                f"On {num_valid:,} texts of valid, energy distance of other values' latents to those of a value: "
                f"{metrics['valid_distance_before']:.3f}, moved {metrics['valid_distance_after']:.3f}; between two "
                f"halves of the value's own {metrics['valid_floor']:.3f}."
            )
        return lines

    @property
    def _targets(self) -> list[int]:
        """The numbers of the values; texts with "none" have no value, and no field leads to it."""
        return [value for value, name in enumerate(self.values) if name != "none"]

    def _has_end(self, texts: LabelledLatents, side: str, value: int) -> Bool[np.ndarray, "n"]:
        """Returns which texts have a value ("target"), or another one ("others")."""
        return (
            texts.value == value if side == "target" else np.isin(texts.value, self._targets) & (texts.value != value)
        )

    def _latents(self, texts: LabelledLatents, rows: Bool[np.ndarray, "n"], side: str, value: int) -> np.ndarray:
        """Returns the samples of the texts in `rows` at one end of the paths to a value."""
        samples = texts.samples
        if side == "others" and texts.source_samples is not None:
            samples, side = texts.source_samples, "target"  # those whose edits have the value
        return np.asarray(samples, np.float32)[rows & self._has_end(texts, side, value)]

    def _moments(self, texts: LabelledLatents, rows: Bool[np.ndarray, "n"], side: str) -> dict[str, Array]:
        """Returns the mean and the covariance of one end of the paths for each value."""
        mean, cov = [], []
        for value in range(len(self.values)):
            latents = self._latents(texts, rows, side, value).reshape(-1, self.base.latent_dim)
            if value not in self._targets:
                latents = np.zeros((1, self.base.latent_dim))  # no field leads to "none"
            mean.append(latents.mean(axis=0))
            cov.append(np.cov(latents.T, bias=True) + SHRINKAGE * np.eye(latents.shape[1]))
        return {"mean": jnp.asarray(mean, jnp.float32), "cov": jnp.asarray(cov, jnp.float32)}

    def _pairs(
        self, texts: LabelledLatents, rows: Bool[np.ndarray, "n"], num: int, random: np.random.Generator
    ) -> Pairs:
        """Returns `num` pairs of latents for every value, of texts drawn at random."""

        def drawn(latents: np.ndarray, text: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
            text = random.integers(len(latents), size=num) if text is None else text
            return text, latents[text, random.integers(latents.shape[1], size=num)]

        parts = []
        for value in self._targets:
            text, x_0 = drawn(self._latents(texts, rows, "others", value))
            _, x_1 = drawn(
                self._latents(texts, rows, "target", value), text if texts.source_samples is not None else None
            )
            if self.coupling == "transport":
                x_1 = x_1[transport_order(x_0, x_1, BLOCK)]
            parts.append((x_0, x_1, np.full(num, value, np.int32)))
        x_0, x_1, target = (jnp.asarray(np.concatenate(part)) for part in zip(*parts, strict=True))
        return Pairs(x_0, x_1, target)


@jax.jit
def _moved(field: Field, x: Float[Array, "b z"]) -> Float[Array, "b z"]:
    """Returns the ends of the field's paths from `x`."""
    nowhere = Sum(energies=(), weights=())
    return descend(nowhere, x, schedules.constant(0.0), field=field).z


@functools.partial(jax.jit, static_argnums=0)
def _loss(method: LatentField, params: Params, pairs: Pairs) -> Float[Array, ""]:
    """Returns the mean loss of pairs, at times that are spread evenly."""
    s = (jnp.arange(len(pairs.target)) + 0.5) * GOLDEN_RATIO % 1
    velocity = functools.partial(method.velocity_of, params, pairs.target)
    return jnp.mean(regression_loss(velocity, pairs.x_0, pairs.x_1, s))


@functools.partial(jax.jit, static_argnums=0)
def _fit_net(
    method: LatentField, params: Params, fitted_on: Pairs, tested_on: Pairs, key: Key[Array, ""]
) -> tuple[Params, Float[Array, ""]]:
    """Returns the averaged parameters with the smallest loss on `tested_on`, tested after each 1/20 of the steps."""
    chunk = -(-method.steps // NUM_TESTS)
    solver = optax.adam(optax.cosine_decay_schedule(method.rate, chunk * NUM_TESTS))

    def loss(net: Params, pairs: Pairs, s: Float[Array, "b"]) -> Float[Array, ""]:
        velocity = functools.partial(method.velocity_of, {**params, "net": net}, pairs.target)
        return jnp.mean(regression_loss(velocity, pairs.x_0, pairs.x_1, s))

    def step(carry: Any, number: Int[Array, ""]) -> tuple[Any, None]:
        net, state, average = carry
        row_key, time_key = jax.random.split(jax.random.fold_in(key, number))
        rows = jax.random.randint(row_key, (method.batch,), 0, len(fitted_on.target))
        gradient = jax.grad(loss)(net, Pairs(*(part[rows] for part in fitted_on)), stratified(time_key, method.batch))
        updates, state = solver.update(gradient, state)
        net = optax.apply_updates(net, updates)
        decay = jnp.minimum(method.ema, (1 + number) / (10 + number))
        average = jax.tree.map(lambda mean, leaf: decay * mean + (1 - decay) * leaf, average, net)
        return (net, state, average), None

    def test(carry: Any, start: Int[Array, ""]) -> tuple[Any, None]:
        *training, best, least = carry
        training, _ = jax.lax.scan(step, tuple(training), start + jnp.arange(chunk))
        tested = _loss(method, {**params, "net": training[2]}, tested_on)
        best = jax.tree.map(lambda new, old: jnp.where(tested < least, new, old), training[2], best)
        return (*training, best, jnp.minimum(tested, least)), None

    net = params["net"]
    first = (net, solver.init(net), net, net, _loss(method, params, tested_on))
    (*_, best, least), _ = jax.lax.scan(test, first, chunk * jnp.arange(NUM_TESTS))
    return best, least
