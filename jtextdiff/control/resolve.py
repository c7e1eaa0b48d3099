"""Steering: what a control asks of a trained model, as an energy to follow and a length to keep."""

import functools
import itertools
from typing import Any, NamedTuple

import numpy as np

from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import RULES, Control
from jtextdiff.control.label_targets import Target, span_of, target
from jtextdiff.control.phrases import keyword_energy, known_words, regex_energy
from jtextdiff.control.trained import Steered, trained
from jtextdiff.data.grammar.constituents import SYNTAX
from jtextdiff.methods.classifier import Classifier
from jtextdiff.methods.method import Guidable, Latent
from jtextdiff.nets.functional import Params
from jtextdiff.sampling.energies import Energy, Not, Or, Sum

MANY = ("keyword", "regex", "span")
"""Names of which a text can have several values at once."""


class Asked(NamedTuple):
    """What controls ask of a sampler: an energy to follow, if any, and a length as `Given` has it."""

    energy: Energy | None
    length: int  # tokens, end counted; 0: any; −n: n at least
    names: tuple[str, ...] = ()  # of the energy's parts
    label: int = 0  # of a method with a condition, as `Given` has it


def asked(control: Control, model: Steered) -> Asked:
    """What a control asks of a model. Raises UserError for what is unknown, contradictory, or cannot be followed."""
    whole, method = control.as_sum(), model.method
    _agree(whole)
    told = ("length", getattr(method, "condition", "") or "length")
    weighed = zip(whole.parts, whole.weights, strict=True)
    rest = [(part, weight) for part, weight in weighed if part.name not in told]
    if rest and not isinstance(method, Guidable | Latent):
        name = type(method).__name__
        raise UserError(f"{name} has no vectors that an energy could move. DiffusionLM and TextVAE have.")
    length = _length(whole, model)
    _room(whole, length, model)
    energies = tuple(_energy(part, model) for part, _ in rest)
    weights = tuple(np.float32(weight * _counts(part, model)) for part, weight in rest)
    energy = Sum(energies=energies, weights=weights) if rest else None
    return Asked(energy, length, tuple(str(part) for part, _ in rest), _label(whole, model))


def _agree(whole: Control) -> None:
    """Raises UserError where two parts that are wanted at once leave no value to a name, or are spans that cross."""
    wanted = [part for part in whole.parts if part.kind == "is"]
    denied = [part.parts[0] for part in whole.parts if part.kind == "not" and part.parts[0].kind == "is"]
    for part in wanted:
        same = [other for other in wanted if other == part or (other.name == part.name and part.name not in MANY)]
        contrary = [other for other in denied if other.name == part.name]
        left = set(part.values).intersection(*(other.values for other in same))
        if not left.difference(*(other.values for other in contrary)):
            both = " and ".join(map(str, dict.fromkeys([*same, *(~other for other in contrary)])))
            one = "" if part.name in MANY else f"A text has one {part.name}: "
            raise UserError(f"{one}{both} contradict each other.")
    spans = {str(part): span_of(part.values[0]) for part in wanted if part.name == "span"}
    for (one, first), (two, second) in itertools.permutations(spans.items(), 2):
        if first.start < second.start < first.end < second.end:
            raise UserError(f"{one} and {two} cross: of two constituents one holds the other, or they are apart.")


def _energy(control: Control, model: Steered) -> Energy:
    if control.kind == "is":
        made = {"length": _no_length, "keyword": keyword_energy, "regex": regex_energy}.get(control.name, _learned)
        return made(control, model)
    parts: Any = tuple(_energy(part, model) for part in control.parts)
    if control.kind == "not":
        return Not(energy=parts[0])
    weights = tuple(np.float32(weight) for weight in control.weights)
    return Or(energies=parts) if control.kind == "any" else Sum(energies=parts, weights=weights)


def _no_length(control: Control, model: Steered) -> Energy:
    raise UserError("A length can be asked for, but not in NOT or OR.")


def _length(whole: Control, model: Steered) -> int:
    """The tokens that the parts imply: a length itself, tags and trees exactly, spans at least."""
    most, least, words = model.method.language.length - 1, 0, {}
    for part in whole.parts:
        if part.name == "length":
            words[str(part)] = int(part.values[0])
        elif part.kind == "is" and part.name in SYNTAX:
            wanted = _target(part, model)[-1]
            least = max(least, wanted.least)
            words |= {} if wanted.words is None else {part.name: wanted.words}
    if len(set(words.values())) > 1 or any(number < least for number in words.values()):
        told = [f"{name} ({number} words)" for name, number in words.items()]
        told += [f"a span (at least {least})"] if least else []
        raise UserError(f"A text has one length: {' and '.join(told)} contradict each other.")
    length = next(iter(words.values()), None)
    if length is not None and length > most:
        raise UserError(f"length={length}: this model writes at most {most} words.")
    return length + 1 if length is not None else -(least + 1) if least else 0


def _label(whole: Control, model: Steered) -> int:
    """The number of the value that a method with a condition is told; 0 if none is asked for."""
    name = getattr(model.method, "condition", "")
    # "none", the last, tells nothing.
    values = [value for value in getattr(model.method, "values", ()) if value != "none"]
    weighed = zip(whole.parts, whole.weights, strict=True)
    asked = [(part, weight) for part, weight in weighed if part.kind == "is" and part.name == name]
    if not asked:
        return 0
    part, weight = asked[0]
    if len(part.values) != 1 or part.values[0] not in values:
        raise UserError(f"{part}: this model can be told one value of {name}; it knows: {', '.join(values)}.")
    if weight != 1:
        raise UserError(f"{part}*{weight:g}: what is told has no weight. --override method.sampler.sharpen={weight:g}.")
    return values.index(part.values[0]) + 1


def _room(whole: Control, length: int, model: Steered) -> None:
    """Raises UserError for a phrase that a text of `length` tokens, its end counted, is too short for."""
    for part in whole.parts:
        if part.kind == "is" and part.name == "keyword" and length > 0:
            needed = min(len(known_words([phrase], model.tokenizer)) for phrase in part.values)
            if needed > length - 1:
                raise UserError(f"{part} has {needed} tokens: a text of {length - 1} has no room for it.")


def _counts(part: Control, model: Steered) -> float:
    """What a part counts by itself: a classifier may have been given a weight."""
    return _target(part, model)[0].weight if part.kind == "is" and part.name not in RULES else 1.0


def _learned(control: Control, model: Steered) -> Energy:
    method, own, wanted = _target(control, model)
    return method.wanting(own, wanted.accepted)


@functools.lru_cache(maxsize=512)
def _target(control: Control, model: Steered) -> tuple[Classifier, Params, Target]:
    method, own = trained(model, "tree" if control.name == "span" else control.name)
    return method, own, target(control, method)
