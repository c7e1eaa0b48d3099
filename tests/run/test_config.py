"""Configs: dataclasses round-trip through config and JSON, and errors name the field and suggest a correction."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from ml_collections import ConfigDict
from support.runs import ROOT

from jtextdiff.cli.errors import UserError
from jtextdiff.methods.autoregressive import Autoregressive
from jtextdiff.methods.components.types import TextSpec
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.nets.transformer import Transformer
from jtextdiff.run.config import build, class_of, differences, from_json, spec, to_json
from jtextdiff.run.config_files import OF_ONE_METHOD, choose_preset, load_config, override
from jtextdiff.sampling.gaussian_samplers import Sampler
from jtextdiff.training.optimizer import Optimizer

VALUES = [
    Optimizer(),
    Optimizer(clip=None, decay_steps=7),
    Sampler(name="ddim", eta=0.3),
    Autoregressive(),
    DiffusionLM(
        text_spec=TextSpec(vocab_size=5, length=3, length_counts=(0, 2, 1, 4)),
        trunk=Transformer(num_layers=2, width=8, num_heads=2),
        embed_norm=None,
        embeddings="learned",
        sampler=Sampler(steps=3),
    ),
]
CONFIG = '''"""A config of its own."""
from jtextdiff.methods.autoregressive import Autoregressive
from jtextdiff.run.config import spec
from jtextdiff.run.config_files import base_config, choose_preset
from jtextdiff.training.optimizer import Optimizer

def get_config(preset=""):
    return choose_preset(preset, {"": default, "paper": paper})()

def default():
    return base_config(spec(Autoregressive), spec(Optimizer), num_steps=9, batch_size=4)

def paper():
    config = default()
    config.seed = 7
    return config
'''


def fields(value: object) -> dict:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "own.py"
    path.write_text(CONFIG)
    return str(path)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_spec_and_build_are_inverse(value: object) -> None:
    assert build(spec(type(value), **fields(value))) == value


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_json_changes_nothing(value: object) -> None:
    text = to_json(spec(type(value), **fields(value)))
    assert build(from_json(text)) == value
    assert to_json(from_json(text)) == text


def test_defaults_are_the_dataclass_s_own() -> None:
    assert build(spec(DiffusionLM)) == DiffusionLM()


def test_spec_refuses_an_unknown_field() -> None:
    with pytest.raises(TypeError, match="Did you mean 'warmup'"):
        spec(Optimizer, warmpu=3)


def test_only_classes_of_the_library_are_built() -> None:
    for name in ("subprocess:Popen", "jtextdiffx:Method", "os:system", "jtextdiff.run.config:spec"):
        with pytest.raises(UserError, match="not a dataclass of jtextdiff"):
            build(ConfigDict({"class": name}))


def test_values_that_a_dataclass_rejects_raise_user_errors() -> None:
    with pytest.raises(UserError, match="ema must be in"):
        build(spec(Optimizer, ema=2.0))


def test_overrides_have_the_field_s_type() -> None:
    config = ConfigDict({"optim": spec(Optimizer)})
    changed = override(config, ["optim.peak=0.5", "optim.warmup=3", "optim.ema_warmup=false", "optim.decay=linear"])
    made = build(changed.optim)
    assert made == Optimizer(peak=0.5, warmup=3, ema_warmup=False, decay="linear")
    assert type(made.warmup) is int
    assert build(config.optim) == Optimizer(), "the original does not change"


@pytest.mark.parametrize("config", ["fresh", "stored"])
def test_an_optional_field_takes_a_value(config: str) -> None:
    one = ConfigDict({"optim": spec(Optimizer, clip=None)})
    one = one if config == "fresh" else from_json(to_json(one))
    assert build(override(one, ["optim.clip=2.5"]).optim).clip == 2.5
    assert build(override(one, ["optim.decay_steps=40"]).optim).decay_steps == 40


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optim.warmup=fast", "a whole number"),
        ("optim.warmup=1.5", "a whole number"),
        ("optim.peak=high", "a number"),
        ("optim.ema_warmup=maybe", "true or false"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(text: str, expected: str) -> None:
    with pytest.raises(UserError, match=f"{text}: expected {expected}."):
        override(ConfigDict({"optim": spec(Optimizer)}), [text])


@pytest.mark.parametrize("text", ["optim.warmpu=3", "optmi.warmup=3"])
def test_the_error_for_an_unknown_field_suggests_the_nearest(text: str) -> None:
    with pytest.raises(UserError, match="(?i)did you mean.*(warmup|optim)"):
        override(ConfigDict({"optim": spec(Optimizer)}), [text])


@pytest.mark.parametrize("file", [file.name for file in sorted((ROOT / "configs").glob("*.py"))])
@pytest.mark.parametrize("field", OF_ONE_METHOD)
def test_a_field_of_one_method_is_named_as_its_own(field: str, file: str) -> None:
    config, name = load_config(f"{ROOT}/configs/{file}"), field.removeprefix("method.")
    if class_of(config.method).__name__ == OF_ONE_METHOD[field]:
        override(config, [f"{field}={config.method[name]}"])
        return
    with pytest.raises(UserError, match=f"no field '{field}': of the methods, {OF_ONE_METHOD[field]} alone has it"):
        override(config, [f"{field}=4"])


def test_an_override_needs_a_value() -> None:
    with pytest.raises(UserError, match="FIELD=VALUE"):
        override(ConfigDict({"optim": spec(Optimizer)}), ["optim.peak"])


def test_a_file_is_read_with_its_preset_and_overrides(file: str) -> None:
    assert load_config(file).seed == 0
    assert load_config(f"{file}:paper").seed == 7
    assert build(load_config(f"{file}:paper", ["--config.optim.warmup=5"]).optim).warmup == 5


def test_the_error_for_an_unknown_preset_suggests_the_nearest(file: str) -> None:
    with pytest.raises(UserError, match="Did you mean 'paper'"):
        load_config(f"{file}:papre")
    with pytest.raises(UserError, match="There are: base, large"):
        choose_preset("nothing like it", {"": 1, "large": 2, "base": 3})


def test_an_unknown_field_of_a_file_is_refused(file: str) -> None:
    with pytest.raises(UserError, match="(?i)did you mean"):
        load_config(file, ["--config.optim.paek=1.0"])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config file .*none\.py"):
        load_config(str(tmp_path / "none.py"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", '{"seed": 1}', "does not end in .py"),
        ("other.py", "seed = 1", "defines no function get_config"),
        ("broken.py", "seed = 1\ndef get_config(:", r"broken\.py, line 2: not Python"),
        ("bytes.py", "#\n\udcff", r"bytes\.py, line \d: not Python"),
        ("imports.py", "\nimport absent_module", r"imports\.py, line 2: ModuleNotFoundError: .*absent_module"),
        ("fails.py", "def get_config():\n    return 1 / 0", r"fails\.py, line 2: ZeroDivisionError"),
        ("nothing.py", "def get_config():\n    pass", "returns nothing; expected the ConfigDict"),
        ("number.py", "def get_config():\n    return 3", "returns a value of type int"),
        (
            "frozen.py",
            "from ml_collections import FrozenConfigDict\ndef get_config():\n    return FrozenConfigDict({'seed': 1})",
            "returns a value of type FrozenConfigDict; expected the ConfigDict",
        ),
        (
            "small.py",
            "from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({'seed': 1})",
            "lacks num_steps, .*base_config",
        ),
    ],
)
def test_a_file_that_is_no_config_is_named_with_its_line(tmp_path: Path, file: str, name, content, message) -> None:
    """Also after another config, whose get_config must not be taken for this file's."""
    load_config(file)
    (tmp_path / name).write_text(content, errors="surrogateescape")
    with pytest.raises(UserError, match=message):
        load_config(str(tmp_path / name))


