"""Config files: their common fields, presets, and overrides from the command line."""

import contextlib
import copy
import difflib
import io
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder
from ml_collections.config_flags import config_flags

from jtextdiff.cli.errors import UserError
from jtextdiff.data.corpus import Text
from jtextdiff.run.config import Config, class_of, did_you_mean, differences, spec
from jtextdiff.run.config_script import config_of_script
from jtextdiff.run.renames import CLASS, current_name

EXPECTED = {
    "invalid literal for int": "a whole number",
    "could not convert string to float": "a number",
    "Non-boolean argument": "true or false",
}
"""Part of a message of Python or absl about a value of the wrong type ↦ what was expected."""

NULLABLE = ("warm_start", "init")
"""Fields outside any dataclass that may be set back to None."""

OF_ONE_METHOD = {"method.lora_rank": "Masked", "method.param_dtype": "Masked"}
"""Field ↦ the only method that has it, where its name alone does not say so."""

AFTER_TRAINING = ("method", "mesh", "text.path", "text.labels", "text.column")
"""The fields of a run that are read after its training."""


def base_config(
    method: Config,
    optim: Config,
    *,
    num_steps: int,
    batch_size: int,
    text: Config | None = None,
    log: int = 50,
    evaluate: int = 500,
    sample: int = 1_000,
    checkpoint: int = 500,
) -> Config:
    """Returns the config of a run from the specs of its method and optimizer; `text` is by default that of the grammar.

    `log`, `evaluate`, `sample`, `checkpoint`: intervals in steps.
    """
    c = ConfigDict()
    c.seed = 0  # of the initial parameters, the batches and the noise
    c.num_steps = num_steps
    c.batch_size = batch_size  # sequences per step, over all devices
    c.text = spec(Text) if text is None else text
    c.method = method
    c.optim = optim
    c.warm_start = placeholder(str)  # a run whose parameters and tokenizer this one starts from
    c.init = placeholder(str)  # a published checkpoint to start from: its folder or hub:NAME, see jtextdiff/pretrained
    c.every = ConfigDict(dict(log=log, evaluate=evaluate, sample=sample, checkpoint=checkpoint))
    c.mesh = ConfigDict(dict(data=-1, fsdp=1, tensor=1))  # devices along each axis; -1: all that are left
    return c


def choose_preset(preset: str, presets: dict[str, Any]) -> Any:
    """Returns the entry of `presets` for a config's `:preset`; "" is the default. Raises UserError if it is unknown."""
    if preset not in presets:
        names = sorted(name for name in presets if name)
        raise UserError(f"There is no preset {preset!r}{did_you_mean(preset, names)}")
    return presets[preset]


def load_config(path: str, overrides: Sequence[str] = ()) -> Config:
    """Reads `configs/x.py[:preset]` and applies overrides of the form `--config.a.b=value`.

    Raises UserError for a missing file, an unknown preset, an unknown field or a value of the wrong type.
    """
    overrides = check_overrides(overrides)
    name, _, preset = str(path).partition(":")
    return _overridden(config_of_script(Path(name), preset), "config", overrides)


def check_overrides(overrides: Sequence[str]) -> Sequence[str]:
    """Returns the overrides. Raises UserError for a single text, which has letters and no overrides as its items."""
    if isinstance(overrides, str):
        raise UserError(f"overrides is one text, {overrides!r}; expected a list such as [{overrides!r}].")
    return overrides


def override(config: Config, overrides: Sequence[str]) -> Config:
    """Returns a copy of `config` with `a.b=value` applied, validated as on the command line."""
    for text in check_overrides(overrides):
        if "=" not in text:
            raise UserError(f"--override needs FIELD=VALUE, got {text!r}.")
    return _overridden(copy.deepcopy(config), "override", [f"--override.{text}" for text in overrides])


def override_run(config: Config, overrides: Sequence[str]) -> Config:
    """As `override`, for a run that is loaded. Raises UserError for a field that has no effect after training."""
    changed = override(config, overrides)
    for name, old, new in differences(config, changed, AFTER_TRAINING):
        why = "a model reads and writes the texts of its training" if name.startswith("text.") else "it is of training"
        raise UserError(
            f"--override {name}={new} has no effect on a trained run, which has {old}: {why}. Leave it out; what can "
            f"be changed is {', '.join(AFTER_TRAINING)}."
        )
    return changed


