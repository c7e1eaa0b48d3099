"""Controls: what a user wants of a text, as a small value that composes; and the energy that it becomes for a model.

food=Japanese · food!=Japanese · food=Japanese|Italian · 'sentiment=positive*2.0' · length=12
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jtextdiff.core.energies import Energy, Not, Or, Sum
from jtextdiff.methods.classifier import Classifier
from jtextdiff.methods.method import Guidable, Method
from jtextdiff.nets.functional import Params
from jtextdiff.run.checkpoints import has_checkpoints, restore, shapes_of
from jtextdiff.run.command import UserError, say
from jtextdiff.run.config import build
from jtextdiff.run.on_base import home_of
from jtextdiff.run.workdir import read_config

SPELLED = re.compile(
    r"(?P<name>[^=!*|]+?)\s*(?P<sign>!?=)\s*(?P<values>.+?)(?:\s*\*\s*(?P<weight>\d+(?:\.\d*)?|\.\d+))?"
)
QUOTED = re.compile(r"\"([^\"]*)\"|'([^']*)'|([^|\"']+)")


@dataclasses.dataclass(frozen=True)
class Control:
    """What is wanted: a tree of `kind` "is", "length", "all", "any" or "not". `a + b`, `a * 2`, `a | b`, `~a`."""

    kind: str
    parts: tuple["Control", ...] = ()
    weights: tuple[float, ...] = ()
    name: str = ""
    values: tuple[str, ...] = ()
    length: int = 0

    def __add__(self, other: "Control") -> "Control":
        one, two = self.as_sum(), other.as_sum()
        return Control("all", parts=one.parts + two.parts, weights=one.weights + two.weights)

    def __mul__(self, weight: float) -> "Control":
        one = self.as_sum()
        return dataclasses.replace(one, weights=tuple(weight * each for each in one.weights))

    __rmul__ = __mul__

    def __or__(self, other: "Control") -> "Control":
        return Control("any", parts=(self, other))

    def __invert__(self) -> "Control":
        return Control("not", parts=(self,))

    def __str__(self) -> str:
        """As the command line has it, where it can have it."""
        if self.kind in ("is", "length"):
            return f"{self.name}={'|'.join(self.values)}" if self.kind == "is" else f"length={self.length}"
        if self.kind == "not":
            return str(self.parts[0]).replace("=", "!=", 1) if self.parts[0].kind == "is" else f"not ({self.parts[0]})"
        return (" or " if self.kind == "any" else " and ").join(map(str, self.parts))

    def as_sum(self) -> "Control":
        return self if self.kind == "all" else Control("all", parts=(self,), weights=(1.0,))


def classifier(name: str, *values: str) -> Control:
    """A label that has one of these values."""
    return Control("is", name=name, values=values)


def length(words: int) -> Control:
    """So many words, the end not counted."""
    return Control("length", length=words)


def spelled(text: str) -> Control:
    """A control as the command line has it: NAME=VALUE, NAME!=VALUE, NAME=A|B, each with *WEIGHT or without.

    Raises UserError for anything else.
    """
    match = SPELLED.fullmatch(text.strip())
    values = [next(filter(None, found), "").strip() for found in QUOTED.findall(match["values"])] if match else []
    if match is None or not values or not all(values):
        raise UserError(f"--control {text!r} is not NAME=VALUE, NAME!=VALUE, NAME=A|B or one of them with *WEIGHT.")
    name, weight = match["name"].strip(), float(match["weight"] or 1.0)
    if name != "length":
        control = classifier(name, *values)
    elif len(values) == 1 and match["sign"] == "=" and values[0].isdecimal() and int(values[0]) > 0:
        control = length(int(values[0]))
    else:
        raise UserError(f"--control {text!r}: length takes a number of words, such as length=12.")
    return (~control if match["sign"] == "!=" else control) * weight


def together(texts: Sequence[str]) -> Control | None:
    """All of what the command line asks for, at once; None if that is nothing."""
    return functools.reduce(Control.__add__, map(spelled, texts)).as_sum() if texts else None


class Asked(NamedTuple):
    """What controls ask of a sampler: an energy to follow, if any, and a number of tokens, end counted, if any."""

    energy: Energy | None
    length: int | None


def asked(control: Control, run: Path | None, method: Method, params: Params) -> Asked:
    """What a control asks of a run's method. Raises UserError for one that is unknown or cannot be followed."""
    whole = control.as_sum()
    lengths = {part.length for part in whole.parts if part.kind == "length"}
    if len(lengths) > 1:
        raise UserError(f"A text has one length, not {' and '.join(map(str, sorted(lengths)))}.")
    tokens = lengths.pop() + 1 if lengths else None
    if tokens and tokens > method.language.length:
        raise UserError(f"length={tokens - 1}: this model writes at most {method.language.length - 1} words.")
    rest = [(part, weight) for part, weight in zip(whole.parts, whole.weights, strict=True) if part.kind != "length"]
    if not rest:
        return Asked(None, tokens)
    if not isinstance(method, Guidable):
        name = type(method).__name__
        raise UserError(f"{name} has no vectors that an energy could move. DiffusionLM follows a control.")
    if run is None:
        raise UserError("This model was not loaded from a run, where its controls would be.")
    learned = functools.cache(lambda name: load_control(run, name, params))
    energies = tuple(_energy(part, learned) for part, _ in rest)
    return Asked(Sum(energies=energies, weights=tuple(np.float32(weight) for _, weight in rest)), tokens)


def load_control(run: Path, name: str, params: Params) -> tuple[Classifier, Params]:
    """A control's classifier and its parameters. Raises UserError if there is none, or it is of another base."""
    home = home_of(run, name)
    if Path(name).name != name or not has_checkpoints(home):
        there = ", ".join(sorted(known(run))) or "none yet"
        raise UserError(
            f"{run} has no control {name!r}; it has: length, {there}. Train it with: "
            f"python -m jtextdiff.train --config configs/control.py --config.base={run} --config.label={name}"
        )
    method = build(read_config(home).method)
    shapes = shapes_of(jax.eval_shape(method.init, jax.random.key(0)))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    found = restore(home, {"model": shapes_of(shapes, jax.tree.map(lambda _: device, shapes))}, tell=say)
    assert found is not None
    own = found[1]["model"]
    alike = lambda mine, theirs: mine.shape == theirs.shape and np.allclose(mine, theirs, atol=1e-3)
    theirs = {name: params[name] for name in own["frozen"]}
    if not all(jax.tree.leaves(jax.tree.map(alike, own["frozen"], theirs))):
        raise UserError(f"{home} was trained on another state of {run}: its word vectors have changed. Train it anew.")
    return method, own


def known(run: Path) -> list[str]:
    """The names of the controls that a run has."""
    return [path.name for path in (run / "controls").glob("*") if has_checkpoints(path)]


def _energy(control: Control, learned: Callable[[str], tuple[Classifier, Params]]) -> Energy:
    if control.kind == "length":
        raise UserError("A length can be asked for, but not in NOT or OR.")
    if control.kind == "is":
        method, own = learned(control.name)
        for value in control.values:
            if value not in method.values:
                names = ", ".join(method.values)
                raise UserError(f"The control {control.name!r} has never seen {value!r}; it knows: {names}.")
        return method.wanting(own, control.values)
    parts: Any = tuple(_energy(part, learned) for part in control.parts)
    if control.kind == "not":
        return Not(energy=parts[0])
    return Or(energies=parts) if control.kind == "any" else Sum(energies=parts, weights=control.weights)
