"""The fused attention of cuDNN against the plain one, forward and backward, with padding and odd lengths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jtextdiff.nets import attention as attention_module
from jtextdiff.nets.attention import MASKED, Attention, can_fuse, one_text


def attention(length: int, groups: int) -> tuple[Attention, jax.Array, jax.Array]:
    """A layer, its input, and the valid positions of three texts."""
    net = Attention(
        128,
        2,
        num_kv_heads=groups,
        head_width=64,
        positions="rotary",
        rotary_base=1_000.0,
        window=None,
        reach=0,
        bias=True,
        out_bias=True,
        head_norm=None,
        dropout=0.0,
        init="lecun",
        bfloat16=True,
        rngs=nnx.Rngs(0),
    )
    x = jax.random.normal(jax.random.key(1), (3, length, 128))
    return net, x, jnp.arange(length) < jnp.asarray([[length], [length // 2], [1]])


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("length", [2, 17, 24, 64, 127, 512])
def test_fused_attention_equals_plain_attention(length: int, groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both round to bfloat16, 2^-8 relative, in other places; odd lengths have no fused kernel."""
    net, x, valid = attention(length, groups)
    weights = jax.random.normal(jax.random.key(2), x.shape) * valid[..., None]
    layout = one_text(length, causal=False, valid=valid)

    def value_and_gradient(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        total = lambda x: jnp.sum(net(x, layout, None) * weights)
        return net(x, layout, None) * valid[..., None], jax.grad(total)(x)

    fused = jax.jit(value_and_gradient)(x)
    monkeypatch.setattr(attention_module, "can_fuse", lambda query, dropout: False)
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
