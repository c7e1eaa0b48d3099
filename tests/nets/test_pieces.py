"""Pieces: the same numbers, and less of them at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.diffusion import losses as objectives
from jtextdiff.nets import chunking as pieces


@pytest.mark.parametrize("length", [1, 6, 7])
def test_pieces_are_the_whole_and_none_is_kept_for_the_gradient(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, words = jax.random.normal(jax.random.key(0), (2, length, 5)), jnp.ones((2, length), int)

    def answers(weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = lambda x, words: (objectives.cross_entropy(x @ weight, words), jnp.sum(x @ weight, axis=-1))
        return pieces.by_pieces(values, 9, x, words)

    loss = lambda weight: sum(jnp.sum(value**2) for value in answers(weight))
    weight = jax.random.normal(jax.random.key(1), (5, 9))
    whole, slope = answers(weight), jax.grad(loss)(weight)
    for most in (1, 40, 60):
        monkeypatch.setattr(pieces, "PIECE", most)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), answers(weight), whole)
        np.testing.assert_allclose(jax.grad(loss)(weight), slope, rtol=1e-4)
    saved = jax.make_jaxpr(jax.grad(loss))(weight)
    assert ("checkpoint" in str(saved) or "remat" in str(saved)) == (length > 1)
