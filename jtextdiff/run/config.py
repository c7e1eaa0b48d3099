"""Configs: a ConfigDict on the command line and on disk, frozen dataclasses in the code.

A dataclass is the only definition of a field: its name, type, default and validity. `spec` converts it to a ConfigDict,
in which the command line can set every field; `build` converts that back to the dataclass.
"""

import dataclasses
import difflib
import importlib
import json
import types
import typing
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from jtextdiff.cli.errors import UserError
from jtextdiff.run.renames import ABSENT, CLASS, with_current_names

Config = Any
"""A ConfigDict. Its fields have the types of the dataclass fields of the same name, which no type checker can see."""


def spec(cls: type, **overrides: Any) -> Config:
    """Returns all fields of a dataclass as a ConfigDict, with their defaults except for `overrides`.

    Raises TypeError for a field that the dataclass lacks.
    """
    names = [field.name for field in dataclasses.fields(cls)]
    for name in overrides:
        if name not in names:
            raise TypeError(f"{cls.__name__} has no field {name!r}{did_you_mean(name, names)}")
    config = ConfigDict({CLASS: f"{cls.__module__}:{cls.__qualname__}"})
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        value = overrides.get(field.name, _default(field))
        config[field.name] = _to_config(value, hints[field.name])
    return config


def build(config: Config) -> Any:
    """Returns the dataclass that a spec describes. Raises UserError for a value that it refuses."""
    values = {name: _from_config(value) for name, value in dict(config).items() if name != CLASS}
    cls = class_of(config)
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise UserError(f"{cls.__name__}: {error}") from None


def class_of(config: Config) -> type:
    """Returns the dataclass that a spec names.

    Only dataclasses of jtextdiff are accepted, so that a stored config cannot run other code. Raises UserError for any
    other class.
    """
    module, _, name = str(config.get(CLASS)).partition(":")
    cls = getattr(importlib.import_module(module), name, None) if module.split(".")[0] == "jtextdiff" else None
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise UserError(f"The config names the class {config.get(CLASS)!r}, which is not a dataclass of jtextdiff.")
    return cls


def is_control(config: Config) -> bool:
    """Returns whether a config is that of a control, which has a run as its `base`."""
    return "base" in config


def to_json(config: Config) -> str:
    return json.dumps(config.to_dict(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def from_json(text: str) -> Config:
    """Reads what `to_json` wrote, by this or an earlier version.

    Former names are replaced by current ones, and a field that did not exist gets its default. A null of a spec stays
    open to a value of its field's type. A setting of a sampler that no longer exists is dropped, since nothing that
    was trained depends on it. Raises ValueError for JSON that is no object.
    """
    stored = json.loads(text)
    if not isinstance(stored, dict):
        raise ValueError(f"it holds a {type(stored).__name__}; expected an object with named fields")
    return _completed(ConfigDict(with_current_names(stored)))


def _completed(config: Config, in_sampler: bool = False) -> Config:
    """Adds absent fields to a stored config and drops unknown ones of samplers, in place."""
    hints = typing.get_type_hints(class_of(config)) if CLASS in config else {}
    for name in set(config) - {CLASS} - set(hints) if in_sampler and hints else ():
        del config[name]
    for field in dataclasses.fields(class_of(config)) if hints else ():
        if field.name not in config:
            value = ABSENT.get(config[CLASS], {}).get(field.name, _default(field))
            config[field.name] = _to_config(value, hints[field.name])
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            _completed(value, in_sampler or name == "sampler")
        elif value is None and name in hints:
            config[name] = _to_config(None, hints[name])
    return config


def differences(old: Config, new: Config, ignored: Sequence[str]) -> list[tuple[str, Any, Any]]:
    """Returns (field, old value, new value) for all fields that differ, except those in `ignored` and below them."""
    before, after = _flat(json.loads(to_json(old))), _flat(json.loads(to_json(new)))
    names = sorted(before.keys() | after.keys())
    return [
        (name, before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name) and not f"{name}.".startswith(tuple(f"{field}." for field in ignored))
    ]


def did_you_mean(name: str, names: Sequence[str]) -> str:
    """Returns the end of a message about an unknown name: the closest of `names` if there is one, and all of them."""
    close = difflib.get_close_matches(name, names, n=1)
    listing = ", ".join(names) or "none"
    return f". Did you mean {close[0]!r}? There are: {listing}." if close else f". There are: {listing}."


def _default(field: Any) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    raise TypeError(f"The field {field.name!r} has no default; a configurable dataclass gives each field one.")


def _to_config(value: Any, hint: Any) -> Any:
    """Returns the value of a dataclass field as a ConfigDict holds it, e.g. a spec or a placeholder."""
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


def _from_config(value: Any) -> Any:
    """Returns a value of a ConfigDict as a dataclass holds it."""
    if isinstance(value, (ConfigDict, dict)):
        return build(value) if CLASS in value else dict(value)
    if isinstance(value, (list, tuple)):
        return tuple(_from_config(item) for item in value)
    return value


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of nested dicts by their dotted paths."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for name, child in tree.items():
        flat |= _flat(child, f"{prefix}.{name}" if prefix else name)
    return flat
