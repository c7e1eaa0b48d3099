"""The fused attention of cuDNN against the plain one, forward and backward, with padding and odd lengths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jtextdiff.nets import layers
from jtextdiff.nets.attention import MASKED, Attention, can_fuse


def attention(causal_length: int) -> tuple[Attention, jax.Array, jax.Array, jax.Array]:
    """A layer, its input, the valid positions of three texts, and a mask of them."""
    net = Attention(
        128, 2, positions="rotary", reach=0, dropout=0.0, init="lecun", bfloat16=True, rngs=nnx.Rngs(0)
    )  # fmt: skip
    x = jax.random.normal(jax.random.key(1), (3, causal_length, 128))
    valid = jnp.arange(causal_length) < jnp.asarray([[causal_length], [causal_length // 2], [1]])
    return net, x, valid, valid[:, None, None, :]


@pytest.mark.parametrize("length", [2, 17, 24, 64, 127, 512])
def test_fused_attention_equals_plain_attention(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both round to bfloat16, 2^-8 relative, in other places; odd lengths have no fused kernel."""
    net, x, valid, mask = attention(length)
    weights = jax.random.normal(jax.random.key(2), x.shape) * valid[..., None]

    def value_and_gradient(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        total = lambda x: jnp.sum(net(x, mask, None) * weights)
        return net(x, mask, None) * valid[..., None], jax.grad(total)(x)

    fused = jax.jit(value_and_gradient)(x)
    monkeypatch.setattr(layers, "can_fuse", lambda query, dropout: False)
    plain = jax.jit(lambda x: value_and_gradient(x))(x)
    for ours, reference in zip(fused, plain, strict=True):
        assert np.all(np.isfinite(ours))
        difference = np.linalg.norm(np.asarray(ours - reference, np.float32))
        assert difference < 2e-2 * np.linalg.norm(np.asarray(reference, np.float32))


def test_the_fused_kernel_is_used_where_it_can_be() -> None:
    heads = jnp.zeros((1, 2, 64, 64), jnp.bfloat16)
    assert can_fuse(heads, 0.0) and not can_fuse(heads, 0.1)
    assert not can_fuse(heads[:, :, :63], 0.0) and not can_fuse(heads.astype(jnp.float32), 0.0)


def test_masked_positions_get_no_weight() -> None:
    assert np.exp(np.float32(MASKED)) == 0
