"""Cases of parametrized tests, of which the fast suite runs some."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def slow_but(fast: Collection[Any], cases: Iterable[Any]) -> list[Any]:
    """Returns the cases, those that are not among `fast` marked as slow."""
    return [case if case in fast else pytest.param(case, marks=pytest.mark.slow) for case in cases]
