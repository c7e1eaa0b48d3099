"""ModernBERT as the start of masked diffusion: outputs, windows, errors, and a run by the command line."""

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.command_line import run
from support.published import write_tokenizer
from support.published_llama import MASK, MASKED_WORDS
from support.published_modernbert import config_json, forward, random_tensors, write_checkpoint
from support.runs import ROOT, write_texts

import jtextdiff as jtd
from jtextdiff.cli.errors import UserError
from jtextdiff.methods.block_diffusion import BlockDiffusion
from jtextdiff.methods.components.types import TextSpec
from jtextdiff.methods.masked import Masked
from jtextdiff.nets.attention import noisy_and_clean, one_text
from jtextdiff.nets.denoisers import Head
from jtextdiff.nets.transformer import Transformer
from jtextdiff.pretrained.families import open_source
from jtextdiff.pretrained.layouts.modernbert import modernbert_network
from jtextdiff.pretrained.vocabulary import take_rows

GOLDEN = ROOT.parent / "shared" / "golden" / "modernbert"
TEXT_SPEC = TextSpec(vocab_size=20, mask=MASK, pad=0, eos=1, unk=2, length=9, length_counts=(0,) * 9 + (1,))
TOKENS = np.array([[4, MASK, 13, 0, 3, MASK, 7, 3, 17], [3, 1, 6, 16, MASK, 18, 16, 16, 8]])
BASE = {
    "vocab_size": 50_368,
    "hidden_size": 768,
    "intermediate_size": 1152,
    "num_attention_heads": 12,
    "num_hidden_layers": 22,
    "local_attention": 128,
}
LOCAL = Transformer(
    num_layers=4, width=16, num_heads=2, positions="rotary", window=2, full_every=3, window_rotary_base=100.0
)


def method_of(config: dict[str, Any], text_spec: TextSpec = TEXT_SPEC, **trunk: Any) -> Masked:
    fields = dict(modernbert_network(config, "toy").settings)
    head, settings = Head(**fields.pop("head")), fields.pop("trunk")
    return Masked(text_spec=text_spec, trunk=Transformer(**settings | trunk), head=head, **fields)


def params_of(config: dict[str, Any]) -> Any:
    tensors = random_tensors(config)
    read = lambda name: take_rows(name, tensors[name], TEXT_SPEC)
    return modernbert_network(config, "toy").fold(read, lambda name, array: jnp.asarray(array))


def logits(method: Masked, params: Any) -> np.ndarray:
    apply = jax.jit(lambda params: method.net.bind(params)(jnp.asarray(TOKENS), valid=jnp.ones(TOKENS.shape, bool)))
    return np.asarray(apply(params))


