"""Word classifiers: controls of methods that sample tokens, fitted at once to few labelled texts."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Key

from jtextdiff.methods.components.cross_validation import fit_word_weights, initial_word_weights, log_p_of_words
from jtextdiff.methods.components.latents import LabelledLatents
from jtextdiff.methods.components.types import TextSpec, check_numbers, check_settings
from jtextdiff.methods.method import is_guided_by_words
from jtextdiff.metrics.calibration import balanced_weights, calibration_error
from jtextdiff.nets.functional import Params
from jtextdiff.sampling.phrases import WordEnergy


@dataclass(frozen=True, kw_only=True)
class WordClassifier:
    """p(value of a label | which words occur in a text), by naive-Bayes weighted logistic regression."""

    text_spec: TextSpec = TextSpec()
    base: Any = None  # the method that is controlled; filled in from its run
    label: str = ""
    values: tuple[str, ...] = ()  # filled in from the text
    max_texts: int = 100_000  # labelled texts that are fitted to, evenly spaced in the split
    weight: float = 3.0  # of the words relative to the network's predictions, times the weight given with a control

    samples = 0  # of latents: there are none

    def __post_init__(self) -> None:
        check_settings(self, positive=("max_texts",), choices={})
        check_numbers(self, ("weight",), shares=())
        if self.base is not None and not is_guided_by_words(self.base):
            raise ValueError(
                f"{type(self.base).__name__} does not sample masked words: control Masked, CMLM or absorbing D3PM."
            )

    @property
    def kind(self) -> str:
        """The unit that has a value: see methods/classifier."""
        return "text"

    def init(self, key: Key[Array, ""]) -> Params:
        """Returns the weight of each word for each value, and a bias, in nats: zeros."""
        return {"words": initial_word_weights(self.text_spec.vocab_size, max(len(self.values), 1))}

    def fit_latents(self, key: Key[Array, ""], base: Params, texts: LabelledLatents) -> tuple[Params, dict[str, float]]:
        """Returns the parameters fitted to which words occur in the texts, and their metrics on left-out folds."""
        assert texts.occurrences is not None
        occurrences = texts.occurrences
        score = lambda rows, weights: occurrences[rows] @ weights
        words, logits = fit_word_weights(occurrences, score, np.eye(len(self.values))[texts.value], texts.value >= 0)
        log_p = np.asarray(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))
        weights, rows = balanced_weights(texts.value), np.arange(len(texts.value))
        loss = float(np.average(-log_p[rows, texts.value], weights=weights))
        accuracy = float(np.average(log_p.argmax(-1) == texts.value, weights=weights))
        return {"words": words}, {"loss": loss, "accuracy": accuracy}

    def report(self, params: Params, texts: LabelledLatents) -> dict[str, float]:
        """Returns accuracy and calibration error on texts that were not fitted to; all values weigh the same."""
        assert texts.occurrences is not None
        weights, log_p = balanced_weights(texts.value), log_p_of_words(params["words"], texts.occurrences)
        correct = log_p.argmax(-1) == texts.value
        error = calibration_error(np.exp(log_p.max(-1)), correct, weights)
        accuracy = float(np.average(correct, weights=weights))
        return {"valid_accuracy": accuracy, "valid_calibration_error": error}

    def describe(self, metrics: dict[str, float], num_valid: int) -> list[str]:
        """Returns how accurate and how calibrated the control is, in sentences."""
        return [
            f"On left-out folds: log-loss {metrics['loss']:.3f} nats, accuracy {metrics['accuracy']:.3f}. On "
            f"{num_valid:,} texts of valid: accuracy {metrics['valid_accuracy']:.3f}, calibration error "
            f"{metrics['valid_calibration_error']:.3f}. All values weigh the same in these."
        ]

    def energy(self, params: Params, target: Bool[np.ndarray, "c"], base: Params) -> WordEnergy:
        """Returns the energy −log p(one of the target's values | the words of a text), in nats per text."""
        return WordEnergy(target=jnp.asarray(target), label=self.label, **params["words"])
