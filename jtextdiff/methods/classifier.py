"""Classifiers: controls of a trained model, learned from its own noisy states; what they say is an energy."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from jtextdiff.core.energies import Learned
from jtextdiff.core.schedules import Time
from jtextdiff.methods.method import Guidable, Language, Metrics
from jtextdiff.nets.classifiers import SequenceClassifier
from jtextdiff.nets.functional import Net, Params
from jtextdiff.nets.transformer import Transformer
from jtextdiff.text.batches import Batch


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """p(value of a label | x_t) of the states x_t that another method meets in sampling, at any t."""

    language: Language = Language()
    base: Any = None  # the method that is controlled; filled in from its run
    trunk: Transformer = Transformer(num_layers=2, width=64, num_heads=2)
    label: str = ""
    values: tuple[str, ...] = ()  # filled in from the text

    def __post_init__(self) -> None:
        if self.base is not None and not isinstance(self.base, Guidable):
            raise ValueError(f"{type(self.base).__name__} has no noisy vectors to classify: control DiffusionLM.")

    @functools.cached_property
    def net(self) -> Net:
        return Net(
            lambda rngs: SequenceClassifier(
                self.trunk,
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
        """−log p(value | x_t), nats a text, at one time a text, spread over the batch (Li et al. 2022, appendix B)."""
        show, drop = jax.random.split(key)
        x_t, t, valid = self.base.states.represent(jax.lax.stop_gradient(params["frozen"]), show, batch)
        logits = self._logits(params, x_t, t, valid, drop)
        value = jnp.asarray(batch.labels[self.label])[:, None]
        loss = -jnp.take_along_axis(jax.nn.log_softmax(logits), value, axis=-1)[:, 0]
        return loss, {"accuracy": (jnp.argmax(logits, axis=-1) == value[:, 0]).astype(jnp.float32)}

    def wanting(self, params: Params, values: tuple[str, ...]) -> Learned:
        """The energy −log p(one of these values | x_t)."""
        target = jnp.asarray([value in values for value in self.values])
        return Learned(params={"net": params["net"]}, target=target, log_prob=self.log_prob)

    def log_prob(
        self, params: Params, target: Bool[Array, "*b c"], x_t: Array, t: Time, valid: Bool[Array, "b l"]
    ) -> Float[Array, "b"]:
        """log p(one of the `target` values | x_t), the same for all texts or a row for each."""
        when = jnp.broadcast_to(jnp.reshape(jnp.asarray(t, jnp.float32), (-1, 1)), (len(x_t), 1))
        log_p = jax.nn.log_softmax(self._logits(params, x_t, when, valid, None))
        return jax.nn.logsumexp(jnp.where(jnp.broadcast_to(target, log_p.shape), log_p, -jnp.inf), axis=-1)

    def _logits(
        self, params: Params, x_t: Array, t: Float[Array, "b 1"], valid: Bool[Array, "b l"], key: Any
    ) -> Float[Array, "b c"]:
        net = self.net.bind(params["net"])
        return net(self.base.states.readable(x_t, t), 1000.0 * t, valid=valid, key=key)
