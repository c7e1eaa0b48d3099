"""Steering: what a control asks of a trained model, as an energy to follow and a length to keep."""

import functools
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jtextdiff.core.energies import Energy, Not, Or, Sum
from jtextdiff.core.wording import Phrase
from jtextdiff.methods.classifier import Classifier
from jtextdiff.methods.method import Guidable
from jtextdiff.nets.functional import Params
from jtextdiff.run.checkpoints import has_checkpoints, restore, shapes_of
from jtextdiff.run.command import UserError, say
from jtextdiff.run.config import build
from jtextdiff.run.controls import RULES, Control
from jtextdiff.run.on_base import home_of
from jtextdiff.run.template import known_words
from jtextdiff.run.workdir import read_config
from jtextdiff.text.tokenizers import Tokenizer


class Asked(NamedTuple):
    """What controls ask of a sampler: an energy to follow, if any, and a number of tokens, end counted, if any."""

    energy: Energy | None
    length: int | None


class Steered(NamedTuple):
    """The model that controls are for, and the run where those that were trained are found."""

    run: Path | None
    method: Any  # a Method; for an energy a Guidable one
    params: Params
    tokenizer: Tokenizer


def asked(control: Control, model: Steered) -> Asked:
    """What a control asks of a model. Raises UserError for what is unknown, contradictory, or cannot be followed."""
    whole, method = control.as_sum(), model.method
    _agree(whole)
    lengths = [int(part.values[0]) for part in whole.parts if part.name == "length"]
    if lengths and lengths[0] >= method.language.length:
        raise UserError(f"length={lengths[0]}: this model writes at most {method.language.length - 1} words.")
    tokens = lengths[0] + 1 if lengths else None
    rest = [(part, weight) for part, weight in zip(whole.parts, whole.weights, strict=True) if part.name != "length"]
    if not rest:
        return Asked(None, tokens)
    if not isinstance(method, Guidable):
        raise UserError(f"{type(method).__name__} has no vectors that an energy could move. DiffusionLM follows one.")
    energies = tuple(_energy(part, model) for part, _ in rest)
    return Asked(Sum(energies=energies, weights=tuple(np.float32(weight) for _, weight in rest)), tokens)


def load_control(run: Path | None, name: str, params: Params) -> tuple[Classifier, Params]:
    """A control's classifier and its parameters. Raises UserError if there is none, or it is of another base."""
    if run is None:
        raise UserError("This model was not loaded from a run, where its controls would be.")
    home = home_of(run, name)
    if Path(name).name != name or not has_checkpoints(home):
        trained = sorted(path.name for path in (run / "controls").glob("*") if has_checkpoints(path))
        there = ", ".join([*RULES, *trained])
        raise UserError(
            f"{run} has no control {name!r}; it has: {there}. Train it with: "
            f"python -m jtextdiff.train --config configs/control.py --config.base={run} --config.label={name}"
        )
    method = _the_same(build(read_config(home).method))
    shapes = shapes_of(jax.eval_shape(method.init, jax.random.key(0)))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    found = restore(home, {"model": shapes_of(shapes, jax.tree.map(lambda _: device, shapes))}, tell=say)
    if found is None:
        raise UserError(f"None of the checkpoints in {home} can be read. Train the control anew.")
    own = found[1]["model"]
    alike = lambda mine, theirs: mine.shape == theirs.shape and np.allclose(mine, theirs, atol=1e-3)
    theirs = {name: params[name] for name in own["frozen"]}
    if not all(jax.tree.leaves(jax.tree.map(alike, own["frozen"], theirs))):
        raise UserError(f"{home} was trained on another state of {run}: its word vectors have changed. Train it anew.")
    return method, own


@functools.lru_cache(maxsize=32)
def _the_same(method: Classifier) -> Classifier:
    """One object for equal classifiers: programs are kept by its bound functions, which are equal on one object only.

    Without it every other value of a label, read from disk anew, would be compiled for anew.
    """
    return method


def _agree(whole: Control) -> None:
    """Raises UserError where two parts that are wanted at once leave no value to a name."""
    left: dict[str, set[str]] = {}
    for part in whole.parts:
        if part.kind == "is" and part.name not in ("keyword", "regex"):
            values = left.setdefault(part.name, set(part.values))
            values &= set(part.values)
            if not values:
                both = " and ".join(str(each) for each in whole.parts if each.name == part.name)
                raise UserError(f"A text has one {part.name}: {both} contradict each other.")


def _energy(control: Control, model: Steered) -> Energy:
    if control.kind == "is":
        made = {"length": _no_length, "keyword": _keyword, "regex": _regex}.get(control.name, _learned)
        return made(control, model)
    parts: Any = tuple(_energy(part, model) for part in control.parts)
    if control.kind == "not":
        return Not(energy=parts[0])
    weights = tuple(np.float32(weight) for weight in control.weights)
    return Or(energies=parts) if control.kind == "any" else Sum(energies=parts, weights=weights)


def _no_length(control: Control, model: Steered) -> Energy:
    raise UserError("A length can be asked for, but not in NOT or OR.")


def _learned(control: Control, model: Steered) -> Energy:
    method, own = load_control(model.run, control.name, model.params)
    for value in control.values:
        if value not in method.values:
            names = ", ".join(method.values)
            raise UserError(f"The control {control.name!r} has never seen {value!r}; it knows: {names}.")
    return method.wanting(own, control.values)


def _keyword(control: Control, model: Steered) -> Energy:
    phrases = [known_words([phrase], model.tokenizer) for phrase in control.values]
    made = tuple(_phrase([[token] for token in ids], model) for ids in phrases)
    return made[0] if len(made) == 1 else Or(energies=made)


def _regex(control: Control, model: Steered) -> Energy:
    try:
        pattern = re.compile(control.values[0])
    except re.error as error:
        raise UserError(f"regex={control.values[0]} is no regular expression: {error}.") from None
    words = matching(pattern, model.tokenizer)
    if not words:
        raise UserError(f"regex={control.values[0]} matches none of the model's {model.tokenizer.vocab_size:,} words.")
    return _phrase([words], model)


def matching(pattern: re.Pattern[str], tokenizer: Tokenizer) -> list[int]:
    """The tokens that match from their first to their last character."""
    return [token for token, word in enumerate(_spellings(tokenizer)) if word and pattern.fullmatch(word)]


@functools.lru_cache(maxsize=4)
def _spellings(tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.decode([token]).strip() for token in range(tokenizer.vocab_size)]


def _phrase(places: list[list[int]], model: Steered) -> Phrase:
    """The energy of tokens side by side, each one of those that its place allows."""
    states = model.method.states
    allowed = np.zeros((len(places), model.method.language.vocab_size), bool)
    for place, tokens in enumerate(places):
        allowed[place, tokens] = True
    return Phrase(table=states.table(model.params), allowed=jnp.asarray(allowed), process=states.process)
