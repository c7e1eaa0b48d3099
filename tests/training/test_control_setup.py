"""Names of labels: those that could not be asked for are refused, and others are printed as they must be asked for."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import classifier, parse_control
from jtextdiff.data.corpus import Text, prepare_corpus
from jtextdiff.run.config import to_json
from jtextdiff.run.config_files import load_config
from jtextdiff.training.control_setup import control_config, control_flag
from jtextdiff.training.setup import complete_config

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("label", "message"),
    [("length", "no training"), ("span", "no training"), ("a/b", "directory"), ("..", "directory"), (".", "directory")],
)
def test_a_control_cannot_have_a_name_that_means_another_thing(label: str, message: str) -> None:
    flags = ["--config.base=runs/base", f"--config.label={label}"]
    with pytest.raises(UserError, match=f"{message}.*--config.text.labels=COLUMN=NAME"):
        control_config(load_config(f"{CONFIGS}/control.py", flags))


@pytest.mark.parametrize("label", ["length", "regex", "pos", "span", "x=y"])
def test_a_model_is_not_conditioned_on_such_a_name(label: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"text,{label}\n" + "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(40)))
    text: Any = {"path": str(tmp_path / "a.csv"), "tokenizer": "words:1"}
    corpus = prepare_corpus(Text(**text), cache=tmp_path / "c", warn=lambda note: None)
    config = load_config(f"{CONFIGS}/latent_ops.py:cvae", [f"--config.method.condition={label}"])
    if label == "x=y":
        assert complete_config(config, corpus, tmp_path / "run").method["values"] == ("a", "b")
        return
    with pytest.raises(UserError, match=f"--control {label} means something else.*COLUMN=NAME"):
        complete_config(config, corpus, tmp_path / "run")


@pytest.mark.parametrize(
    "field",
    ["tokenizer=characters:2", "tokenizer=words", "length=9", "length=64", "buckets=1", "buckets=3", "column=review"],
)
def test_a_control_reads_texts_as_its_base_does(field: str, tmp_path: Path) -> None:
    base = load_config(
        f"{CONFIGS}/diffusion_lm.py",
        ["--config.text.tokenizer=words:5", "--config.text.length=32", "--config.text.buckets=2"],
    )
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    (tmp_path / "config.json").write_text(to_json(base))
    flags = [f"--config.base={tmp_path}", "--config.label=food", f"--config.text.{field}"]
    with pytest.raises(UserError, match=f"--config.text.{field} does not apply to a control.*Leave it out"):
        control_config(load_config(f"{CONFIGS}/control.py", flags))
    assert control_config(load_config(f"{CONFIGS}/control.py", flags[:2])).text.tokenizer == "words:5"


@pytest.mark.parametrize(
    ("of_base", "own"), [("words", "words:10"), ("characters:2", "characters"), ("words", "words")]
)
def test_the_tokenizer_of_the_base_may_be_given(of_base: str, own: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    base = load_config(f"{CONFIGS}/diffusion_lm.py", [f"--config.text.tokenizer={of_base}"])
    (tmp_path / "config.json").write_text(to_json(base))
    flags = [f"--config.base={tmp_path}", "--config.label=food", f"--config.text.tokenizer={own}"]
    assert control_config(load_config(f"{CONFIGS}/control.py", flags)).text.tokenizer == of_base
    flags[-1] = "--config.text.tokenizer=words:x"
    with pytest.raises(UserError, match="text.tokenizer is 'words:x'; expected words:N"):
        control_config(load_config(f"{CONFIGS}/control.py", flags))


@pytest.mark.parametrize("label", ["price", "w*2", "x=y", "food type", "it's"])
def test_the_flag_that_is_printed_asks_for_the_label(label: str) -> None:
    flag, control = shlex.split(control_flag(label))
    assert flag == "--control" and parse_control(control) == classifier(label, "VALUE") * 1.0
