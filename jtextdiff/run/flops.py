"""FLOPs: what the matrix products of a traced function cost, counted from its program, whatever the device."""

import math
from collections.abc import Callable
from typing import Any

import jax


def matmul_flops(function: Callable[..., Any], *arguments: Any) -> float:
    """Floating-point operations of the matrix products of one call, two a multiply-add.

    `arguments` are arrays or their shapes. A branch of a `cond` counts for its share, each being as likely as
    another; the body of a scan counts as often as it runs, that of a `while` once.
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr: Any) -> float:
    return sum(_cost(equation) for equation in jaxpr.eqns)


def _cost(equation: Any) -> float:
    parameters = equation.params
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        left, product = equation.invars[0].aval, equation.outvars[0].aval
        return 2.0 * product.size * math.prod(left.shape[axis] for axis in contracted)
    if equation.primitive.name == "cond":
        branches = parameters["branches"]
        return sum(_count(branch.jaxpr) for branch in branches) / len(branches)
    inner = sum(_count(_open(value)) for value in parameters.values() if _open(value) is not None)
    return inner * (parameters["length"] if equation.primitive.name == "scan" else 1)


def _open(value: Any) -> Any:
    """The program in a parameter of an equation, if it is one."""
    value = getattr(value, "jaxpr", value)
    return value if hasattr(value, "eqns") else None
