"""Chunked maps: the same numbers as the whole, with less of them in memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion import losses as objectives
from jtextdiff.nets import chunking


@pytest.mark.parametrize("length", [1, 6, 7])
def test_chunks_equal_the_whole_and_are_recomputed_for_the_gradient(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, tokens = jax.random.normal(jax.random.key(0), (2, length, 5)), jnp.ones((2, length), int)

    def outputs(weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        def function(x: jax.Array, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
            return objectives.cross_entropy(x @ weight, tokens), jnp.sum(x @ weight, axis=-1)

        return chunking.map_chunks(function, 9, x, tokens)

    def loss(weight: jax.Array) -> jax.Array:
        return sum(jnp.sum(output) for output in outputs(weight))

    weight = jax.random.normal(jax.random.key(1), (5, 9))
    # The chunk size is a constant of the program: each is compiled anew.
    both = lambda: jax.jit(lambda weight: (outputs(weight), jax.grad(loss)(weight)))(weight)
    whole, gradient = both()
    for chunk_size in (1, 40, 60):
        monkeypatch.setattr(chunking, "CHUNK_SIZE", chunk_size)
        chunked, chunked_gradient = both()
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), chunked, whole)
        np.testing.assert_allclose(chunked_gradient, gradient, rtol=1e-4)
    jaxpr = str(jax.make_jaxpr(jax.grad(loss))(weight))
    assert ("checkpoint" in jaxpr or "remat" in jaxpr) == (length > 1)
