"""Tables of a layout, with `*` for the number of a block, and arrays under names with dots between parts."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from jtextdiff.nets.functional import Params

Tensors = dict[str, Float[np.ndarray, "..."]]
"""Arrays by their names, which have dots between parts."""

Read = Callable[[str], Float[np.ndarray, "..."]]
"""Name ↦ array, which may be read from a file only now."""

Place = Callable[[str, Float[np.ndarray, "..."]], Any]
"""(our name, array) ↦ the array where it is to be, such as on a device."""


def sized(table: Mapping[str, str], letters: Mapping[str, int], num_blocks: int) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each array of a table of sizes such as "3H H", where `letters` has the value of H."""

    def size(text: str) -> int:
        number, letter = re.fullmatch(r"(\d*)([A-Z]?)", text).groups()  # pyright: ignore
        return int(number or 1) * (letters[letter] if letter else 1)

    return {name: tuple(map(size, text.split())) for name, text in per_block(table, num_blocks).items()}


def of_block(table: Mapping[str, str], block: int) -> dict[str, str]:
    """Returns the rows of a table for one block."""
    number = str(block)
    return {ours.replace("*", number): row.replace("*", number) for ours, row in table.items() if "*" in ours}


def outside_blocks(table: Mapping[str, str]) -> dict[str, str]:
    return {ours: row for ours, row in table.items() if "*" not in ours}


def per_block(table: Mapping[str, str], num_blocks: int) -> dict[str, str]:
    """Returns a table with a row for each block in place of those of any block."""
    rows = outside_blocks(table)
    for block in range(num_blocks):
        rows |= of_block(table, block)
    return rows


def transposed(ours: str, array: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Returns the transpose of an array if it is a kernel: ours are [in, out], published weights [out, in]."""
    return np.ascontiguousarray(array.T) if ours.endswith("kernel") else array


def part_of(read: Read, text: str, axis: int = 0) -> Float[np.ndarray, "..."]:
    """Returns the tensor "name", or part i of n equal ones along an axis, "name i/n"."""
    name, _, part = text.partition(" ")
    if not part:
        return read(name)
    index, num = map(int, part.split("/"))
    return np.split(read(name), num, axis=axis)[index]


def params_of(
    array_of: Callable[[str, str], Float[np.ndarray, "..."]], names: Mapping[str, str], place: Place
) -> Params:
    """Returns our parameters, one at a time, each passed to `place`.

    `names` has a row for each array, and `array_of` maps our name and theirs to the array.
    """
    params: Params = {}
    for ours, theirs in names.items():
        insert(params, ours, place(ours, array_of(ours, theirs)))
    return params


def leaf(tree: Any, path: str) -> Any:
    """Returns the leaf of nested dictionaries at a path with dots."""
    for name in path.split("."):
        tree = tree[name]
    return tree


def insert(params: Params, path: str, array: Any) -> None:
    """Puts an array into nested dictionaries at a path with dots."""
    *parents, name = path.split(".")
    for parent in parents:
        params = params.setdefault(parent, {})
    params[name] = array
