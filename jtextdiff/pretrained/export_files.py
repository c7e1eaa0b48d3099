"""Writes a model as a checkpoint in a published layout, all of it or nothing."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from jtextdiff.cli.errors import UserError
from jtextdiff.data.tokenizer import Tokenizer
from jtextdiff.nets.functional import Params
from jtextdiff.pretrained.checkpoint_files import CONFIG, WHOLE
from jtextdiff.pretrained.exported_layouts import Layout

CARD = "README.md"


def write_export(
    out: Path, layout: Layout, method: Any, params: Params, tokenizer: Tokenizer, card: str, scores: Path | None
) -> None:
    """Writes weights, config, tokenizer, model card and scores into a new folder.

    Raises UserError, before anything is written, for a model that does not fit the layout.
    """
    config = layout.config_of(method)
    with whole_folder(out) as folder:
        # The published code reads only files that name this format.
        tensors = {name: np.ascontiguousarray(tensor) for name, tensor in layout.tensors_of(method, params).items()}
        save_file(tensors, folder / WHOLE, metadata={"format": "pt"})
        _write_json(folder / CONFIG, config)
        shutil.copymode(folder / CONFIG, folder / WHOLE)  # safetensors lets only the user read it
        tokenizer.save(folder)
        _write_json(folder / "tokenizer_config.json", _special_tokens(tokenizer))
        (folder / CARD).write_text(card, encoding="utf-8")
        if scores is not None:
            shutil.copyfile(scores, folder / scores.name)


@contextlib.contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yields a folder that becomes `out` at the end, and is removed if writing fails."""
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already and is not an empty folder; give the name of a new one.")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        os.replace(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _special_tokens(tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns what transformers reads beside tokenizer.json."""
    ids = {"eos_token": tokenizer.eos, "pad_token": tokenizer.pad, "unk_token": tokenizer.unk}
    ids["mask_token"] = tokenizer.mask
    tokens = {name: None if number is None else tokenizer.backend.id_to_token(number) for name, number in ids.items()}
    known = {name: token for name, token in tokens.items() if token is not None}
    return {"tokenizer_class": "PreTrainedTokenizerFast", **known}


def _write_json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
