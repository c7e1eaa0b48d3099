"""FLOPs are counted by the shapes of matrix products, through every kind of program."""

import jax
import jax.numpy as jnp
import pytest

from jtextdiff.devices.flops import matmul_flops

ONE, TWO = jax.ShapeDtypeStruct((3, 5), jnp.float32), jax.ShapeDtypeStruct((5, 7), jnp.float32)
PRODUCT = 2 * 3 * 5 * 7


def many(x: jax.Array, y: jax.Array) -> jax.Array:
    return jax.lax.scan(lambda total, _: (total + (x @ y).sum(), None), 0.0, None, length=11)[0]


def either(x: jax.Array, y: jax.Array) -> jax.Array:
    return jax.lax.cond(x[0, 0] > 0, lambda: (x @ y).sum(), lambda: 0.0)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (jnp.matmul, PRODUCT),
        (lambda x, y: x.sum() + y.sum(), 0),
        (jax.jit(lambda x, y: jnp.sin(x @ y)), PRODUCT),
        (many, 11 * PRODUCT),
        (either, PRODUCT / 2),
        (jax.grad(lambda x, y: (x @ y).sum(), argnums=(0, 1)), 3 * PRODUCT),
        (jax.checkpoint(lambda x, y: x @ y), PRODUCT),
        (lambda x, y: jnp.einsum("bij,bjk->bik", jnp.stack([x] * 4), jnp.stack([y] * 4)), 4 * PRODUCT),
    ],
)
def test_products_are_counted(function, expected: float) -> None:
    assert matmul_flops(function, ONE, TWO) == expected


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_branch_counts_as_often_as_it_is_taken(share: float) -> None:
    assert matmul_flops(either, ONE, TWO, share=share) == share * PRODUCT