@pytest.mark.parametrize("trunk", [{}, {"scan": True}, {"remat": True}, {"bfloat16": True}], ids=str)
def test_the_network_has_the_published_outputs(trunk: dict[str, bool]) -> None:
    """Also with blocks in scans, of which those of each kind in a row are one."""
    config = config_json()
    params, method = params_of(config), method_of(config, **trunk)
    shapes = jax.eval_shape(method.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
    expected = forward(config, random_tensors(config), TOKENS)
    np.testing.assert_allclose(logits(method, params), expected, atol=0.2 if trunk.get("bfloat16") else 2e-5, rtol=0)


@pytest.mark.slow
def test_states_of_numbered_blocks_are_the_same_in_scans() -> None:
    config = config_json()
    params, x = params_of(config), jax.random.normal(jax.random.key(0), (2, 9, 16))
    plain, scanned = (
        method_of(config, scan=scan).net.bind(params).trunk.states(x, blocks=(0, 2, 3)) for scan in (False, True)
    )
    jax.tree.map(lambda *each: np.testing.assert_allclose(*each, atol=1e-5), plain, scanned)


@pytest.mark.slow
def test_a_window_holds_with_the_cache_and_in_a_noisy_and_a_clean_text() -> None:
    """Blocks read from the cache have the outputs of both texts in one pass; a local block sees its window alone."""
    method = BlockDiffusion(text_spec=TEXT_SPEC, trunk=LOCAL, block_size=3)
    net = method.net.bind(method.init(jax.random.key(0)))
    clean = jnp.asarray(TOKENS % MASK)
    hidden = net.hidden(jnp.concatenate([TOKENS, clean], axis=1), layout=noisy_and_clean(9, 3))
    whole, cache = net.logits(hidden[:, :9]), net.init_cache(2, 9)
    for first in range(0, 9, 3):
        block = slice(first, first + 3)
        found, _ = net.block_step(jnp.asarray(TOKENS[:, block]), jnp.asarray(first), cache)
        np.testing.assert_allclose(found, whole[:, block], atol=1e-5)
        _, cache = net.block_step(clean[:, block], jnp.asarray(first), cache)


def test_a_local_block_attends_to_its_window_alone() -> None:
    trunk = dataclasses.replace(LOCAL, full_every=1)
    assert [LOCAL.is_local(block) for block in range(5)] == [False, True, True, False, True]
    assert not trunk.is_local(1)
    method = Masked(text_spec=TEXT_SPEC, trunk=LOCAL, reads_length=False)
    block = method.net.bind(method.init(jax.random.key(0))).trunk.blocks[1].attention
    x, positions = jax.random.normal(jax.random.key(1), (1, 9, 16)), np.arange(9)
    of = lambda x: block(x, one_text(9, causal=False, valid=None), None)
    influence = np.abs(jax.jit(jax.jacobian(of))(x)).sum((0, 2, 3, 5))
    np.testing.assert_array_equal(influence > 0, np.abs(positions[:, None] - positions) <= 2)


@pytest.mark.slow
def test_the_published_size_has_the_published_number_of_parameters() -> None:
    config = config_json(**BASE)
    assert sum(map(math.prod, modernbert_network(config, "base").tensors.values())) == 149_655_232
    method = method_of(config, dataclasses.replace(TEXT_SPEC, vocab_size=50_368))
    params = jax.eval_shape(method.init, jax.random.key(0))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == 149_655_232 + 768  # a row without a token


BROKEN = {
    "activation": ({"hidden_activation": "silu"}, "hidden_activation = 'silu'; only 'gelu'"),
    "biases": ({"norm_bias": True}, "norm_bias = True; only False"),
    "no bias": ({"decoder_bias": False}, "decoder_bias = False; only True"),
    "own output": ({"tie_word_embeddings": False}, "tie_word_embeddings = False; only True"),
    "heads": ({"num_attention_heads": 3}, "hidden_size must divide into num_attention_heads.* 16 and 3"),
    "no window": ({"local_attention": None}, "needs local_attention, a whole number of at least 1"),
    "no epsilon": ({"norm_eps": None}, "needs norm_eps, a number above 0"),
    "no base": ({"rope_parameters": None}, "needs global_rope_theta, a number above 0; it has None"),
    "other layers": ({"layer_types": ["full_attention"] * 4}, "layer_types = .*only .*'sliding_attention'"),
    "fewer layers": ({"num_hidden_layers": 3}, "has the unknown tensor model.layers.3"),
}


@pytest.mark.parametrize(("changes", "message"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_with_a_checkpoint_is_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    config = config_json()
    write_checkpoint(tmp_path, config)
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(UserError, match=message):
        open_source(str(tmp_path))


def test_both_versions_of_a_config_have_the_same_rotations() -> None:
    old = {"rope_parameters": None, "global_rope_theta": 160_000.0, "local_rope_theta": 10_000.0}
    assert method_of(config_json(**old)).trunk == method_of(config_json()).trunk


BAD = [
    ({"window": 0}, "window must be at least 1, or None, got 0"),
    ({"full_every": 0}, "full_every must be at least 1, got 0"),
    ({"window_rotary_base": 1.0}, "window_rotary_base must be a number above 1, got 1.0"),
    ({"input_norm": True, "norm": "post"}, "input_norm must be False with norm='post'"),
]


@pytest.mark.parametrize(("settings", "message"), BAD, ids=str)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(LOCAL, **settings)


def test_the_settings_of_today_are_the_defaults() -> None:
    old = {"norm_bias": True, "input_norm": False, "window": None, "full_every": 1, "window_rotary_base": None}
    assert Transformer() == Transformer(**old) and not Head().transform


def start(folder: Path) -> None:
    flags = [f"--config={ROOT}/configs/masked.py", "--config.init=checkpoint", "--workdir=run"]
    flags += ["--config.text.path=texts.txt", "--config.num_steps=0", "--config.batch_size=16"]
    done = run("train", *flags, cwd=folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"there is no published checkpoint in {GOLDEN}")
def test_an_imported_run_has_the_outputs_of_the_published_code(tmp_path: Path) -> None:
    write_texts(tmp_path)
    shutil.copytree(GOLDEN, tmp_path / "checkpoint", copy_function=shutil.copyfile)
    (tmp_path / "checkpoint").chmod(0o755)
    write_tokenizer(tmp_path / "checkpoint", MASKED_WORDS, mask_token="<mask>")
    start(tmp_path)
    model, expected = jtd.load(tmp_path / "run"), np.load(GOLDEN / "expected.npz")
    found = jax.jit(model.method.net.bind(model.params))(jnp.asarray(expected["tokens"].astype(np.int32)))
    np.testing.assert_allclose(found, expected["output"], atol=2e-5, rtol=0)


@pytest.mark.slow
def test_commands_work_on_an_imported_run(tmp_path: Path) -> None:
    write_texts(tmp_path)
    write_checkpoint(tmp_path / "checkpoint", config_json())
    start(tmp_path)
    few = ("--checkpoint", "run", "--steps", "4")
    infill = ("sample", *few, "--num", "2", "--template", "The [MASK] is [MASK] .")
    for command in (("sample", *few, "--num", "2"), infill, ("evaluate", *few, "--num", "16")):
        done = run(*command, cwd=tmp_path)
        assert done.returncode == 0, (command, done.stderr)
