"""Controls: what a user wants of a text, as a small value that composes.

food=Japanese · food!=Japanese · food=Japanese|Italian · 'sentiment=positive*2.0'
length=12 · keyword=sushi · regex='[0-9]+'
pos='DET NOUN AUX ADJ PUNCT' · tree='(core (cost x) (noun x))' · span=4-6:landmark
"""

import dataclasses
import functools
import re
from collections.abc import Sequence

from jtextdiff.cli.errors import UserError

SPELLED = re.compile(
    r"(?P<name>[^=!*|]+?)\s*(?P<sign>!?=)\s*(?P<values>.+?)(?:\s*\*\s*(?P<weight>\d+(?:\.\d*)?|\.\d+))?"
)

QUOTED = re.compile(r"\"([^\"]*)\"|'([^']*)'|([^|\"']+)")
RULES = ("length", "keyword", "regex")
"""Names that need no training: the number of words, words that stand there side by side, a word that matches."""


@dataclasses.dataclass(frozen=True)
class Control:
    """What is wanted: `kind` "is", a name that has one of the values; or "all", "any" or "not" of its parts.

    `a + b` is both, `a * 2` twice as much of it, `a | b` either and `~a` its contrary.
    """

    kind: str
    name: str = ""
    values: tuple[str, ...] = ()
    parts: tuple["Control", ...] = ()
    weights: tuple[float, ...] = ()

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
        if self.kind == "is":
            return f"{self.name}={'|'.join(self.values)}"
        if self.kind == "not":
            return str(self.parts[0]).replace("=", "!=", 1) if self.parts[0].kind == "is" else f"not ({self.parts[0]})"
        return (" or " if self.kind == "any" else " and ").join(map(str, self.parts))

    def as_sum(self) -> "Control":
        return self if self.kind == "all" else Control("all", parts=(self,), weights=(1.0,))

    def leaves(self) -> list["Control"]:
        """Every name with its values that stands in it."""
        return [self] if self.kind == "is" else [leaf for part in self.parts for leaf in part.leaves()]


def classifier(name: str, *values: str) -> Control:
    """A label that has one of these values."""
    return Control("is", name=name, values=values)


def length(words: int) -> Control:
    """So many words, the end not counted."""
    return Control("is", name="length", values=(str(words),))


def keyword(*phrases: str) -> Control:
    """One of these phrases, word for word."""
    return Control("is", name="keyword", values=phrases)


def regex(pattern: str) -> Control:
    """A word that matches the regular expression from its first to its last character."""
    return Control("is", name="regex", values=(pattern,))


def parts_of_speech(tags: str) -> Control:
    """These tags, one a word; or those of a sentence of the grammar."""
    return Control("is", name="pos", values=(tags,))


def tree(constituents: str) -> Control:
    """This tree in brackets, with any words as leaves; or that of a sentence of the grammar."""
    return Control("is", name="tree", values=(constituents,))


def span(name: str, first: int, last: int) -> Control:
    """The words from `first` to `last`, counted from 1, are this constituent."""
    return Control("is", name="span", values=(f"{first}-{last}:{name}",))


def spelled(text: str) -> Control:
    """A control as the command line has it: NAME=VALUE, NAME!=VALUE, NAME=A|B, each with *WEIGHT or without.

    Raises UserError for anything else.
    """
    match = SPELLED.fullmatch(text.strip())
    values = [next(filter(None, found), "").strip() for found in QUOTED.findall(match["values"])] if match else []
    if match is None or not values or not all(values):
        raise UserError(f"--control {text!r} is not NAME=VALUE, NAME!=VALUE, NAME=A|B or one of them with *WEIGHT.")
    name, weight = match["name"].strip(), float(match["weight"] or 1.0)
    if name == "length" and not (len(values) == 1 and match["sign"] == "=" and _is_count(values[0])):
        raise UserError(f"--control {text!r}: length takes a number of words, such as length=12.")
    if name == "regex":
        values = [match["values"].strip().strip("'").strip('"')]
    control = classifier(name, *values)
    return (~control if match["sign"] == "!=" else control) * weight


def together(texts: Sequence[str]) -> Control | None:
    """All of what the command line asks for, at once; None if that is nothing."""
    return functools.reduce(Control.__add__, map(spelled, texts)).as_sum() if texts else None


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and int(text) > 0