def test_a_preset_of_a_file_without_presets_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text("def get_config():\n    return None")
    with pytest.raises(UserError, match=r"plain\.py: TypeError: get_config"):
        load_config(f"{tmp_path}/plain.py:paper")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("peak", "Did you mean 'optim.peak'"),
        ("optim.peek", "Did you mean 'peak'"),
        ("method.width", "Did you mean 'method.trunk.width'"),
        ("steps", "Did you mean 'method.sampler.steps'"),
        ("widht", "Did you mean 'method.trunk.width'"),
        ("seed.value", "seed is a value and has no fields"),
        ("nothing_alike", "There are: batch_size, every"),
    ],
)
def test_the_fields_that_an_unknown_one_may_mean_are_proposed_with_their_paths(path: str, message: str) -> None:
    config = ConfigDict({"seed": 0, "num_steps": 1, "every": {}, "batch_size": 1})
    config.method, config.optim = spec(DiffusionLM), spec(Optimizer)
    with pytest.raises(UserError, match=f"no field '{path}'.*{message}"):
        override(config, [f"{path}=3"])


def test_differences_name_the_field() -> None:
    old = ConfigDict({"num_steps": 10, "optim": spec(Optimizer)})
    new = override(old, ["optim.peak=0.5", "num_steps=20"])
    assert differences(old, new, ignored=["num_steps"]) == [("optim.peak", Optimizer().peak, 0.5)]
    assert differences(old, old, ignored=[]) == []


