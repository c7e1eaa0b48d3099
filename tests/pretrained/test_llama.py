"""The networks of the Llama family and ours have the same outputs, by every way of computing them."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.published import Tensors
from support.published_llama import KINDS, MASK, config_json, forward, random_tensors, shifted

from jtextdiff.devices.sharding import SMALL, shardings
from jtextdiff.methods.block_diffusion import BlockDiffusion
from jtextdiff.methods.components.types import TextSpec
from jtextdiff.methods.masked import Masked
from jtextdiff.nets.attention import noisy_and_clean
from jtextdiff.nets.denoisers import Head
from jtextdiff.nets.transformer import Transformer
from jtextdiff.pretrained.layouts.llama_settings import llama_network
from jtextdiff.pretrained.vocabulary import take_rows

TEXT_SPEC = TextSpec(vocab_size=20, mask=MASK, pad=0, eos=1, unk=2, length=9, length_counts=(0,) * 9 + (1,))
TOKENS = np.array([[4, MASK, 13, 0, 3, MASK, 7, 3, 17], [3, 1, 6, 16, MASK, 18, 16, 16, 8]])
GROUPED = Transformer(
    num_layers=2,
    width=16,
    num_heads=4,
    num_kv_heads=2,
    head_width=6,
    mlp_width=24,
    activation="silu",
    gated=True,
    qk_norm=True,
    normalization="rms",
    positions="rotary",
    max_length=12,
)
PUBLISHED = {
    "llada": (
        {
            "embedding_size": 126_464,
            "d_model": 4096,
            "n_heads": 32,
            "n_kv_heads": 32,
            "n_layers": 32,
            "mlp_hidden_size": 12_288,
        },
        8_015_581_184,
    ),
    "Dream": (
        {
            "vocab_size": 152_064,
            "hidden_size": 3584,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "intermediate_size": 18_944,
        },
        7_615_616_512,
    ),
    "a2d-qwen3": (
        {
            "vocab_size": 151_936,
            "hidden_size": 1024,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 3072,
        },
        596_049_920,
    ),
}
"""The published sizes, and their numbers of parameters."""


def method_of(config: dict[str, Any], text_spec: TextSpec = TEXT_SPEC, **trunk: Any) -> Masked:
    fields = dict(llama_network(config, "toy").settings)
    head, settings = Head(**fields.pop("head")), fields.pop("trunk")
    return Masked(text_spec=text_spec, trunk=Transformer(**settings | trunk), head=head, **fields)


def params_of(config: dict[str, Any], tensors: Tensors) -> Any:
    read = lambda name: take_rows(name, tensors[name], TEXT_SPEC)
    return llama_network(config, "toy").fold(read, lambda name, array: jnp.asarray(array))


def logits(method: Masked, params: Any) -> np.ndarray:
    apply = jax.jit(lambda params: method.net.bind(params)(jnp.asarray(TOKENS), valid=jnp.ones(TOKENS.shape, bool)))
    return np.asarray(apply(params))


@pytest.mark.parametrize("changes", [{}, {"bare": True}, {"tied": True}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_network_has_the_published_outputs(kind: str, changes: dict[str, bool]) -> None:
    """Also with as many heads of keys as of queries, and with the output tied where it is not by default."""
    llada = kind == "llada"
    bare = {"n_kv_heads": 4} if llada else {"num_key_value_heads": 4}
    tied = {"weight_tying": True} if llada else {"tie_word_embeddings": kind == "Dream"}
    config = config_json(kind, **(bare if "bare" in changes else tied if "tied" in changes else {}))
    tensors = random_tensors(config)
    expected = forward(config, tensors, TOKENS)
    found = logits(method_of(config), params_of(config, tensors))
    np.testing.assert_allclose(found, shifted(expected) if kind == "Dream" else expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_parameters_are_those_of_the_method_and_each_tensor_is_one_of_them(kind: str) -> None:
    config = config_json(kind)
    tensors = random_tensors(config)
    params, expected = params_of(config, tensors), jax.eval_shape(method_of(config).init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, expected)
    unused_row = 16  # MASK is a token, so that the row after the tokens has none
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == unused_row + sum(map(np.size, tensors.values()))
    sums = [float(np.sum(np.abs(array), dtype=np.float64)) for array in tensors.values()]
    assert sum(float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(params)) == pytest.approx(sum(sums), rel=1e-5)


@pytest.mark.parametrize(
    "trunk", [{"scan": True}, {"remat": True}, {"bfloat16": True}, {"bfloat16": True, "scan": True}]
)
def test_scan_rematerialisation_and_bfloat16_change_nothing_else(trunk: dict[str, bool]) -> None:
    config = config_json("a2d-qwen3")
    params = params_of(config, random_tensors(config))
    plain, other = logits(method_of(config), params), logits(method_of(config, **trunk), params)
    gap = np.abs(plain - other).max()
    assert (0 < gap < 0.1) if trunk.get("bfloat16") else gap < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("bfloat16", [False, True])
def test_the_cache_has_the_grouped_heads_and_gives_the_outputs_of_the_whole_pass(bfloat16: bool) -> None:
    """Blocks read from the cache have the outputs of a noisy and a clean text in one pass."""
    trunk = dataclasses.replace(GROUPED, bfloat16=bfloat16)
    method = BlockDiffusion(text_spec=TEXT_SPEC, trunk=trunk, block_size=3)
    net = method.net.bind(method.init(jax.random.key(0)))
    clean = jnp.asarray(TOKENS % MASK)
    hidden = net.hidden(jnp.concatenate([TOKENS, clean], axis=1), layout=noisy_and_clean(9, 3))
    whole, cache = net.logits(hidden[:, :9]), net.init_cache(2, 9)
    assert {leaf.shape for leaf in jax.tree.leaves(cache)} == {(2, 2, 9, 6)}
    for first in range(0, 9, 3):
        block = slice(first, first + 3)
        found, _ = net.block_step(jnp.asarray(TOKENS[:, block]), jnp.asarray(first), cache)
        np.testing.assert_allclose(found, whole[:, block], atol=0.05 if bfloat16 else 1e-5)
        _, cache = net.block_step(clean[:, block], jnp.asarray(first), cache)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_published_sizes_have_the_published_number_of_parameters(kind: str) -> None:
    """Without memory: of shapes alone. Every large array has a rule of sharding."""
    sizes, count = PUBLISHED[kind]
    config = config_json(kind, **sizes)
    assert sum(map(math.prod, llama_network(config, kind).tensors.values())) == count
    rows, width = llama_network(config, kind).rows, method_of(config).trunk.width
    method = method_of(config, dataclasses.replace(TEXT_SPEC, vocab_size=rows))
    params = jax.eval_shape(method.init, jax.random.key(0))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == count + width  # the row without a token
    mesh = jax.sharding.AbstractMesh((1, 2, 2), ("data", "fsdp", "tensor"))
    for leaf, layout in zip(jax.tree.leaves(params), jax.tree.leaves(shardings(mesh, params)), strict=True):
        large = leaf.size * 4 > SMALL
        assert layout.shard_shape(leaf.shape) != leaf.shape or not large


BAD = [
    ({"num_kv_heads": 3}, "num_heads must divide into num_kv_heads equal groups"),
    ({"num_kv_heads": 0}, "num_kv_heads must be at least 1, or None, got 0"),
    ({"mlp_width": 0}, "mlp_width must be at least 1, or None, got 0"),
    ({"head_width": 0}, "head_width must be at least 1, or None, got 0"),
    ({"head_width": 5}, "must be even, got head_width=5"),
    ({"normalization": "batch"}, "normalization must be one of .*'layer', 'rms'"),
    ({"positions": "xl"}, "must be None with positions='xl'"),
    ({"context_dim": 4}, "must be None with positions='xl' or a context"),
]


@pytest.mark.parametrize(("settings", "message"), BAD, ids=str)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(GROUPED, **settings)


def test_the_settings_of_today_are_the_defaults() -> None:
    """Models without the settings of these networks compute what they did, and so do stored ones."""
    old = {"mlp_width": None, "gated": False, "mlp_bias": True, "num_kv_heads": None, "head_width": None}
    old |= {"qk_norm": False, "attention_out_bias": None, "normalization": "layer"}
    assert Transformer() == Transformer(**old)
    assert Masked().head == Head(tied=False, bias=True, shifted=False)
