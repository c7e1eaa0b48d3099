"""Writes a masked model as a checkpoint in the layout of MDLM, all of it or nothing."""

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
from jtextdiff.methods.masked import Masked
from jtextdiff.nets.functional import Params, merged
from jtextdiff.pretrained.checkpoint_files import CONFIG, WHOLE
from jtextdiff.pretrained.layouts.dit import unfold
from jtextdiff.pretrained.layouts.dit_settings import KINDS, PLAIN, config_of
from jtextdiff.pretrained.vocabulary import give_rows

COND_DIM = 128
"""Width of the conditioning, as published. It is a constant here, so that any width would do."""

CARD = "README.md"


def published_config(method: Any) -> dict[str, Any]:
    """Returns the config.json of a method. Raises UserError naming what the layout lacks."""
    if not isinstance(method, Masked):
        raise UserError(f"The method is {type(method).__name__}; only Masked has a published layout to export to.")
    return config_of(method, COND_DIM)


def published_tensors(method: Masked, params: Params) -> dict[str, np.ndarray]:
    """Returns the tensors of a masked model. Reading them back gives the same parameters to the bit."""
    tensors = unfold(merged(params), method.trunk.num_layers, COND_DIM)
    tensors = {name: give_rows(name, tensor, method.text_spec) for name, tensor in tensors.items()}
    pairs = np.arange(0, method.trunk.width // method.trunk.num_heads, 2)
    exponents = pairs / (2 * len(pairs))
    tensors["rotary_emb.inv_freq"] = (PLAIN["rotary_base"] ** -exponents).astype(np.float32)
    return {KINDS["mdlm"].prefix + name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def write_export(out: Path, method: Any, params: Params, tokenizer: Tokenizer, card: str, scores: Path | None) -> None:
    """Writes weights, config, tokenizer, model card and scores into a new folder.

    Raises UserError, before anything is written, for a model that does not fit the layout.
    """
    config = published_config(method)
    with whole_folder(out) as folder:
        # The published code reads only files that name this format.
        save_file(published_tensors(method, params), folder / WHOLE, metadata={"format": "pt"})
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