def test_an_optional_field_can_be_emptied_and_filled_again(file: str) -> None:
    """As on the command line, and again in the config that a run has stored."""
    emptied = load_config(file, ["--config.optim.clip=None"])
    assert build(emptied.optim).clip is None
    stored = from_json(to_json(emptied))
    assert build(override(stored, ["optim.clip=2.5"]).optim).clip == 2.5


@pytest.mark.parametrize("field", ["optim.peak", "seed"])
def test_a_field_that_needs_a_value_cannot_be_emptied(file: str, field: str) -> None:
    with pytest.raises(UserError, match=f"{field} cannot be None"):
        load_config(file, [f"--config.{field}=None"])


def test_a_former_field_is_refused_with_its_current_name(file: str) -> None:
    match = "'optim.matrices'.*now called 'matrix_optimizer'"
    with pytest.raises(UserError, match=match):
        load_config(file, ["--config.optim.matrices=adam"])
    with pytest.raises(UserError, match=match):
        override(load_config(file), ["optim.matrices=adam"])


def test_the_error_for_an_unknown_field_has_its_path_and_the_fields_that_exist(file: str) -> None:
    with pytest.raises(UserError, match=r"no field 'optim\.nope'\. There are: .*peak"):
        load_config(file, ["--config.optim.nope=3"])


def test_emptying_an_unknown_field_is_refused(file: str) -> None:
    with pytest.raises(UserError, match="no field 'optim.clop'"):
        load_config(file, ["--config.optim.clop=None"])


def test_former_sampler_settings_are_dropped() -> None:
    stored = spec(DiffusionLM)
    with stored.unlocked():
        stored.sampler.guidance.through = True
    assert build(from_json(to_json(ConfigDict({"method": stored}))).method) == DiffusionLM()
    with stored.unlocked():
        stored.trunk.through = True  # only samplers may have former fields
    with pytest.raises(UserError, match="through"):
        build(from_json(to_json(ConfigDict({"method": stored}))).method)


def test_a_missing_field_has_its_default() -> None:
    stored = spec(Optimizer, peak=0.5)
    with stored.unlocked():
        del stored.warmup
    assert build(from_json(to_json(stored))) == Optimizer(peak=0.5)


def test_a_stored_config_without_embeddings_has_learned_ones() -> None:
    """Runs stored before embeddings were computed from the text lack the field. Theirs are learned."""
    stored = spec(DiffusionLM)
    with stored.unlocked():
        del stored["embeddings"], stored["bound_start"]
    read = from_json(to_json(ConfigDict({"method": stored}))).method
    assert read.embeddings == "learned" and read.bound_start == DiffusionLM().bound_start


def test_no_field_is_named_like_a_method_of_configdict() -> None:
    """Such a field could not be overridden from the command line."""
    from jtextdiff.data.corpus import Text
    from jtextdiff.methods.autoregressive import Autoregressive
    from jtextdiff.methods.classifier import Classifier
    from jtextdiff.methods.cmlm import CMLM
    from jtextdiff.methods.d3pm import D3PM
    from jtextdiff.methods.masked import Masked

    def fields(config: ConfigDict) -> Iterator[str]:
        for name, value in config.items():
            yield name
            if isinstance(value, ConfigDict):
                yield from fields(value)

    for cls in (Optimizer, Autoregressive, CMLM, Classifier, D3PM, DiffusionLM, Masked, Text):
        clashes = set(fields(spec(cls))) & set(dir(ConfigDict))
        assert clashes <= {"values"}  # of a classifier; filled in, never given by the user