def _overridden(config: Config, name: str, arguments: Sequence[str]) -> Config:
    """Applies arguments of the form `--NAME.a.b=value` to a config, in place.

    ml_collections parses them, and its errors are raised as UserError. It cannot parse None, the value of an optional
    field that is not set; those fields are set here.
    """
    for text in arguments:
        _check_field(config, text.removeprefix(f"--{name}.").partition("=")[0])
    latest = {text.partition("=")[0]: text for text in arguments}  # of two values for a field the later one applies
    to_none = [text for text in latest.values() if text.endswith("=None")]
    values, argv = flags.FlagValues(), ["jtextdiff", *(text for text in latest.values() if text not in to_none)]
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            config_flags.DEFINE_config_dict(name, config, flag_values=values, sys_argv=argv)
            rest = values(argv)
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(_wrong_value(" ".join(str(error).split()))) from None
    if rest[1:]:
        raise UserError(f"Unexpected argument {rest[1]!r}.")
    config = values[name].value
    for text in to_none:
        _set_to_none(config, text.removeprefix(f"--{name}.").removesuffix("=None"))
    return config


def _wrong_value(message: str) -> str:
    """Returns a message of absl about a flag, with what was expected in words if that is a number or a truth value."""
    flag, _, reason = message.removeprefix("flag ").partition(": ")
    expected = next((words for python, words in EXPECTED.items() if python in reason), None)
    return f"{flag}: expected {expected}." if expected else message


def _renamed(path: str) -> str:
    """Returns the current name of a former field, as an addition to a message."""
    current = current_name(path.rpartition(".")[2])
    return f" (it is now called {current!r})" if current else ""


def _check_field(config: Config, path: str) -> None:
    """Raises UserError, with the nearest or the existing fields, for a field that a config lacks."""
    parent, names = config, path.split(".")
    for depth, name in enumerate(names):
        if not isinstance(parent, ConfigDict):
            raise UserError(f"There is no field {path!r}: {'.'.join(names[:depth])} is a value and has no fields.")
        if name not in parent and path in OF_ONE_METHOD:
            raise UserError(f"There is no field {path!r}: of the methods, {OF_ONE_METHOD[path]} alone has it.")
        if name not in parent:
            raise UserError(f"There is no field {path!r}{_renamed(path)}{_nearest(config, parent, names, name)}")
        parent = parent[name]


def _nearest(config: Config, parent: Config, names: Sequence[str], unknown: str) -> str:
    """Returns the end of a message about an unknown field.

    Proposed are the fields of that name elsewhere in the config, else the closest name of the same level, else the
    closest elsewhere.
    """
    siblings = [name for name in parent if name != CLASS]
    elsewhere = {path: path.rpartition(".")[2] for path in _paths(config)}
    candidates = [path for path, name in elsewhere.items() if name == names[-1]]
    if not candidates and not difflib.get_close_matches(unknown, siblings, n=1):
        close = difflib.get_close_matches(names[-1], elsewhere.values(), n=1)
        candidates = [path for path, name in elsewhere.items() if name in close]
    if candidates:
        return f". Did you mean {' or '.join(map(repr, candidates))}?"
    return did_you_mean(unknown, siblings)


def _paths(config: Config, prefix: str = "") -> list[str]:
    """Returns the dotted paths of all fields of a config, those with fields of their own included."""
    paths = []
    for name, value in config.items():
        if name != CLASS:
            paths += [prefix + name, *(_paths(value, f"{prefix}{name}.") if isinstance(value, ConfigDict) else [])]
    return paths


def _set_to_none(config: Config, path: str) -> None:
    """Sets an optional field to None. Raises UserError for any other."""
    *parents, name = path.split(".")
    for parent in parents:
        config = config[parent]
    hint = typing.get_type_hints(class_of(config)).get(name) if CLASS in config else None
    if config[name] is not None and path not in NULLABLE and types.NoneType not in typing.get_args(hint):
        raise UserError(f"{path} cannot be None: it needs a value.")
    with config.ignore_type():
        config[name] = None
