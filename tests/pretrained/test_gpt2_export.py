"""An autoregressive run in the layout of GPT-2: the published network has its outputs, and it is read to the bit."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from support.command_line import run
from support.published_gpt2 import forward
from support.runs import ROOT, TEXTS, toy, trained, write_texts

import jtextdiff as jtd
from jtextdiff.cli.errors import UserError
from jtextdiff.methods.autoregressive import Autoregressive
from jtextdiff.nets.denoisers import Head
from jtextdiff.nets.transformer import Transformer
from jtextdiff.pretrained.exported_layouts import layout_of

PUBLISHED = [
    "--config.method.trunk.positions=learned",
    "--config.method.head.tied=true",
    "--config.method.head.bias=false",
]
"""The settings that configs/README.md lists."""

FITS = Autoregressive(trunk=Transformer(causal=True, positions="learned"), head=Head(tied=True, bias=False))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained run `run`, its export `exported`, and the run `again` that has imported that."""
    folder = tmp_path_factory.mktemp("exported")
    write_texts(folder)
    gelu = "--config.method.trunk.activation=gelu_tanh"
    done = run("train", *toy("run", 3, *PUBLISHED, gelu, config="autoregressive.py"), cwd=folder)
    assert done.returncode == 0, done.stderr
    done = run("export", "run", "exported", cwd=folder)
    assert done.returncode == 0 and done.stdout == "", done.stderr
    card = (folder / "exported" / "README.md").read_text()
    (config,) = re.findall(r"--config (\S+) --config.init=exported", card)
    flags = (f"--config={ROOT}/{config}", "--config.init=exported", "--config.num_steps=0")
    again = run("train", *flags, "--config.text.path=texts.txt", "--workdir=again", cwd=folder)
    assert again.returncode == 0, again.stderr
    return folder


@pytest.mark.slow
def test_an_imported_export_is_the_same_model_to_the_bit(place: Path) -> None:
    first, again = jtd.load(place / "run"), jtd.load(place / "again")
    assert first.tokenizer.fingerprint() == again.tokenizer.fingerprint()
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)
    assert first.nll(TEXTS[:2]) == again.nll(TEXTS[:2])
    assert first.sample(2, seed=1) == again.sample(2, seed=1)


@pytest.mark.slow
def test_the_published_network_has_its_outputs(place: Path) -> None:
    model, config = jtd.load(place / "run"), json.loads((place / "exported" / "config.json").read_text())
    tokens = np.array(model.batch(TEXTS[:2]).tokens)
    tensors = load_file(place / "exported" / "model.safetensors")
    found = jax.jit(model.method.net.bind(model.params))(jnp.asarray(tokens))
    np.testing.assert_allclose(found, forward(config, tensors, tokens), atol=2e-5, rtol=0)


OTHER = {
    "trunk.positions": "learned+rotary",
    "trunk.norm": "post",
    "trunk.time": "adaln",
    "trunk.attention_bias": False,
    "trunk.gated": True,
    "head.tied": False,
    "head.bias": True,
    "head.transform": True,
}


@pytest.mark.parametrize("name", OTHER)
def test_a_setting_that_the_layout_lacks_is_named(name: str) -> None:
    part, _, field = name.partition(".")
    changed = dataclasses.replace(getattr(FITS, part), **{field: OTHER[name]})
    config_of = layout_of(FITS).config_of
    assert config_of(FITS)["model_type"] == "gpt2"
    message = rf"method\.{re.escape(name)} is {OTHER[name]!r}; the published layout of GPT-2 has only"
    with pytest.raises(UserError, match=message.replace("+", r"\+")):
        config_of(dataclasses.replace(FITS, **{part: changed}))


@pytest.mark.parametrize(("activation", "name"), [("gelu", "gelu"), ("gelu_tanh", "gelu_new"), ("silu", "silu")])
def test_what_the_layout_has_a_field_for_is_free(activation: str, name: str) -> None:
    trunk = dataclasses.replace(FITS.trunk, activation=activation, mlp_width=7, norm_epsilon=0.5, dropout=0.25)
    config = layout_of(FITS).config_of(dataclasses.replace(FITS, trunk=trunk))
    fields = ("activation_function", "n_inner", "layer_norm_epsilon", "resid_pdrop")
    assert [config[field] for field in fields] == [name, 7, 0.5, 0.25]


@pytest.mark.slow
@pytest.mark.parametrize("config", ["d3pm.py", "latent_ops.py"])
def test_a_method_without_a_layout_is_named(config: str, tmp_path: Path) -> None:
    done = run("export", str(trained(config)), "out", cwd=tmp_path)
    assert done.returncode == 2 and "only Masked and Autoregressive have a published layout" in done.stderr
    assert not (tmp_path / "out").exists()
