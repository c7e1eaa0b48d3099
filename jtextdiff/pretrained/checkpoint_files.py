"""A published checkpoint on disk: config.json and safetensors files, of which one tensor is read at a time."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open

from jtextdiff.cli.errors import UserError

CONFIG, WHOLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"

PICKLED = (".bin", ".pt", ".pth", ".ckpt")
"""Endings of files of PyTorch, which can run code as they are read."""

CONVERT = (
    "import torch, safetensors.torch as s; w = torch.load('FILE', map_location='cpu', weights_only=True); "
    "s.save_file({k: v.contiguous() for k, v in w.items()}, 'model.safetensors')"
)

FLOATS = ("F64", "F32", "F16", "BF16")
"""Types of parameters."""

BF16 = "BF16"


class Tensor(NamedTuple):
    """Where a tensor is stored, its shape and its type."""

    file: Path
    name: str  # there; the network may have another for it
    shape: tuple[int, ...]
    dtype: str


class Checkpoint(NamedTuple):
    """A published checkpoint, whose tensors have not been read yet."""

    source: str  # as the user named it
    folder: Path
    config: dict[str, Any]
    tensors: Mapping[str, Tensor]

    def read(self, name: str) -> Float[np.ndarray, "..."]:
        """Returns one tensor: bfloat16 as stored, others as float32. Raises UserError if its file cannot be read."""
        tensor = self.tensors[name]
        try:
            with safe_open(tensor.file, framework="numpy") as stored:
                array = stored.get_tensor(tensor.name)
                return array if tensor.dtype == BF16 else array.astype(np.float32, copy=False)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{tensor.file} cannot be read: {error}. Copy or download it again.") from None


def is_bfloat16(checkpoint: Checkpoint, names: Iterable[str]) -> bool:
    """Returns whether these tensors are stored as bfloat16, so that none loses anything in this type."""
    return all(checkpoint.tensors[name].dtype == BF16 for name in names)


def open_checkpoint(source: str, folder: Path) -> Checkpoint:
    """Reads the config and the headers of a checkpoint.

    Raises UserError, with the file, for one that is missing, damaged, or can run code as it is read.
    """
    if not folder.is_dir():
        raise UserError(f"init: there is no folder {folder}. Expected one with {CONFIG} and {WHOLE}, or hub:NAME.")
    config = read_json(folder / CONFIG)
    tensors: dict[str, Tensor] = {}
    for file in _weight_files(folder):
        for name, tensor in _header(file).items():
            if name in tensors:
                raise UserError(f"{folder}: {tensors[name].file.name} and {file.name} both hold {name}; expected one.")
            tensors[name] = tensor
    return Checkpoint(source, folder, config, tensors)


def read_json(file: Path) -> dict[str, Any]:
    """Returns the object in a JSON file. Raises UserError if it is missing or damaged."""
    if not file.is_file():
        raise UserError(f"{file.parent} has no {file.name}. Expected the folder of a published checkpoint.")
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not JSON: {error}. Copy or download it again.") from None
    if not isinstance(value, dict):
        raise UserError(f"{file} holds a {type(value).__name__}; expected an object with named fields.")
    return value


def _weight_files(folder: Path) -> list[Path]:
    """Returns the files with the tensors: those of the index, or the only one. Raises UserError if one is missing."""
    if (folder / INDEX).is_file():
        files = read_json(folder / INDEX).get("weight_map")
        if not isinstance(files, dict) or not files or not all(map(_is_file_name, files.values())):
            raise UserError(f"{folder / INDEX}: weight_map must give a file of this folder for each tensor.")
        shards = [folder / name for name in sorted(set(files.values()))]
        if missing := [file.name for file in shards if not file.is_file()]:
            raise UserError(f"{folder} lacks {', '.join(missing)}, which {INDEX} names. Copy or download it again.")
        return shards
    files = [folder / WHOLE] if (folder / WHOLE).is_file() else sorted(folder.glob("*.safetensors"))
    if len(files) > 1:
        raise UserError(f"{folder} has {len(files)} safetensors files but no {INDEX}, which lists their tensors.")
    return files or _refuse_pickled(folder)


def _is_file_name(name: Any) -> bool:
    return isinstance(name, str) and name == Path(name).name


def shown(name: str) -> str:
    """Returns a name for a message: as it is, or escaped if it has characters that cannot be printed."""
    return name if name.isprintable() else repr(name)


def _refuse_pickled(folder: Path) -> list[Path]:
    """Raises UserError: there are no safetensors files."""
    pickled = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLED)
    if not pickled:
        raise UserError(f"{folder} has no safetensors file. Expected {WHOLE}, or {INDEX} and the files that it names.")
    raise UserError(
        f"{folder} has {shown(pickled[0])} but no safetensors file. Files of PyTorch can run code and are not read; "
        f'convert it where PyTorch is installed: python -c "{CONVERT}"'
    )


def _header(file: Path) -> dict[str, Tensor]:
    """Returns the tensors of a file. Raises UserError if it is damaged."""
    try:
        with safe_open(file, framework="numpy") as stored:
            slices = {name: stored.get_slice(name) for name in stored.keys()}  # noqa: SIM118
            return {name: Tensor(file, name, tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is damaged or cut short: {error}. Copy or download it again.") from None
