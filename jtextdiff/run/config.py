"""Configuration: a ConfigDict on the outside, frozen dataclasses within.

A dataclass is the one home of a setting's name, type, default and validity. `spec` spreads it into a
ConfigDict, where the command line finds every field; `build` folds it back.
"""

import contextlib
import copy
import dataclasses
import difflib
import importlib
import io
import json
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
from jtextdiff.run.renames import CLASSES

Config = Any
"""A ConfigDict. Its fields have the types of the dataclasses that they spell, which no checker can see."""

CLASS = "class"
"""The key that names a dataclass in a ConfigDict, as module:name."""

QUOTES = "'\""
ABSENT = "absent"
"""Key in a field's metadata: what a stored config means that does not have the field, if not the default."""


def spec(cls: type, **overrides: Any) -> Config:
    """All fields of a dataclass with their defaults, some overridden, as a ConfigDict.

    Raises TypeError for a field that the dataclass lacks.
    """
    names = [field.name for field in dataclasses.fields(cls)]
    for name in overrides:
        if name not in names:
            raise TypeError(f"{cls.__name__} has no field {name!r}{_did_you_mean(name, names)}")
    config = ConfigDict({CLASS: f"{cls.__module__}:{cls.__qualname__}"})
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        value = overrides.get(field.name, _default(field))
        config[field.name] = _outside(value, hints[field.name])
    return config


def build(config: Config) -> Any:
    """The dataclass that a spec describes. Raises UserError for a value that it refuses."""
    values = {name: _inside(value) for name, value in dict(config).items() if name != CLASS}
    cls = _class(config)
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise UserError(f"{cls.__name__}: {error}") from None


def load_config(path: str, overrides: Sequence[str] = ()) -> Config:
    """Reads `configs/x.py[:preset]` and applies overrides of the form `--config.a.b=value`.

    Raises UserError for a missing file, an unknown preset, an unknown field or a value of the wrong type.
    """
    file = Path(path.partition(":")[0])
    if not file.is_file():
        raise UserError(f"There is no config file {file}. Expected a Python file, such as configs/diffusion_lm.py.")
    return _parsed(config_flags.DEFINE_config_file, "config", None, [f"--config={path}", *overrides])


def override(config: Config, overrides: Sequence[str]) -> Config:
    """A copy of `config` with `a.b=value` applied, checked as on the command line."""
    for text in overrides:
        if "=" not in text:
            raise UserError(f"--override needs FIELD=VALUE, got {text!r}.")
        _look_up(config, text.partition("=")[0])
    arguments = [f"--override.{text}" for text in overrides]
    return _parsed(config_flags.DEFINE_config_dict, "override", copy.deepcopy(config), arguments)


def choose_preset(preset: str, presets: dict[str, Any]) -> Any:
    """The entry of `presets` for a config's `:preset`, "" being the default. Raises UserError if there is none."""
    if preset not in presets:
        names = sorted(name for name in presets if name)
        raise UserError(f"There is no preset {preset!r}{_did_you_mean(preset, names)}")
    return presets[preset]


