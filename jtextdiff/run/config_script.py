"""Python files of configs: running their `get_config`, with errors by file and line."""

import runpy
import traceback
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from jtextdiff.cli.errors import UserError
from jtextdiff.run.config import Config

FIELDS = ("seed", "num_steps", "batch_size", "text", "method", "optim", "warm_start", "init", "every", "mesh")
"""What `config_files.base_config` returns, and every config has."""


def config_of_script(file: Path, preset: str) -> Config:
    """Returns what `get_config(preset)` of a Python file returns; `get_config()` without a preset.

    Raises UserError for a file that is missing or not Python, fails, or does not return a config.
    """
    if file.exists() and not file.is_file():
        raise UserError(f"{file} is a directory or a pipe. Expected a Python file, such as configs/diffusion_lm.py.")
    if not file.is_file():
        raise UserError(f"There is no config file {file}. Expected a Python file, such as configs/diffusion_lm.py.")
    if file.suffix != ".py":
        raise UserError(
            f"The config file {file} does not end in .py. Expected a Python file with a function get_config, such as "
            "configs/diffusion_lm.py; a run is resumed with the command that started it."
        )
    get_config = _run(file, lambda: runpy.run_path(str(file))).get("get_config")
    if not callable(get_config):
        raise UserError(f"The config file {file} defines no function get_config; configs/diffusion_lm.py shows one.")
    config = _run(file, lambda: get_config(preset) if preset else get_config())
    if not isinstance(config, ConfigDict) or isinstance(config, FrozenConfigDict):
        raise UserError(f"get_config in {file} returns {_kind(config)}; expected the ConfigDict of base_config.")
    if missing := [name for name in FIELDS if name not in config]:
        raise UserError(
            f"The config of {file} lacks {', '.join(missing)}; get_config should return base_config(…), as "
            "configs/diffusion_lm.py does."
        )
    return config


def _run(file: Path, code: Any) -> Any:
    """Runs a part of the user's file. Raises UserError, with the line, for what it raises."""
    try:
        return code()
    except UserError:
        raise
    except SyntaxError as error:
        raise UserError(f"{error.filename or file}, line {error.lineno}: not Python ({error.msg}).") from None
    except Exception as error:
        frames = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        line = f", line {frames[-1]}" if frames else ""
        raise UserError(f"{file}{line}: {type(error).__name__}: {error}") from None


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a value of type {type(value).__name__}"
