"""Latent classifiers: controls of a text VAE, fitted to few labelled texts.

A control reads the latent itself, or the words that the decoder expects in its text, or both. A classifier of latents
finds directions that it believes and that change no word; one of words does not.
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jtextdiff.diffusion.schedules import Time
from jtextdiff.methods.components.affine_prior import unwhitened, whitened
from jtextdiff.methods.components.cross_validation import (
    WordWeights,
    fit_ensemble,
    fit_word_weights,
    initial_word_weights,
)
from jtextdiff.methods.components.latents import PRIOR, LabelledLatents
from jtextdiff.methods.components.types import TextSpec, check_numbers, check_settings
from jtextdiff.methods.method import LatentVariableModel
from jtextdiff.metrics.calibration import balanced_weights, calibration_error
from jtextdiff.nets.classifiers import LatentHead
from jtextdiff.nets.functional import Net, Params
from jtextdiff.sampling.energies import Learned, log_total

WORD_BATCH = 256
"""Texts whose expected words are in memory at once."""


@dataclass(frozen=True, kw_only=True)
class LatentClassifier:
    """p(value of a label | ε): the mean of an ensemble, for latents ε whose prior is N(0, I)."""

    text_spec: TextSpec = TextSpec()
    base: Any = None  # the method that is controlled; filled in from its run
    label: str = ""
    values: tuple[str, ...] = ()  # filled in from the text
    width: int = 64  # of the one hidden layer; 0: none, log p is linear before it is normalised
    ensemble_size: int = 3  # each member is fitted to all texts but one fold
    samples: int = 4  # latents of each text that are fitted to, drawn from q(z | text)
    penalties: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # of squared weights, beside the summed log-loss
    max_iterations: int = 100  # of L-BFGS
    max_texts: int = 20_000  # labelled texts that are fitted to, evenly spaced in the split
    learns_words: bool = True  # which speak for each value, too, for guided decoding and the choice of edits
    max_unlabelled: int = 100_000  # texts without a label from which words are learned, too, evenly spaced; 0: none
    reads: str = "latent"  # its numbers; "words": those that the latent lets expect in the text; or "both"
    weight: float = 1.0  # of its energy relative to others, times the weight given with a control

    def __post_init__(self) -> None:
        choices = {"reads": ("latent", "words", "both")}
        check_settings(self, positive=("samples", "max_iterations", "max_texts"), choices=choices)
        if self.ensemble_size < 2:
            raise ValueError(
                f"ensemble_size must be at least 2: each member is tested on the fold that it was fitted without. "
                f"Got {self.ensemble_size}."
            )
        if not self.penalties or min(self.penalties) < 0:
            raise ValueError(f"penalties must be numbers of at least 0, got {self.penalties}.")
        check_numbers(self, ("weight", "max_unlabelled"), shares=())
        if self.reads != "latent" and not self.learns_words:
            raise ValueError(f"reads={self.reads!r} needs learns_words.")
        if self.base is not None and not isinstance(self.base, LatentVariableModel):
            raise ValueError(f"{type(self.base).__name__} has no latent to classify: control TextVAE.")

    @property
    def kind(self) -> str:
        """The unit that has a value: see methods/classifier."""
        return "text"

    @functools.cached_property
    def net(self) -> Net:
        return Net(
            lambda rngs: LatentHead(
                dim=self.base.latent_dim, width=self.width, num_outputs=max(len(self.values), 1), rngs=rngs
            )
        )

    def init(self, key: Key[Array, ""]) -> Params:
        """Returns `net` of every member, their `temperature`, and as `frozen` the base's prior, which identifies it.

        A control that learns words has their weights, too.
        """
        net_key, base_key = jax.random.split(key)
        prior = jax.jit(lambda key: self.base.init(key)[PRIOR])  # the rest of the base is never computed
        words = initial_word_weights(self.text_spec.vocab_size, max(len(self.values), 1))
        return ({"words": words} if self.learns_words else {}) | {
            "net": self._initial_members(net_key),
            "temperature": jnp.ones(()),
            "frozen": {PRIOR: prior(base_key)},
        }

    def _initial_members(self, key: Key[Array, ""]) -> Params:
        return jax.jit(jax.vmap(self.net.init))(jax.random.split(key, self.ensemble_size))

    def fit_latents(self, key: Key[Array, ""], base: Params, texts: LabelledLatents) -> tuple[Params, dict[str, float]]:
        """Returns the parameters fitted to labelled texts, and their metrics on left-out folds; `base` are the base's.

        The weights of words are fitted to which of them occur in the texts, and calibrated on those that the decoder
        expects.
        """
        ensemble, temperature, metrics = fit_ensemble(
            self.member_logits,
            self._initial_members(jax.random.split(key)[0]),  # those of `init`
            jnp.moveaxis(texts.samples, 1, 0),
            texts.value,
            penalties=self.penalties,
            max_iterations=self.max_iterations,
        )
        params = {"net": ensemble, "temperature": jnp.float32(temperature), "frozen": {PRIOR: base[PRIOR]}}
        if self.learns_words:
            params["words"] = self.fit_words(base, texts, np.eye(len(self.values))[texts.value])
        return params, {"loss": metrics["log_loss"], **metrics}

    def fit_words(self, base: Params, texts: LabelledLatents, p: Float[np.ndarray, "n c"]) -> WordWeights:
        """Returns the weight of each word for each value, see `fit_word_weights`; a value of −1 is no label."""
        assert texts.occurrences is not None
        presence = jax.jit(self.base.word_presence)

        def score(rows: Int[np.ndarray, "m"], weights: Float[np.ndarray, "v c"]) -> Float[np.ndarray, "m c"]:
            parts = [rows[start : start + WORD_BATCH] for start in range(0, len(rows), WORD_BATCH)]
            return np.concatenate([np.asarray(presence(base, texts.mean[part])) @ weights for part in parts])

        return fit_word_weights(texts.occurrences, score, p, texts.value >= 0)[0]

    def report(self, params: Params, texts: LabelledLatents) -> dict[str, float]:
        """Returns the accuracy and the calibration error at the posterior means of texts that were not fitted to.

        All values weigh the same, as in the fit. If there are several levels, also returns the accuracy of each alone,
        with the others at the mean of the prior.
        """
        weights, log_p = balanced_weights(texts.value), jax.jit(self.log_p)

        def accuracy(epsilon: Float[Array, "b z"]) -> float:
            values = np.asarray(log_p(params, epsilon)).argmax(-1)
            return float(np.average(values == texts.value, weights=weights))

        nats = np.asarray(log_p(params, texts.mean))
        error = calibration_error(np.exp(nats.max(-1)), nats.argmax(-1) == texts.value, weights)
        # Whitening mixes the levels.
        prior = params["frozen"][PRIOR]
        z, z_mean = (unwhitened(prior, epsilon) for epsilon in (texts.mean, jnp.zeros_like(texts.mean)))
        alone = [whitened(prior, mixed) for mixed in self.base.levels.one_level_of(z, z_mean)]
        by_level = {f"valid_accuracy_{i}": accuracy(epsilon) for i, epsilon in enumerate(alone, 1) if len(alone) > 1}
        return {"valid_accuracy": accuracy(texts.mean), "valid_calibration_error": error} | by_level

    def describe(self, metrics: dict[str, float], num_valid: int) -> list[str]:
        """Returns how accurate and how calibrated the control is, in sentences."""
        lines = [
            f"On left-out folds, which selected the penalty {metrics['penalty']:g} and the temperature "
            f"{metrics['temperature']:.2f}: log-loss {metrics['log_loss']:.3f} nats, accuracy "
            f"{metrics['accuracy']:.3f}.",
            f"On {num_valid:,} texts of valid: accuracy {metrics['valid_accuracy']:.3f}, calibration error "
            f"{metrics['valid_calibration_error']:.3f}; accuracy of n-grams of the same labelled texts, without "
            f"latents: {metrics['text_accuracy']:.3f}. All values weigh the same in these.",
        ]
        if "reading_accuracy" in metrics:
            lines.append(
                f"Words and trigrams together, by which an edit is chosen: accuracy {metrics['reading_accuracy']:.3f}, "
                f"calibration error {metrics['reading_calibration_error']:.3f}."
            )
        by_level = [f"{value:.3f}" for name, value in metrics.items() if name.startswith("valid_accuracy_")]
        if by_level:
            lines.append(f"Accuracy from each level alone, the others at the mean of the prior: {', '.join(by_level)}.")
        return lines

    def member_logits(self, net: Params, epsilon: Float[Array, "b z"]) -> Float[Array, "b c"]:
        """Returns the logits of one member."""
        return self.net.bind(net)(epsilon)

    def log_p(self, params: Params, epsilon: Float[Array, "b z"]) -> Float[Array, "b c"]:
        """Returns log p of every value: by the latent, by its words, or the normalised product of both.

        What reads words needs the parameters of the base as `base`.
        """
        if self.reads == "latent":
            return self.log_p_of_latent(params, epsilon)
        words, presence = params["words"], self.base.word_presence(params["base"], epsilon)
        by_words = jax.nn.log_softmax(words["factor"] * (presence @ words["weights"]) + words["bias"])
        if self.reads == "words":
            return by_words
        return jax.nn.log_softmax(self.log_p_of_latent(params, epsilon) + by_words)

    def log_p_of_latent(self, params: Params, epsilon: Float[Array, "b z"]) -> Float[Array, "b c"]:
        """Returns log p of every value by the latent alone: of the mean probability over members."""
        logits = jax.vmap(self.member_logits, (0, None))(params["net"], epsilon)
        by_member = jax.nn.log_softmax(logits / params["temperature"])
        return jax.nn.logsumexp(by_member, axis=0) - jnp.log(self.ensemble_size)

    def energy(self, params: Params, target: Bool[np.ndarray, "c"], base: Params) -> Learned:
        """Returns the energy −log p(one of the target's values | ε), in nats per text; `base` are the base's."""
        used = {name: params[name] for name in ("net", "temperature")}
        if self.reads != "latent":
            used |= {"words": params["words"]}
            used["base"] = self.base.word_params(base)
        return Learned(params=used, target=jnp.asarray(target), log_prob=self.log_prob, log_not=self.log_not)

    def neutral(self, params: Params) -> Float[np.ndarray, "v"]:
        """Returns how little each word says of the label, from 0 to 1, if the control has learned words."""
        return np.exp(-2 * np.abs(np.asarray(params["words"]["weights"])).max(axis=-1))

    def log_prob(
        self, params: Params, target: Bool[Array, "*b c"], epsilon: Float[Array, "b z"], t: Time, valid: Any
    ) -> Float[Array, "b"]:
        """Returns log p(one of the `target` values | ε), independent of the time and the lengths."""
        return log_total(self.log_p(params, epsilon), target)

    def log_not(
        self, params: Params, target: Bool[Array, "*b c"], epsilon: Float[Array, "b z"], t: Time, valid: Any
    ) -> Float[Array, "b"]:
        """Returns log p(a value outside the target | ε)."""
        return log_total(self.log_p(params, epsilon), ~target)
