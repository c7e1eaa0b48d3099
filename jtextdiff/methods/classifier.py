"""Noisy-state classifiers that guide diffusion."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion.schedules import Time
from jtextdiff.methods.components.types import Metrics, TextSpec, check_numbers, check_settings
from jtextdiff.methods.method import HasNoisyEmbeddings
from jtextdiff.nets.classifiers import SequenceClassifier
from jtextdiff.nets.functional import Net, Params
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.energies import Learned, log_total

KINDS = ("text", "words", "spans")
"""The unit that has a value of the label: the text, each token, or each span from one token to another."""


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """p(values of a label | x_t), for the states x_t of another method at any t.

    Its logits are [b, *cells, c]: a cell is one unit of KINDS, with no axis for "text", one for "words" and two for
    "spans".
    """

    text_spec: TextSpec = TextSpec()
    base: Any = None  # the method that is controlled; filled in from its run
    trunk: Transformer = Transformer(num_layers=2, width=64, num_heads=2)
    label: str = ""
    values: tuple[str, ...] = ()  # filled in from the text
    kind: str = "text"  # one of KINDS; filled in from the text
    weight: float = 1.0  # of its energy relative to others and to fluency, times the weight given with a control

    def __post_init__(self) -> None:
        check_settings(self, positive=(), choices={"kind": KINDS})
        check_numbers(self, ("weight",), shares=())
        if self.base is not None and not isinstance(self.base, HasNoisyEmbeddings):
            raise ValueError(f"{type(self.base).__name__} has no noisy embeddings to classify: control DiffusionLM.")

    @functools.cached_property
    def net(self) -> Net:
        return Net(
            lambda rngs: SequenceClassifier(
                self.trunk,
                kind=self.kind,
                num_inputs=self.base.states.dim,
                num_lengths=self.base.text_spec.length + 1,
                num_outputs=len(self.values),
                rngs=rngs,
            )
        )

    def init(self, key: Key[Array, ""]) -> Params:
        """Returns `net`, and as `frozen` those parameters of the base that its states need, later read from its run."""
        net_key, base_key = jax.random.split(key)
        base_params = self.base.init(base_key)
        return {"net": self.net.init(net_key), "frozen": self.base.states.classifier_params(base_params)}

    def loss(self, params: Params, key: Key[Array, ""], batch: Batch) -> tuple[Float[Array, "b"], Metrics]:
        """Returns −log p(values | x_t), nats per text, at one stratified time per text (Li et al. 2022, appendix B).

        `accuracy` is that of the text's value, of its tokens' values, or of those spans that are constituents.
        """
        noise_key, dropout_key = jax.random.split(key)
        x_t, t, valid = self.base.states.noised(jax.lax.stop_gradient(params["frozen"]), noise_key, batch)
        logits = self._logits(params, x_t, t, valid, dropout_key)
        value = self._cropped(jnp.asarray(batch.labels[self.label], jnp.int32), valid)
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), value[..., None], axis=-1)[..., 0]
        cells, correct = self._valid_cells(valid), jnp.argmax(logits, axis=-1) == value
        counted = cells & (value > 0) if self.kind == "spans" else cells
        accuracy = _sum_cells(correct & counted) / jnp.maximum(_sum_cells(counted), 1)
        return -_sum_cells(jnp.where(cells, log_p, 0.0)), {"accuracy": accuracy}

    def energy(self, params: Params, target: Bool[np.ndarray, "*cells c"], base: Params) -> Learned:
        """Returns the energy −log p(every constraint of the target holds | x_t), nats per text; see `log_prob`.

        The parameters of the base are not needed.

        The value of a whole text is better predicted from an estimate of x_0, those of tokens and spans from x_t: there
        an estimate averages the embeddings of several tokens and so resembles none of them.
        """
        of_text = self.kind == "text"
        return Learned(
            params={"net": params["net"]},
            target=jnp.asarray(target),
            log_prob=self.log_prob,
            log_not=self.log_not if of_text else None,
            on_estimate=of_text,
        )

    def log_prob(
        self, params: Params, target: Bool[Array, "*b_cells c"], x_t: Array, t: Time, valid: Bool[Array, "b l"]
    ) -> Float[Array, "b"]:
        """Returns Σ log p(one of the cell's `target` values | x_t) over constrained cells, taken as independent.

        A cell without target values is not constrained. The target is one for all texts, or has a row for each.
        """
        log_p = self._log_p(params, x_t, t, valid)
        shared = target.ndim < log_p.ndim
        target = self._cropped(target[None] if shared else target, valid)
        constrained = jnp.any(target, axis=-1) & self._valid_cells(valid)
        # An unconstrained cell accepts all values: its probability is 1, and its gradient has no NaN.
        accepted = jax.nn.logsumexp(jnp.where(target | ~constrained[..., None], log_p, -jnp.inf), axis=-1)
        return _sum_cells(jnp.where(constrained, accepted, 0.0))

    def log_not(self, params: Params, target: Array, x_t: Array, t: Time, valid: Array) -> Float[Array, "b"]:
        """Returns log p(a value outside the target | x_t) of a whole text."""
        return log_total(self._log_p(params, x_t, t, valid), ~target)

    def _log_p(self, params: Params, x_t: Array, t: Time, valid: Bool[Array, "b l"]) -> Float[Array, "b *cells c"]:
        times = jnp.broadcast_to(jnp.reshape(jnp.asarray(t, jnp.float32), (-1, 1)), (len(x_t), 1))
        return jax.nn.log_softmax(self._logits(params, x_t, times, valid, None))

    def _cropped(self, cells: Array, valid: Bool[Array, "b l"]) -> Array:
        """Crops cells to the length of the batch."""
        num_axes = {"text": 0, "words": 1, "spans": 2}[self.kind]
        return cells[(slice(None), *(slice(valid.shape[1]) for _ in range(num_axes)))]

    def _valid_cells(self, valid: Bool[Array, "b l"]) -> Bool[Array, "b *cells"]:
        """Returns the cells inside the text; a span does not end before it starts."""
        if self.kind == "text":
            return jnp.ones(len(valid), bool)
        return valid if self.kind == "words" else jnp.triu(valid[:, :, None] & valid[:, None])

    def _logits(
        self, params: Params, x_t: Array, t: Float[Array, "b 1"], valid: Bool[Array, "b l"], key: Any
    ) -> Float[Array, "b *cells c"]:
        net = self.net.bind(params["net"])
        return net(self.base.states.network_input(x_t, t), 1000.0 * t, valid=valid, key=key)


def _sum_cells(cells: Array) -> Float[Array, "b"]:
    return jnp.sum(cells, axis=tuple(range(1, cells.ndim))).astype(jnp.float32)
