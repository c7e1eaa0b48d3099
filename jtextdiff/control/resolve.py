"""A control as an energy, a length and a label for one model."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jtextdiff.cli.errors import UserError
from jtextdiff.control.consistency import check_consistent, check_phrase_fits, implied_length
from jtextdiff.control.controls import TRAINING_FREE, Control
from jtextdiff.control.label_targets import trained_target
from jtextdiff.control.phrases import keyword_energy, regex_energy
from jtextdiff.control.quoting import VALUE_SIGNS, listed
from jtextdiff.control.trained import trained_trigrams
from jtextdiff.control.trained_model import TrainedModel, cached_per_model
from jtextdiff.data.grammar.constituents import SYNTAX_CONTROLS
from jtextdiff.methods.components.cross_validation import WordWeights
from jtextdiff.methods.latent_classifier import LatentClassifier
from jtextdiff.methods.method import Conditional, Controllable, LatentVariableModel, Method, is_guided_by_words
from jtextdiff.metrics.trigram_classifier import TrigramClassifier
from jtextdiff.sampling.energies import Energy, Not, Or, Sum, ValueEnergy
from jtextdiff.sampling.phrases import WordEnergy, word_terms

OfLabel = Callable[[Control, TrainedModel], Energy]
"""(a value of a label, the model) ↦ its energy."""


class WordReadings(NamedTuple):
    """Label controls of latents that have learned words, as read from the words of a text."""

    energy: Sum  # of the tokens of a finished text
    neutral: Float[np.ndarray, "v"]  # from 0 to 1, of each word: 1 if it says nothing of the controls
    labels: tuple[str, ...]
    of_values: Sum  # of log p of the values of all labels, side by side, in this order
    words: tuple[WordWeights, ...]  # of each label
    trigrams: tuple[TrigramClassifier, ...]  # of each label; () if a control has counted none
    vectors: Float[np.ndarray, "v d"]  # of length 1, in the direction of similar words; of no use without trigrams

    @property
    def guides(self) -> bool:
        """Whether the energy is a sum of labels and their exclusion, which guides the writing of a text."""
        return all(isinstance(term, WordEnergy) for term, _ in word_terms(self.energy))


class Conditioning(NamedTuple):
    """What a sample is conditioned on: an energy to follow, a length and a label. Unconditional by default."""

    energy: Energy | None = None
    length: int = 0  # tokens, EOS counted; 0: free; −n: at least n; as in `Given`
    names: tuple[str, ...] = ()  # of the energy's parts
    label: int = 0  # of a conditional method, as in `Given`
    readings: WordReadings | None = None  # of controls that have learned words


def resolve(control: Control | None, model: TrainedModel) -> Conditioning:
    """Returns the conditioning of a control for a model, cached per model.

    Raises UserError for a control that is unknown, contradictory, or that the model's method cannot follow.
    """
    return Conditioning() if control is None else _resolved(control, model)


@cached_per_model
def _resolved(control: Control, model: TrainedModel) -> Conditioning:
    conjunction, method = control.as_sum(), model.method
    check_consistent(conjunction)
    enforced = {"length", _condition(method)} - {""}
    weighted = zip(conjunction.parts, conjunction.weights, strict=True)
    guided = [(part, weight) for part, weight in weighted if part.name not in enforced]
    if guided and is_guided_by_words(method):
        check_word_guided([part for part, _ in guided], type(method).__name__)
    elif guided and not isinstance(method, Controllable):
        name = type(method).__name__
        raise UserError(
            f"{name} follows no controls but length here. DiffusionLM, TextVAE, Masked, CMLM and absorbing D3PM do."
        )
    length = implied_length(conjunction, model)
    check_phrase_fits(conjunction, length, model)
    parts = [part for part, _ in guided]
    weights = tuple(np.float32(weight * _classifier_weight(part, model)) for part, weight in guided)
    energy = _sum(parts, weights, model, _classifier_energy) if guided else None
    readings = _readings(parts, weights, model)
    return Conditioning(energy, length, tuple(map(str, parts)), _label(conjunction, method), readings)


def _sum(parts: Sequence[Control], weights: tuple[Any, ...], model: TrainedModel, of_label: OfLabel) -> Sum:
    return Sum(energies=tuple(_energy(part, model, of_label) for part in parts), weights=weights)


def _readings(parts: Sequence[Control], weights: tuple[Any, ...], model: TrainedModel) -> WordReadings | None:
    """None unless all controls are labels whose controls of latents have learned words."""
    leaves = [leaf for part in parts for leaf in part.leaves()]
    if not leaves or any(leaf.name in TRAINING_FREE for leaf in leaves):
        return None
    controls: list[Any] = [trained_target(leaf, model)[:2] for leaf in leaves]
    if not all(isinstance(of, LatentClassifier) and of.learns_words for of, _ in controls):
        return None
    neutral = np.prod([of.neutral(params) for of, params in controls], axis=0)
    words = {leaf.name: params["words"] for leaf, (_, params) in zip(leaves, controls, strict=True)}
    ends = np.cumsum([of_label["weights"].shape[-1] for of_label in words.values()]).tolist()
    columns = dict(zip(words, zip([0, *ends[:-1]], ends, strict=True), strict=True))
    counted = [trained_trigrams(label, model) for label in words]
    trigrams = tuple(of_label for of_label in counted if of_label is not None)
    return WordReadings(
        _sum(parts, weights, model, _word_energy),
        neutral,
        tuple(words),
        _sum(parts, weights, model, functools.partial(_value_energy, columns=columns)),
        tuple(words.values()),
        trigrams if len(trigrams) == len(words) else (),
        _word_vectors("", model),
    )


@cached_per_model
def _word_vectors(_: str, model: TrainedModel) -> Float[np.ndarray, "v d"]:
    """The same for all controls of a model, so that they share one array."""
    assert isinstance(model.method, LatentVariableModel), "its controls are classifiers of latents"
    return np.asarray(model.method.word_vectors(model.params))


def check_word_guided(parts: Sequence[Control], name: str) -> None:
    """Raises UserError for all but values of labels and their exclusion."""
    for part in parts:
        leaf = part.parts[0] if part.kind == "not" else part
        if leaf.kind != "is" or leaf.name in (*TRAINING_FREE, *SYNTAX_CONTROLS):
            raise UserError(f"{part}: {name} follows lengths, and values of labels such as food=Thai or food!=Thai.")


def _energy(control: Control, model: TrainedModel, of_label: OfLabel) -> Energy:
    """The energy of a control, nats; `of_label` returns that of a value of a label."""
    if control.kind == "is":
        energies = {"length": _refuse_length, "keyword": keyword_energy, "regex": regex_energy}
        return energies.get(control.name, of_label)(control, model)
    chosen = _with_one_label_each(control.parts, model) if control.kind == "any" else control.parts
    parts: Any = tuple(_energy(part, model, of_label) for part in chosen)
    if control.kind == "not":
        _check_leaves_values(control.parts[0], model)
        return Not(energy=parts[0])
    weights = tuple(np.float32(weight) for weight in control.weights)
    return Or(energies=parts) if control.kind == "any" else Sum(energies=parts, weights=weights)


def _with_one_label_each(parts: Sequence[Control], model: TrainedModel) -> list[Control]:
    """Returns the parts of an OR, with values of one label joined: they exclude each other, as other parts do not."""
    joined: dict[str, tuple[str, ...]] = {}
    for part in filter(lambda part: _is_label(part, model), parts):
        joined[part.name] = tuple(dict.fromkeys(joined.get(part.name, ()) + part.values))
    labels = [Control("is", name=name, values=values) for name, values in joined.items()]
    return labels + [part for part in parts if not _is_label(part, model)]


def _is_label(part: Control, model: TrainedModel) -> bool:
    """Returns whether a control is a value of a whole text, predicted by a trained classifier."""
    trained = part.kind == "is" and part.name not in TRAINING_FREE
    return trained and trained_target(part, model)[0].kind == "text"


def _check_leaves_values(control: Control, model: TrainedModel) -> None:
    """Raises UserError for the NOT of all values of a label."""
    for part in _with_one_label_each(control.parts, model) if control.kind == "any" else [control]:
        if _is_label(part, model) and trained_target(part, model)[2].accepted.all():
            raise UserError(f"{~part} excludes all values of {part.name}: no text can have another one.")


def _refuse_length(control: Control, model: TrainedModel) -> Energy:
    raise UserError(f"{control} cannot stand in NOT or OR: a length is enforced exactly and has no energy.")


def _classifier_energy(control: Control, model: TrainedModel) -> Energy:
    """As the control's method reads a text."""
    classifier, params, target = trained_target(control, model)
    return classifier.energy(params, target.accepted, model.params)


