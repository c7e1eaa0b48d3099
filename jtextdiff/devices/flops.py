"""FLOPs of a function's matrix products, counted from its jaxpr.

The count does not depend on the device.
"""

import math
from collections.abc import Callable
from typing import Any

import jax


def matmul_flops(function: Callable[..., Any], *arguments: Any, share: float = 0.5) -> float:
    """Returns the floating-point operations of the matrix products of one call, two per multiply-add.

    `arguments` are arrays or their shapes. The true branch of a `cond` counts with weight `share`, the false branch
    with the rest. The body of a scan counts once per iteration, the body of a `while` once. Products whose result is
    unused count too, although the compiler removes them.
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
        if_false, if_true = (_count(branch.jaxpr, share) for branch in parameters["branches"])
        return (1 - share) * if_false + share * if_true
    inner = sum(_count(_inner_jaxpr(value), share) for value in parameters.values() if _inner_jaxpr(value) is not None)
    return inner * (parameters["length"] if equation.primitive.name == "scan" else 1)


def _inner_jaxpr(value: Any) -> Any:
    """Returns the jaxpr in a parameter of an equation; None if the parameter is something else."""
    value = getattr(value, "jaxpr", value)
    return value if hasattr(value, "eqns") else None
