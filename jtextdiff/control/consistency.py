"""Contradictions between controls, and the length that they imply."""

import itertools

from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import TRAINING_FREE, Control
from jtextdiff.control.label_targets import span_of, trained_target
from jtextdiff.control.phrases import known_tokens
from jtextdiff.control.quoting import VALUE_SIGNS, listed
from jtextdiff.control.trained import control_dir, trained_classifier
from jtextdiff.control.trained_model import TrainedModel
from jtextdiff.data.grammar.constituents import SYNTAX_CONTROLS
from jtextdiff.run.workdir import read_config

MULTI_VALUED = ("keyword", "regex", "span")
"""Names of which a text can have several values at once."""


def check_consistent(conjunction: Control) -> None:
    """Raises UserError for parts that together leave a name without a value, and for spans that cross."""
    required = [part for part in conjunction.parts if part.kind == "is"]
    excluded = [part.parts[0] for part in conjunction.parts if part.kind == "not" and part.parts[0].kind == "is"]
    for part in required:
        joint = [part] if part.name in MULTI_VALUED else [same for same in required if same.name == part.name]
        against = [other for other in excluded if other.name == part.name]
        allowed = set(part.values).intersection(*(other.values for other in joint))
        if not allowed.difference(*(other.values for other in against)):
            contradictory = " and ".join(map(str, dict.fromkeys([*joint, *(~other for other in against)])))
            reason = "" if part.name in MULTI_VALUED else f"A text has one {part.name}: "
            raise UserError(f"{reason}{contradictory} contradict each other.")
    spans = {str(part): span_of(part.values[0]) for part in required if part.name == "span"}
    for (name, first), (other_name, second) in itertools.permutations(spans.items(), 2):
        if first.start < second.start < first.end < second.end:
            raise UserError(f"{name} and {other_name} overlap: two constituents must be nested or disjoint.")


def implied_length(conjunction: Control, model: TrainedModel) -> int:
    """Returns the length of the text in tokens, EOS counted, as `Given` has it: n, 0 if free, −n if at least n.

    A length, tags and a tree set it exactly, a span sets a minimum. Raises UserError where they contradict each other.
    """
    num_words: dict[str, int] = {}  # by the control that sets it
    minimum = 0
    for part in conjunction.parts:
        if part.name == "length":
            num_words[str(part)] = int(part.values[0])
        elif part.kind == "is" and part.name in SYNTAX_CONTROLS:
            _, _, target = trained_target(part, model)
            minimum = max(minimum, target.minimum)
            if target.num_words is not None:
                num_words[part.name] = target.num_words
    if len(set(num_words.values())) > 1 or any(number < minimum for number in num_words.values()):
        claims = [f"{name} ({number} tokens)" for name, number in num_words.items()]
        claims += [f"a span (at least {minimum})"] if minimum else []
        raise UserError(f"A text has one length: {' and '.join(claims)} contradict each other.")
    if not num_words:
        return -(minimum + 1) if minimum else 0
    number, longest = next(iter(num_words.values())), model.method.text_spec.length - 1
    if number > longest:
        raise UserError(f"length={number}: this model generates at most {longest} tokens.")
    return number + 1


def check_phrase_fits(conjunction: Control, length: int, model: TrainedModel) -> None:
    """Raises UserError for a phrase longer than a text of `length` tokens, EOS counted."""
    if length <= 0:
        return
    for part in conjunction.parts:
        if part.kind == "is" and part.name == "keyword":
            shortest = min(len(known_tokens([phrase], model.tokenizer)) for phrase in part.values)
            if shortest > length - 1:
                raise UserError(f"{part} has {shortest} tokens: a text of {length - 1} has no room for it.")


def check_values(control: Control | None, model: TrainedModel) -> None:
    """Raises UserError for a control that accepts "none" as a value of a label, or leaves no other value.

    Texts without a value have it. To exclude it is to require a value. In the grammar it is a value like others: a
    sentence states nothing of the label.
    """
    if control is None:
        return
    excluded: dict[str, set[str]] = {}
    for part in control.parts if control.kind == "all" else (control,):
        if part.kind == "is" and "none" in part.values:
            _check_values_left(control, part.name, set(), model)
        elif part.kind == "not":
            inner = part.parts[0]
            for leaf in inner.parts if inner.kind == "any" else (inner,):
                if leaf.kind == "is":
                    excluded.setdefault(leaf.name, set()).update(leaf.values)
        elif part.kind in ("all", "any"):
            for other in part.parts:
                check_values(other, model)
    for name, values in excluded.items():
        if "none" not in values:
            _check_values_left(control, name, values, model)


def _check_values_left(control: Control, label: str, excluded: set[str], model: TrainedModel) -> None:
    """Raises UserError if `label` has "none" and, but for it, no value that is left; without `excluded` in any case."""
    if label in (*TRAINING_FREE, *SYNTAX_CONTROLS):
        return
    classifier, _ = trained_classifier(label, model)
    values = [value for value in classifier.values if value != "none"]
    assert model.run is not None, "its classifier was loaded from it"
    of_grammar = read_config(control_dir(model.run, label)).text.path is None
    if len(values) < len(classifier.values) and not of_grammar and not (excluded and set(values) - excluded):
        raise UserError(
            f"{control}: none is said of texts without a value of {label}, and is no value to require. {label} has: "
            f"{listed(values, VALUE_SIGNS)}."
        )