def _word_energy(control: Control, model: TrainedModel) -> Energy:
    """Of the words of a finished text."""
    _, params, target = trained_target(control, model)
    return WordEnergy(target=jnp.asarray(target.accepted), label=control.name, **params["words"])


def _value_energy(control: Control, model: TrainedModel, columns: dict[str, tuple[int, int]]) -> Energy:
    """Of log p of the values of several labels."""
    return ValueEnergy(target=jnp.asarray(trained_target(control, model)[2].accepted), columns=columns[control.name])


def _classifier_weight(part: Control, model: TrainedModel) -> float:
    """The weight in the config of a trained classifier; 1 for all other controls."""
    return trained_target(part, model)[0].weight if part.kind == "is" and part.name not in TRAINING_FREE else 1.0


def _label(conjunction: Control, method: Method) -> int:
    """The number from 1 of the value that a conditional method is given, 0 without one."""
    condition = _condition(method)
    weighted = zip(conjunction.parts, conjunction.weights, strict=True)
    labels = [(part, weight) for part, weight in weighted if part.kind == "is" and part.name == condition]
    if not labels or not isinstance(method, Conditional):
        return 0
    part, weight = labels[0]
    values = [value for value in method.values if value != "none"]  # "none", the last value, stands for no label
    if len(part.values) != 1 or part.values[0] not in values:
        raise UserError(f"{part}: this model takes one value of {condition} out of: {listed(values, VALUE_SIGNS)}.")
    if weight != 1:
        override = f"--override method.sampler.guidance_scale={weight:g}"
        raise UserError(f"{part}*{weight:g}: a label that the model is conditioned on has no weight. Use {override}.")
    return values.index(part.values[0]) + 1


def _condition(method: Method) -> str:
    """The label that a method is conditioned on, "" without one."""
    return method.condition if isinstance(method, Conditional) else ""
