"""Control: what the user requires of a text, and its parser.

food=Japanese · food!=Japanese · food=Japanese|Italian · 'sentiment=positive*2.0'
length=12 · keyword=sushi · regex='[0-9]+' · "x=y"="w*2" (names and values with signs in quotation marks)
pos='DET NOUN AUX ADJ PUNCT' · tree='(core (cost x) (noun x))' · span=4-6:landmark
"""

import dataclasses
import functools
import math
import re
from collections.abc import Sequence

from jtextdiff.cli.errors import UserError
from jtextdiff.control.quoting import NAME_SIGNS, QUOTED, VALUE_SIGNS, quoted, unquoted

CONTROL = re.compile(
    rf"(?P<name>{QUOTED}|[^=!*|\"'][^=!*|]*?)\s*(?P<sign>!?=)\s*(?P<values>.+?)"
    r"(?:\s*\*\s*(?P<weight>\d+(?:\.\d*)?|\.\d+))?",
    re.DOTALL,
)

VALUE = rf"{QUOTED}|[^|\"'\s][^|]*"
VALUES = re.compile(rf"(?:{VALUE})\s*(?:\|\s*(?:{VALUE})\s*)*")
TRAINING_FREE = ("length", "keyword", "regex")
"""Names that need no trained classifier: the number of tokens, a phrase, a token that matches."""

RESERVED = (*TRAINING_FREE, "span")
"""Names that no label can have, since `--control` means another thing by them."""


@dataclasses.dataclass(frozen=True)
class Control:
    """A requirement: `kind` "is" for a name with one of the values, or "all", "any" or "not" of its parts.

    `a + b` requires both, `a * 2` weighs twice as much, `a | b` requires either, and `~a` the opposite.
    """

    kind: str
    name: str = ""
    values: tuple[str, ...] = ()
    parts: tuple["Control", ...] = ()
    weights: tuple[float, ...] = ()

    def __add__(self, other: "Control | str") -> "Control":
        left, right = self.as_sum(), _control(other).as_sum()
        return Control("all", parts=left.parts + right.parts, weights=left.weights + right.weights)

    def __mul__(self, factor: float) -> "Control":
        if isinstance(factor, str) or not 0 <= factor < math.inf:
            raise UserError(f"The weight of a control must be a number from 0, got {factor!r}.")
        whole = self.as_sum()
        return dataclasses.replace(whole, weights=tuple(factor * weight for weight in whole.weights))

    __rmul__ = __mul__

    def __or__(self, other: "Control | str") -> "Control":
        alternatives = (part.parts if part.kind == "any" else (part,) for part in (self, _control(other)))
        return Control("any", parts=sum(alternatives, ()))

    def __invert__(self) -> "Control":
        return Control("not", parts=(self,))

    def __str__(self) -> str:
        """The control as on the command line, where that can express it."""
        if self.kind == "is":
            return self._with_sign("=")
        if self.kind == "not":
            return self.parts[0]._with_sign("!=") if self.parts[0].kind == "is" else f"not ({self.parts[0]})"
        return (" or " if self.kind == "any" else " and ").join(map(str, self.parts))

    def _with_sign(self, sign: str) -> str:
        values = self.values if self.name == "regex" else [quoted(value, VALUE_SIGNS) for value in self.values]
        return f"{quoted(self.name, NAME_SIGNS)}{sign}{'|'.join(values)}"

    def as_sum(self) -> "Control":
        """Returns the same control as a weighted sum of parts."""
        return self if self.kind == "all" else Control("all", parts=(self,), weights=(1.0,))

    def leaves(self) -> list["Control"]:
        """Returns all names with their values, at any depth."""
        return [self] if self.kind == "is" else [leaf for part in self.parts for leaf in part.leaves()]


def classifier(name: str, *values: str) -> Control:
    """A label with one of these values."""
    return Control("is", name=name, values=values)


def length(tokens: int) -> Control:
    """This number of tokens of the model's tokenizer, EOS not counted. Raises UserError for less than one."""
    if not _is_count(str(tokens)):
        raise UserError(f"length takes a number of tokens from 1, got {tokens!r}.")
    return Control("is", name="length", values=(str(tokens),))


def keyword(*phrases: str) -> Control:
    """One of these phrases, word for word. Raises UserError for what is no text."""
    if wrong := [phrase for phrase in phrases if not isinstance(phrase, str)]:
        raise UserError(f"keyword takes texts, such as keyword('near', 'cheap'), got {wrong[0]!r}.")
    return Control("is", name="keyword", values=phrases)


def regex(pattern: str) -> Control:
    """A token of the model's tokenizer that matches the regular expression from its first to its last character."""
    return Control("is", name="regex", values=(pattern,))


def parts_of_speech(tags: str) -> Control:
    """These tags, one per word; or those of a sentence of the grammar."""
    return Control("is", name="pos", values=(tags,))


def tree(constituents: str) -> Control:
    """This tree in brackets, with any words as leaves; or that of a sentence of the grammar."""
    return Control("is", name="tree", values=(constituents,))


def span(name: str, first: int, last: int) -> Control:
    """A constituent of this name from word `first` to word `last`, counted from 1."""
    return Control("is", name="span", values=(f"{first}-{last}:{name}",))


def parse_control(text: str) -> Control:
    """Parses a control of the command line: NAME=VALUE, NAME!=VALUE or NAME=A|B, with or without *WEIGHT.

    A name that holds one of = ! * |, and a value that holds | or ends like a weight, stand in quotation marks.
    Raises UserError for any other text.
    """
    match = CONTROL.fullmatch(text.strip())
    name = unquoted(match["name"]) if match else ""
    if match is None or not (name == "regex" or VALUES.fullmatch(match["values"])):
        raise UserError(
            f"--control {text!r} is not NAME=VALUE, NAME!=VALUE, NAME=A|B or one of them with *WEIGHT. A name or value "
            """that holds such a sign stands in quotation marks: --control '"x=y"="w*2"'."""
        )
    weight = float(match["weight"] or 1.0)
    values = [match["values"]] if name == "regex" else re.findall(VALUE, match["values"], re.DOTALL)
    values = [unquoted(value) for value in values]
    if name == "length" and not (len(values) == 1 and match["sign"] == "=" and _is_count(values[0])):
        raise UserError(f"--control {text!r}: length takes a number of tokens, such as length=12.")
    control = classifier(name, *values)
    return (~control if match["sign"] == "!=" else control) * weight


def parse_controls(texts: Sequence[str]) -> Control | None:
    """Parses all controls of the command line into one that requires them together, None without any."""
    return functools.reduce(Control.__add__, map(parse_control, texts)).as_sum() if texts else None


def as_control(control: Control | str | None) -> Control | None:
    """Returns a control that may be given as on the command line, such as "food=Japanese".

    Raises UserError for anything else.
    """
    if isinstance(control, str):
        return parse_control(control)
    if control is not None and not isinstance(control, Control):
        raise UserError(
            f"A control is a {type(control).__name__}, {str(control)[:60]}; expected a text such as 'food=Japanese', "
            "or one of jtextdiff.controls."
        )
    return control


def _control(control: Control | str) -> Control:
    """Returns `as_control` of what must be one."""
    if (found := as_control(control)) is None:
        raise UserError("A control is missing; expected one such as 'food=Japanese'.")
    return found


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 0
