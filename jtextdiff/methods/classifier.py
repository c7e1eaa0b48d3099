"""Classifiers: controls of a trained model, learned from its own noisy states; what they say is an energy."""

import functools
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion.schedules import Time
from jtextdiff.methods.components.types import Language, Metrics, check_numbers, check_settings
from jtextdiff.methods.method import Guidable
from jtextdiff.nets.classifiers import SequenceClassifier
from jtextdiff.nets.functional import Net, Params
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.energies import Learned

KINDS = ("text", "words", "stretches")
"""What a label is a label of: the text, each of its words, or each stretch from one word to another."""


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """p(values of a label | x_t) of the states x_t that another method meets in sampling, at any t."""

    language: Language = Language()
    base: Any = None  # the method that is controlled; filled in from its run
    trunk: Transformer = Transformer(num_layers=2, width=64, num_heads=2)
    label: str = ""
    values: tuple[str, ...] = ()  # filled in from the text
    kind: str = field(default="text", metadata={"absent": "text"})  # what has a value, likewise: see KINDS
    weight: float = 1.0  # what its energy counts beside others and fluency, times what a control itself says

    def __post_init__(self) -> None:
        check_settings(self, positive=(), choices={"kind": KINDS})
        check_numbers(self, ("weight",), shares=())
        if self.base is not None and not isinstance(self.base, Guidable):
            raise ValueError(f"{type(self.base).__name__} has no noisy vectors to classify: control DiffusionLM.")

    @functools.cached_property
    def net(self) -> Net:
        return Net(
            lambda rngs: SequenceClassifier(
                self.trunk,
                kind=self.kind,
                num_inputs=self.base.states.dim,
                num_lengths=self.base.language.length + 1,
                num_answers=len(self.values),
                rngs=rngs,
            )
        )

    def init(self, key: Key[Array, ""]) -> Params:
        """`net`, and as `frozen` what the base shows its states by, which is filled in from its run."""
        own, of_base = jax.random.split(key)
        return {"net": self.net.init(own), "frozen": self.base.states.showing(self.base.init(of_base))}

    def loss(self, params: Params, key: Key[Array, ""], batch: Batch) -> tuple[Float[Array, "b"], Metrics]:
        """−log p(values | x_t), nats a text, at one time a text, spread over the batch (Li et al. 2022, appendix B).

        `accuracy` is that of the text's value, of its words', or of those stretches that are something.
        """
        show, drop = jax.random.split(key)
        x_t, t, valid = self.base.states.represent(jax.lax.stop_gradient(params["frozen"]), show, batch)
        logits = self._logits(params, x_t, t, valid, drop)
        value = self._cut(jnp.asarray(batch.labels[self.label], jnp.int32), valid)
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), value[..., None], axis=-1)[..., 0]
        asked, right = self._cells(valid), jnp.argmax(logits, axis=-1) == value
        counted = asked & (value > 0) if self.kind == "stretches" else asked
        accuracy = _total(right & counted) / jnp.maximum(_total(counted), 1)
        return -_total(jnp.where(asked, log_p, 0.0)), {"accuracy": accuracy}

    def wanting(self, params: Params, target: Bool[np.ndarray, "*cells c"]) -> Learned:
        """The energy −log p(all that the target asks for | x_t), nats a text; see `log_prob`.

        What a text is as a whole is better seen in an estimate of it, what each word or stretch is in x_t: there an
        estimate, which wavers between words, is like none of them.
        """
        own = {"net": params["net"]}
        return Learned(params=own, target=jnp.asarray(target), log_prob=self.log_prob, of_estimate=self.kind == "text")

    def log_prob(
        self, params: Params, target: Bool[Array, "*b_cells c"], x_t: Array, t: Time, valid: Bool[Array, "b l"]
    ) -> Float[Array, "b"]:
        """Σ log p(one of the cell's `target` values | x_t) over the cells that have any, as if cells were independent.

        The target is one for all texts, or has a row for each.
        """
        when = jnp.broadcast_to(jnp.reshape(jnp.asarray(t, jnp.float32), (-1, 1)), (len(x_t), 1))
        log_p = jax.nn.log_softmax(self._logits(params, x_t, when, valid, None))
        one_for_all = target.ndim < log_p.ndim
        target = self._cut(target[None] if one_for_all else target, valid)
        asked = jnp.any(target, axis=-1) & self._cells(valid)
        # A cell that asks for nothing accepts all: its probability is 1, and its gradient has no holes.
        met = jax.nn.logsumexp(jnp.where(target | ~asked[..., None], log_p, -jnp.inf), axis=-1)
        return _total(jnp.where(asked, met, 0.0))

    def _cut(self, cells: Array, valid: Bool[Array, "b l"]) -> Array:
        """The cells of texts no longer than these."""
        places = {"text": 0, "words": 1, "stretches": 2}[self.kind]
        return cells[(slice(None), *(slice(valid.shape[1]) for _ in range(places)))]

    def _cells(self, valid: Bool[Array, "b l"]) -> Bool[Array, "b *cells"]:
        """Which cells of an answer say something: stretches do not end before they start."""
        if self.kind == "text":
            return jnp.ones(len(valid), bool)
        return valid if self.kind == "words" else jnp.triu(valid[:, :, None] & valid[:, None])

    def _logits(
        self, params: Params, x_t: Array, t: Float[Array, "b 1"], valid: Bool[Array, "b l"], key: Any
    ) -> Float[Array, "b *cells c"]:
        net = self.net.bind(params["net"])
        return net(self.base.states.readable(x_t, t), 1000.0 * t, valid=valid, key=key)


def _total(cells: Array) -> Float[Array, "b"]:
    return jnp.sum(cells, axis=tuple(range(1, cells.ndim))).astype(jnp.float32)
