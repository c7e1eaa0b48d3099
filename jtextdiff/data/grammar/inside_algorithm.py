"""The inside algorithm, by sentence length: one pass that sums a weight over all derivations.

The inside value of a symbol is a polynomial: the coefficient of z^n sums over its derivations of n words. The
coefficients are themselves polynomials in e, truncated after the first few powers. So one recursion computes:

    weight of a rule        coefficient of the start symbol
    p                       probability of n words
    0 or p                  probability of n words and of the given attributes
    1                       number of derivations
    p + e p log p           e: sum of p log p, for the entropy (log of a product is a sum of logs: e^2 = 0)
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from jtextdiff.data.grammar.feature_rules import Rule, Rules


def inside(rules: Rules, weigh: Callable[[Rule], Sequence[float]], longest: int) -> NDArray:
    """Sums the products of rule weights over all derivations: [powers of e, number of words 0 ... longest].

    Integer weights are summed in exact integers.
    """
    values: list[NDArray] = []
    for alternatives in rules.alternatives:
        terms = [_rule_value(rule, weigh(rule), values, longest) for rule in alternatives]
        total = np.zeros((len(terms[0]), max(term.shape[1] for term in terms)), terms[0].dtype)
        for term in terms:
            total[:, : term.shape[1]] += term
        values.append(total)
    start = values[-1]
    padding = np.zeros((len(start), longest + 1 - start.shape[1]), start.dtype)
    return np.concatenate([start, padding], axis=1)


def _rule_value(rule: Rule, weight: Sequence[float], values: Sequence[NDArray], longest: int) -> NDArray:
    """Returns the inside value of one rule: its weight times its children's values, shifted by its own words."""
    children = [item for item in rule.body if isinstance(item, int)]
    value = np.zeros((len(weight), len(rule.body) - len(children) + 1), np.dtype(type(weight[0])))
    if isinstance(weight[0], int):
        value = value.astype(object)
    value[:, -1] = weight
    if not any(weight):
        return value[:, : longest + 1]
    for child in children:
        value = _multiply(value, values[child])[:, : longest + 1]
    return value


def _multiply(a: NDArray, b: NDArray) -> NDArray:
    """Returns the product of two polynomials in z; coefficients keep as many powers of e as those of `a`."""
    product = np.zeros((len(a), a.shape[1] + b.shape[1] - 1), a.dtype)
    for i in range(len(a)):
        for j in range(len(a) - i):
            product[i + j] += np.convolve(a[i], b[j])
    return product
