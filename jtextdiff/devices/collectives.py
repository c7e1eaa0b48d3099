"""Collectives: what a compiled program sends between devices, read off its text."""

import math
import re
from collections import Counter
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
SENT = re.compile(rf"= (.+?) ({'|'.join(KINDS)})(-start)?\(")
SHAPE = re.compile(r"(pred|bf16|[a-z]+(\d+))(?:[a-z]\w*)?\[([\d,]*)\]")
CALLED = re.compile(r"(?:body|to_apply|true_computation|false_computation|calls)=%?([\w.\-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Sent(NamedTuple):
    """One kind of collective: how many are done in a call of the program, the bytes of their results on a device in
    all, and of the largest one."""

    times: int
    bytes: int
    largest: int


def collectives(text: str) -> dict[str, Sent]:
    """The collectives of one call of a program, from `compiled.as_text()`.

    What a loop does counts as often as the loop is known to run, or once if that is not known; of the branches of a
    condition each counts once.
    """
    entry, lines = _computations(text)
    found: dict[str, list[tuple[int, int]]] = {}
    for name, times in _how_often(entry, lines).items():
        for line in lines[name]:
            if match := SENT.search(line):
                found.setdefault(match[2], []).append((times, _bytes(match[1], begun=bool(match[3]))))
    return {
        kind: Sent(sum(n for n, _ in each), sum(n * size for n, size in each), max(size for _, size in each))
        for kind, each in sorted(found.items())
    }


def _computations(text: str) -> tuple[str, dict[str, list[str]]]:
    """The name of the computation that is entered, and the lines of each."""
    lines: dict[str, list[str]] = {}
    entry = name = ""
    for line in text.splitlines():
        if match := COMPUTATION.match(line):
            name = match[1]
            lines[name] = []
            entry = name if line.startswith("ENTRY") else entry
        elif name:
            lines[name].append(line)
    return entry, lines


def _how_often(entry: str, lines: dict[str, list[str]]) -> Counter[str]:
    """How often each computation is done in one call of the program."""
    often: Counter[str] = Counter()

    def enter(name: str, times: int) -> None:
        often[name] += times
        for line in lines.get(name, ()):
            trips = TRIPS.search(line)
            branches = [each.strip().lstrip("%") for match in BRANCHES.findall(line) for each in match.split(",")]
            for inner in [*CALLED.findall(line), *branches]:
                if inner in lines:
                    enter(inner, times * (int(trips[1]) if trips else 1))

    enter(entry, 1)
    return often


def _bytes(shapes: str, *, begun: bool) -> int:
    """The size of a result, an array or a tuple of several; what is only `begun` may have its operands before it."""
    found, total = SHAPE.findall(shapes), 0
    if begun and len(found) > 1:
        found = found[len(found) // 2 :]
    for kind, bits, sizes in found:
        width = 1 if kind == "pred" else 2 if kind == "bf16" else int(bits) / 8
        total += math.ceil(width * math.prod(int(size) for size in sizes.split(",") if size))
    return total
