"""The published network and ours have the same outputs, and the mapping between them can be inverted."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.published import Tensors, config_json, denoised, forward, random_tensors

from jtextdiff.methods.components.types import TextSpec
from jtextdiff.nets.attention import noisy_and_clean
from jtextdiff.nets.denoisers import Head
from jtextdiff.nets.transformer import Transformer
from jtextdiff.pretrained.layouts.dit import fold, unfold
from jtextdiff.pretrained.layouts.dit_layout import shapes
from jtextdiff.pretrained.layouts.dit_settings import dit_network, sizes_of
from jtextdiff.pretrained.vocabulary import give_rows, take_rows

TEXT_SPEC = TextSpec(vocab_size=20, mask=20, pad=0, eos=1, unk=2, length=9, length_counts=(0,) * 9 + (1,))
TOKENS = np.array([[4, 19, 20, 0, 3, 20, 7, 3, 17], [20, 1, 20, 16, 19, 18, 20, 16, 8]])
CLEAN = np.array([[11, 2, 6, 3, 11, 17, 19, 16, 6], [12, 11, 10, 17, 9, 9, 17, 15, 5]])
MDLM_OWT = {"vocab_size": 50_258, "hidden_dim": 768, "cond_dim": 128, "n_blocks": 12, "n_heads": 12}


def method_of(config: dict[str, Any], text_spec: TextSpec = TEXT_SPEC) -> Any:
    network = dit_network(config, "toy")
    fields = dict(network.settings)
    trunk = Transformer(**fields.pop("trunk"))
    head = {"head": Head(**fields.pop("head"))} if "head" in fields else {}
    return network.method(text_spec=text_spec, trunk=trunk, **head, **fields)


def reader(tensors: Tensors, text_spec: TextSpec = TEXT_SPEC) -> Callable[[str], np.ndarray]:
    """Returns what reads tensors with the rows of our vocabulary."""
    return lambda name: take_rows(name, tensors[f"backbone.{name}"], text_spec)


def published(tensors: Tensors) -> Tensors:
    return {f"backbone.{name}": array for name, array in tensors.items()}


def our_log_p(method: Any, params: Any, tokens: np.ndarray, clean: np.ndarray | None) -> np.ndarray:
    """Returns log p of the tokens but MASK, and 0 or −∞ at written positions."""
    net = method.net.bind(jax.tree.map(jnp.asarray, params))
    if clean is None:
        logits = jax.jit(net)(tokens, valid=np.ones(tokens.shape, bool))
    else:
        layout = noisy_and_clean(tokens.shape[1], method.block_size)
        of_both = lambda both: net.logits(net.hidden(both, layout=layout)[:, : tokens.shape[1]])
        logits = jax.jit(of_both)(np.concatenate([tokens, clean], axis=1))
    return denoised(np.asarray(logits), tokens, method.text_spec.mask)


@pytest.mark.parametrize(("kind", "clean"), [("mdlm", None), ("bd3lm", CLEAN)])
def test_the_network_has_the_published_outputs(kind: str, clean: np.ndarray | None) -> None:
    config = config_json(kind)
    tensors = random_tensors(config)
    params = fold(reader(tensors), config["n_blocks"])
    expected = denoised(forward(config, tensors, TOKENS, clean), TOKENS, 20)[..., :20]
    masked = TOKENS == 20
    found = our_log_p(method_of(config), params, TOKENS, clean)
    np.testing.assert_allclose(found[masked], expected[masked], atol=2e-5, rtol=0)
    np.testing.assert_array_equal(found[~masked], expected[~masked])


@pytest.mark.parametrize("kind", ["mdlm", "bd3lm"])
def test_the_parameters_are_those_of_the_method(kind: str) -> None:
    config = config_json(kind)
    params = fold(reader(random_tensors(config)), config["n_blocks"])
    expected = jax.eval_shape(method_of(config).init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("mask", [20, 4])
def test_import_inverts_export_to_the_bit(mask: int) -> None:
    text_spec = TextSpec(vocab_size=20, mask=mask, length=9)
    method = method_of(config_json(), text_spec)
    noise = jax.random.normal
    fresh = method.init(jax.random.key(0))
    keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(fresh))))
    params = jax.tree.map(lambda leaf: np.asarray(noise(next(keys), leaf.shape)), fresh)
    if mask < 20:
        params["embed"]["embedding"] = params["embed"]["embedding"].copy()
        params["embed"]["embedding"][20] = 0  # a row that no token has
    tensors = {name: give_rows(name, array, text_spec) for name, array in unfold(params, 2, cond_dim=6).items()}
    again = fold(reader(published(tensors), text_spec), 2)
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_export_inverts_import_but_for_the_conditioning() -> None:
    """The exported network is another one with the same outputs, and is exported and imported as itself."""
    config = config_json()
    tensors = random_tensors(config)
    exported = unfold(fold(lambda name: tensors[f"backbone.{name}"], 2), 2, cond_dim=6)
    outputs = [forward(config, each, TOKENS) for each in (tensors, published(exported))]
    np.testing.assert_allclose(*outputs, atol=2e-5)
    again = unfold(fold(exported.__getitem__, 2), 2, cond_dim=6)
    assert again.keys() == exported.keys()
    for name, array in exported.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


def test_padding_rows_are_left_out_and_mask_is_the_last_row() -> None:
    config = config_json(vocab_size=24)
    tensors = random_tensors(config)
    params = fold(reader(tensors), 2)
    table = tensors["backbone.vocab_embed.embedding"]
    np.testing.assert_array_equal(params["embed"]["embedding"], table[[*range(20), 23]])
    np.testing.assert_array_equal(params["answer"]["kernel"].T, tensors["backbone.output_layer.linear.weight"][:20])


def test_the_published_size_has_the_published_number_of_parameters() -> None:
    config = {"model_type": "mdlm", "model_length": 1024, **MDLM_OWT}
    sizes = sizes_of(config, "mdlm-owt")
    tensors = shapes(sizes)
    assert sum(map(math.prod, tensors.values())) == 169_627_218
    text_spec = TextSpec(vocab_size=50_257, mask=50_257, pad=50_256, eos=50_256, length=1024)
    ours = jax.eval_shape(method_of(config, text_spec).init, jax.random.key(0))
    conditioning = sum(math.prod(shape) for name, shape in tensors.items() if "adaLN" in name or "sigma" in name)
    norm_biases = 768 * (2 * 12 + 1)
    num_ours = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(ours))
    assert num_ours == 169_627_218 - conditioning + norm_biases - (768 + 1)  # MASK has no output


def test_the_settings_of_today_are_the_defaults() -> None:
    """Models without the settings of published networks compute what they did."""
    old = {"rotary_base": 1_000.0, "activation": "gelu", "attention_bias": True, "norm_epsilon": None}
    assert Transformer() == Transformer(**old)
    assert (Transformer().epsilon, Transformer(norm="post").epsilon) == (1e-6, 1e-12)


@pytest.mark.parametrize(
    "settings", [{"rotary_base": 1.0}, {"rotary_base": math.inf}, {"norm_epsilon": 0.0}, {"activation": "relu"}]
)
def test_impossible_settings_of_a_network_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Transformer(**settings)