def to_json(config: Config) -> str:
    return json.dumps(config.to_dict(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def from_json(text: str) -> Config:
    """Reads what `to_json` wrote. In a spec, a null stays open to a value of its field's type, and a field that
    an earlier version did not have gets its default. A setting of a sampler, on which nothing that was trained depends,
    is left out if there no longer is one of its name."""
    return _open(ConfigDict(json.loads(text)))


def _open(config: Config, of_sampler: bool = False) -> Config:
    hints = typing.get_type_hints(_class(config)) if CLASS in config else {}
    for name in set(config) - {CLASS} - set(hints) if of_sampler and hints else ():
        del config[name]
    for field in dataclasses.fields(_class(config)) if hints else ():
        if field.name not in config:
            value = field.metadata[ABSENT] if ABSENT in field.metadata else _default(field)
            config[field.name] = _outside(value, hints[field.name])
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            _open(value, of_sampler or name == "sampler")
        elif value is None and name in hints:
            config[name] = _outside(None, hints[name])
    return config


def differences(old: Config, new: Config, ignored: Sequence[str]) -> list[tuple[str, Any, Any]]:
    """(field, old value, new value) wherever two configs differ, but for the fields `ignored` and those below them."""
    before, after = _flat(json.loads(to_json(old))), _flat(json.loads(to_json(new)))
    names = sorted(before.keys() | after.keys())
    return [
        (name, before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name) and not f"{name}.".startswith(tuple(f"{field}." for field in ignored))
    ]


def _class(config: Config) -> type:
    """The dataclass that a spec names. Only jtextdiff's own are made: a stored config cannot run other code."""
    stored = str(config.get(CLASS))
    module, _, name = CLASSES.get(stored, stored).partition(":")
    found = getattr(importlib.import_module(module), name, None) if module.split(".")[0] == "jtextdiff" else None
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise UserError(f"The config names the class {config.get(CLASS)!r}, which is no dataclass of jtextdiff.")
    return found


def _parsed(define: Any, name: str, default: Any, arguments: Sequence[str]) -> Config:
    """Lets config_flags do the parsing, on flags of our own, and turns its complaints into a sentence.

    It cannot parse None, the value of an optional field that is not set: those are put in afterwards.
    """
    latest = {text.partition("=")[0]: text for text in arguments}  # of two values for a field the later one holds
    empty = [text for text in latest.values() if text.endswith("=None")]
    values, argv = flags.FlagValues(), ["jtextdiff", *(text for text in latest.values() if text not in empty)]
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            define(name, default, flag_values=values, sys_argv=argv)
            rest = values(argv)
    except (AttributeError, KeyError) as error:
        name, *hint = str(error.args[0]).replace("\\n", "\n").replace("\\", "").splitlines()
        raise UserError(
            ". ".join([f"There is no field {name.strip(QUOTES)!r}", *(h.strip(QUOTES) for h in hint)])
        ) from None
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(" ".join(str(error).split())) from None
    if rest[1:]:
        raise UserError(f"Unexpected argument {rest[1]!r}.")
    config = values[name].value
    for text in empty:
        _clear(config, text.removeprefix(f"--{name}.").removesuffix("=None"))
    return config


def _look_up(config: Config, path: str) -> None:
    """Raises UserError, with those that there are, for a field that a config lacks."""
    for name in path.split("."):
        names = list(config) if isinstance(config, ConfigDict) else []
        if name not in names:
            raise UserError(f"There is no field {path!r}{_did_you_mean(name, [n for n in names if n != CLASS])}")
        config = config[name]


def _clear(config: Config, path: str) -> None:
    """Sets an optional field to None. Raises UserError for any other."""
    *parents, name = path.split(".")
    for parent in parents:
        config = config.get(parent) if isinstance(config, ConfigDict) else None
    if not isinstance(config, ConfigDict) or name not in config:
        raise UserError(f"There is no field {path!r}.")
    hint = typing.get_type_hints(_class(config)).get(name) if CLASS in config else None
    if config[name] is not None and path != "warm_start" and types.NoneType not in typing.get_args(hint):
        raise UserError(f"{path} cannot be None: it needs a value.")
    with config.ignore_type():
        config[name] = None


def _default(field: Any) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    raise TypeError(f"The field {field.name!r} has no default; a configurable dataclass gives each field one.")


def _outside(value: Any, hint: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return spec(type(value), **fields)
    kinds = [kind for kind in typing.get_args(hint) if kind is not types.NoneType]
    optional = isinstance(hint, types.UnionType) and len(kinds) == 1
    if optional and kinds[0] in (str, int, float, bool):
        holder = placeholder(kinds[0])
        if value is not None:
            holder.set(value)
        return holder
    return value


def _inside(value: Any) -> Any:
    if isinstance(value, (ConfigDict, dict)):
        return build(value) if CLASS in value else dict(value)
    if isinstance(value, (list, tuple)):
        return tuple(_inside(item) for item in value)
    return value


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for name, child in tree.items():
        flat |= _flat(child, f"{prefix}.{name}" if prefix else name)
    return flat


def _did_you_mean(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    listing = ", ".join(names) or "none"
    return f". Did you mean {close[0]!r}? There are: {listing}." if close else f". There are: {listing}."
