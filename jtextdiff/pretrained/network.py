"""What the config.json of a published checkpoint says of its network, and whether its tensors fit it."""

import functools
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jtextdiff.cli.errors import UserError
from jtextdiff.nets.functional import Params
from jtextdiff.pretrained.checkpoint_files import FLOATS, Checkpoint, Tensor, shown
from jtextdiff.pretrained.layouts.tables import Place, Read

Shapes = dict[str, tuple[int, ...]]
"""Names of tensors, and their shapes."""


class Network(NamedTuple):
    """A network, the method that trains it, and the tensors that it is stored in."""

    model_type: str
    method: type
    config_file: str  # whose method it is
    settings: dict[str, Any]  # fields of the method, and of its trunk, that the network determines
    prefix: str  # of the names of its tensors
    tensors: Shapes  # those that it needs, without the prefix
    unread: Shapes  # those that may be there as well, with the prefix; of any type, unless they are copies
    copies: dict[str, str]  # those of them that must equal one that it needs
    rows: int  # of the embedding: tokens, MASK and padding
    mask: int | None  # the id of MASK, if config.json has it
    mask_kind: str  # "token" of the tokenizer, "row" that may come after them, or "none": MASK is never read
    fold: Callable[[Read, Place], Params]  # the published tensors ↦ our parameters
    computed: bool = False  # by arithmetic, in float32, so that bfloat16 would round what it returns
    former: tuple[tuple[str, str], ...] = ()  # patterns in former names of tensors, and what replaces them


def with_current_names(checkpoint: Checkpoint, network: Network) -> Checkpoint:
    """Returns a checkpoint with all tensors under their current names. Raises UserError if two have the same one."""
    tensors: dict[str, Tensor] = {}
    for stored, tensor in checkpoint.tensors.items():
        name = functools.reduce(lambda name, row: re.sub(*row, name), network.former, stored)
        if name in tensors:
            both = f"{shown(tensors[name].name)} and {shown(stored)}"
            raise UserError(f"{checkpoint.source} holds {both}, two names of one tensor; expected one of them.")
        tensors[name] = tensor
    return checkpoint._replace(tensors=tensors)


def check_tensors(checkpoint: Checkpoint, network: Network) -> None:
    """Raises UserError naming a tensor that is missing, unknown, or not what config.json implies."""
    source, found = checkpoint.source, checkpoint.tensors
    needed = {network.prefix + name: shape for name, shape in network.tensors.items()}
    known = needed | network.unread
    for names, problem in (
        (needed.keys() - found, "lacks the tensor"),
        (found.keys() - known, "has the unknown tensor"),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError(f"{source} {problem} {shown(min(names))}{more}; config.json and the weights do not fit.")
    for name, tensor in found.items():
        # A number may be stored with or without an axis.
        if tensor.shape != known[name] and not (known[name] == () and math.prod(tensor.shape) == 1):
            raise UserError(f"{source}: {name} has the shape {tensor.shape}; config.json implies {known[name]}.")
        if tensor.dtype not in FLOATS and (name in needed or name in network.copies):
            raise UserError(f"{tensor.file}: {name} has the type {tensor.dtype}; expected one of {', '.join(FLOATS)}.")
    for copied, name in network.copies.items():
        if copied in found and not np.array_equal(checkpoint.read(copied), checkpoint.read(network.prefix + name)):
            raise UserError(f"{source}: {copied} differs from {name}; config.json ties them, so that they are one.")


def check_constants(config: dict[str, Any], constants: Mapping[str, Any], source: str) -> None:
    """Raises UserError naming a field of config.json with another value than the only one that can be read.

    Null, false, and no field at all are the same.
    """
    for field, expected in constants.items():
        value = config.get(field, expected)
        if value != expected and (value or expected):
            raise UserError(f"{source}: config.json has {field} = {value!r}; only {expected!r} can be read.")


def positive(config: dict[str, Any], field: str, source: str) -> int:
    """Returns a size. Raises UserError unless it is a whole number of at least 1."""
    value = config.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{source}: config.json needs {field}, a whole number of at least 1; it has {value!r}.")
    return value


def check_heads(
    config: dict[str, Any], width_field: str, heads_field: str, source: str, *, rotated: bool = True
) -> None:
    """Raises UserError unless the width divides into equal heads, and of an even width if they are `rotated`."""
    width, heads = positive(config, width_field, source), positive(config, heads_field, source)
    if width % ((2 if rotated else 1) * heads):
        kind = "heads of an even width" if rotated else "equal heads"
        raise UserError(
            f"{source}: {width_field} must divide into {heads_field} {kind}; config.json has {width} and {heads}."
        )


def check_fits(method: Any, expected: Mapping[str, Any], layout: str) -> None:
    """Raises UserError naming a setting of a method, such as "trunk.norm", that a published layout lacks."""
    for name, value in expected.items():
        if (found := operator.attrgetter(name)(method)) != value:
            raise UserError(f"method.{name} is {found!r}; the published layout of {layout} has only {value!r}.")


PUBLISHED_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
}
"""Published name of an activation ↦ ours."""


def activation_of(config: dict[str, Any], field: str, source: str) -> str:
    """Returns our name of an activation. Raises UserError for one that the transformer lacks."""
    value = config.get(field)
    if not isinstance(value, str) or value not in PUBLISHED_ACTIVATIONS:
        known = ", ".join(PUBLISHED_ACTIVATIONS)
        raise UserError(f"{source}: config.json needs {field}, one of {known}; it has {value!r}.")
    return PUBLISHED_ACTIVATIONS[value]


def published_activation(activation: str) -> str:
    """Returns the published name of an activation of ours."""
    return next(name for name, ours in PUBLISHED_ACTIVATIONS.items() if ours == activation)


def number(field: str, value: Any, source: str) -> float:
    """Returns the value of a field. Raises UserError unless it is a number above 0."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
        raise UserError(f"{source}: config.json needs {field}, a number above 0; it has {value!r}.")
    return float(value)
