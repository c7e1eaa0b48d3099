"""Telling phrases: which value of a label a text shows, by phrases that the training text has with that value alone."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

LONGEST = 3
"""Words of a phrase, at most."""

SELDOM = 5
"""A phrase seen in fewer texts tells nothing."""


class Telling(NamedTuple):
    """Which value each phrase tells, and that of a text which tells none."""

    phrases: dict[tuple[str, ...], str]
    silent: str

    def value(self, words: Sequence[str]) -> str | None:
        """The value that a text shows; None if its phrases disagree."""
        told = {self.phrases[phrase] for phrase in _phrases(words) if phrase in self.phrases} - {self.silent}
        return None if len(told) > 1 else told.pop() if told else self.silent


def learn(texts: Iterable[Sequence[str]], values: Sequence[str]) -> Telling:
    """The telling phrases of texts that have these values of a label, one each.

    A text that tells nothing has "none", if that is a value; else what such texts have most often.
    """
    texts = list(texts)
    seen: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for words, value in zip(texts, values, strict=True):
        for phrase in set(_phrases(words)):
            seen[phrase][value] += 1
    sure = {
        phrase: next(iter(counts)) for phrase, counts in seen.items() if len(counts) == 1 and counts.total() >= SELDOM
    }
    if "none" in values:
        return Telling(sure, "none")
    quiet = [v for words, v in zip(texts, values, strict=True) if not any(p in sure for p in _phrases(words))]
    return Telling(sure, Counter(quiet or values).most_common(1)[0][0])


def _phrases(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for size in range(1, LONGEST + 1):
        yield from zip(*(words[start:] for start in range(size)), strict=False)
