"""FLOPs: what the matrix products of a traced function cost, counted from its program, whatever the device."""

import math
from collections.abc import Callable
from typing import Any

import jax


def matmul_flops(function: Callable[..., Any], *arguments: Any, share: float = 0.5) -> float:
    """Floating-point operations of the matrix products of one call, two a multiply-add.

    `arguments` are arrays or their shapes. The second branch of a `cond` (what is done if it is true) counts as
    often as `share` says; the body of a scan as often as it runs, that of a `while` once. Products whose result
    is not used, which the compiler leaves out, count too.
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr, share)


def _count(jaxpr: Any, share: float) -> float:
    return sum(_cost(equation, share) for equation in jaxpr.eqns)


def _cost(equation: Any, share: float) -> float:
    parameters = equation.params
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        left, product = equation.invars[0].aval, equation.outvars[0].aval
        return 2.0 * product.size * math.prod(left.shape[axis] for axis in contracted)
    if equation.primitive.name == "cond":
        no, yes = (_count(branch.jaxpr, share) for branch in parameters["branches"])
        return (1 - share) * no + share * yes
    inner = sum(_count(_open(value), share) for value in parameters.values() if _open(value) is not None)
    return inner * (parameters["length"] if equation.primitive.name == "scan" else 1)


def _open(value: Any) -> Any:
    """The program in a parameter of an equation, if it is one."""
    value = getattr(value, "jaxpr", value)
    return value if hasattr(value, "eqns") else None
