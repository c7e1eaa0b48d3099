"""An exported model has the published layout and outputs, and is imported as the same model to the bit."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from support.command_line import run
from support.published import denoised, forward
from support.runs import ROOT, TEXTS, toy, write_texts

import jtextdiff as jtd
from jtextdiff.export import build_parser
from jtextdiff.methods.masked import Masked
from jtextdiff.nets.transformer import Transformer
from jtextdiff.pretrained.exported_layouts import LAYOUTS
from jtextdiff.pretrained.layouts.dit_settings import PLAIN

PUBLISHED = [
    "--config.method.reads_length=false",
    *(f"--config.method.trunk.{name}={value}" for name, value in PLAIN.items()),
]
MASKED = f"--config={ROOT}/configs/masked.py"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained run `run`, its export `exported`, and the run `again` that has imported that."""
    folder = tmp_path_factory.mktemp("exported")
    write_texts(folder)
    trained = run("train", *toy("run", 5, *PUBLISHED, config="masked.py"), cwd=folder)
    assert trained.returncode == 0, trained.stderr
    (folder / "run" / "scores.json").write_text('{"distinct": 1}')
    exported = run("export", "run", "exported", cwd=folder)
    assert exported.returncode == 0 and exported.stdout == "", exported.stderr
    flags = (MASKED, "--config.init=exported", "--config.num_steps=0", "--config.text.path=texts.txt")
    again = run("train", *flags, "--workdir=again", cwd=folder)
    assert again.returncode == 0, again.stderr
    return folder


@pytest.mark.slow
def test_an_imported_export_is_the_same_model_to_the_bit(place: Path) -> None:
    first, again = jtd.load(place / "run"), jtd.load(place / "again")
    assert first.method.trunk == again.method.trunk and first.method.text_spec == again.method.text_spec
    assert first.tokenizer.fingerprint() == again.tokenizer.fingerprint()
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)
    tokens = jnp.asarray(first.batch(TEXTS[:2]).tokens)
    outputs = [np.asarray(jax.jit(model.method.net.bind(model.params))(tokens)) for model in (first, again)]
    np.testing.assert_array_equal(*outputs)


def test_the_published_network_has_its_outputs(place: Path) -> None:
    model, config = jtd.load(place / "run"), json.loads((place / "exported" / "config.json").read_text())
    mask = model.tokenizer.mask
    assert config["vocab_size"] == mask + 1
    tensors = load_file(place / "exported" / "model.safetensors")
    rotation = tensors.pop("backbone.rotary_emb.inv_freq")
    np.testing.assert_allclose(rotation, 10_000.0 ** (-np.arange(8) / 8), rtol=1e-6)
    tokens = np.array(model.batch(TEXTS[:2]).tokens)
    tokens[:, 1:4] = mask
    found = np.asarray(jax.jit(model.method.net.bind(model.params))(jnp.asarray(tokens)))
    expected = denoised(forward(config, tensors, tokens), tokens, mask)[:, 1:4, :mask]
    np.testing.assert_allclose(denoised(found, tokens, mask)[:, 1:4, :mask], expected, atol=2e-5, rtol=0)


def test_the_model_card_has_the_settings_and_the_scores_of_the_run(place: Path) -> None:
    card = (place / "exported" / "README.md").read_text()
    settings = json.loads(re.search(r"```json\n(.*)\n```", card, re.DOTALL)[1])
    stored = json.loads((place / "run" / "config.json").read_text())
    assert settings["optim"] == stored["optim"] and settings["method"]["trunk"] == stored["method"]["trunk"]
    assert "trained for 5 steps of 16 texts on texts.txt" in card and "[scores.json](scores.json)" in card
    assert json.loads((place / "exported" / "scores.json").read_text()) == {"distinct": 1}
    tokenizer = json.loads((place / "exported" / "tokenizer_config.json").read_text())
    assert (tokenizer["eos_token"], tokenizer["mask_token"]) == ("[EOS]", "[MASK]")


def test_scores_of_another_step_are_left_out(place: Path) -> None:
    file = place / "run" / "scores.json"
    file.write_text('{"step": 4}')
    done = run("export", "run", "of_step_5", cwd=place)
    file.write_text('{"distinct": 1}')
    assert done.returncode == 0 and "scores of step 4, and step 5 is exported" in done.stderr
    assert not (place / "of_step_5" / "scores.json").exists()


def test_a_folder_with_files_is_left_as_it_is(place: Path) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in (place / "exported").iterdir()}
    done = run("export", "run", "exported", cwd=place)
    assert done.returncode == 2 and "exported exists already" in done.stderr
    assert {file.name: file.stat().st_mtime_ns for file in (place / "exported").iterdir()} == before


def test_an_export_that_fails_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **settings: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr("jtextdiff.pretrained.export_files.save_file", fail)
    names = {file.name for file in place.iterdir()}
    done = run("export", "run", "failed", cwd=place)
    assert done.returncode == 1 and "the disk is gone" in done.stderr
    assert {file.name for file in place.iterdir()} == names


OTHER = {
    "expansion": 2,
    "activation": "gelu",
    "attention_bias": True,
    "norm": "post",
    "norm_epsilon": 1e-6,
    "positions": "learned",
    "rotary_base": 1_000.0,
    "causal": True,
    "time": "adaln",
}


@pytest.mark.parametrize("name", OTHER)
def test_a_setting_that_the_layout_lacks_is_named(name: str) -> None:
    from jtextdiff.cli.errors import UserError
    from jtextdiff.pretrained.exported_layouts import layout_of

    def method(**changes: object) -> Masked:
        return Masked(trunk=Transformer(**{**PLAIN, **changes}), reads_length=False)

    published_config = layout_of(method()).config_of
    assert published_config(method())["model_type"] == "mdlm"
    with pytest.raises(UserError, match=rf"method\.trunk\.{name} is {OTHER[name]!r}; the published layout"):
        published_config(method(**{name: OTHER[name]}))
    with pytest.raises(UserError, match="reads_length is True"):
        published_config(Masked(trunk=Transformer(**PLAIN)))


def test_another_method_has_no_layout(tmp_path: Path) -> None:
    done = run("export", "absent", "out", cwd=tmp_path)
    assert done.returncode == 2 and "no trained run in absent" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_help_names_the_configs_whose_runs_have_a_layout() -> None:
    text = build_parser().format_help()
    assert all(layout.config_file in text for layout in LAYOUTS.values())
    assert text.count("published checkpoint") == 2 and "hub:NAME" in text  # what --program takes besides
