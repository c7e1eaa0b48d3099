"""Bytes sent between devices, read from compiled HLO."""

import math
import re
from collections import Counter
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
COLLECTIVE = re.compile(rf"= (.+?) ({'|'.join(KINDS)})(-start)?\(")
SHAPE = re.compile(r"(pred|bf16|[a-z]+(\d+))(?:[a-z]\w*)?\[([\d,]*)\]")
CALLED = re.compile(r"(?:body|to_apply|true_computation|false_computation|calls)=%?([\w.\-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Traffic(NamedTuple):
    """One kind of collective in one call of a program: how often it runs, and the bytes of its results per device."""

    times: int
    bytes: int  # in all
    largest: int  # of the largest result


def collectives(text: str) -> dict[str, Traffic]:
    """Returns the collectives of one call of a program, from `compiled.as_text()`.

    The body of a loop counts once per iteration, or once if the number of iterations is unknown. Each branch of a
    condition counts once.
    """
    entry, lines = _computations(text)
    results: dict[str, list[tuple[int, int]]] = {}
    for name, times in _call_counts(entry, lines).items():
        for line in lines[name]:
            if match := COLLECTIVE.search(line):
                size = _bytes(match[1], asynchronous=bool(match[3]))
                results.setdefault(match[2], []).append((times, size))
    return {
        kind: Traffic(sum(n for n, _ in sizes), sum(n * size for n, size in sizes), max(size for _, size in sizes))
        for kind, sizes in sorted(results.items())
    }


def _computations(text: str) -> tuple[str, dict[str, list[str]]]:
    """Returns the name of the entry computation, and the lines of every computation."""
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


def _call_counts(entry: str, lines: dict[str, list[str]]) -> Counter[str]:
    """Returns how often each computation runs in one call of the program."""
    counts: Counter[str] = Counter()

    def visit(name: str, times: int) -> None:
        counts[name] += times
        for line in lines.get(name, ()):
            trips = TRIPS.search(line)
            branches = [branch.strip().lstrip("%") for match in BRANCHES.findall(line) for branch in match.split(",")]
            for callee in [*CALLED.findall(line), *branches]:
                if callee in lines:
                    visit(callee, times * (int(trips[1]) if trips else 1))

    visit(entry, 1)
    return counts


def _bytes(shapes: str, *, asynchronous: bool) -> int:
    """Returns the size of a result, an array or a tuple; that of an `asynchronous` start may list operands first."""
    arrays, total = SHAPE.findall(shapes), 0
    if asynchronous and len(arrays) > 1:
        arrays = arrays[len(arrays) // 2 :]
    for kind, bits, sizes in arrays:
        width = 1 if kind == "pred" else 2 if kind == "bf16" else int(bits) / 8
        total += math.ceil(width * math.prod(int(size) for size in sizes.split(",") if size))
    return total
