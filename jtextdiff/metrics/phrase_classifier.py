"""Label of a text by phrases that occur with one label value only."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jtextdiff.metrics.ngrams import ngrams_up_to

LONGEST = 3
"""Words of a phrase, at most."""

MIN_TEXTS = 5
"""A phrase in fewer training texts is no evidence."""


class PhraseClassifier(NamedTuple):
    """The value that each phrase indicates, and the value of a text without such a phrase."""

    phrases: dict[tuple[str, ...], str]
    default: str

    def value(self, words: Sequence[str]) -> str | None:
        """Returns the value of a text; None if its phrases disagree."""
        indicated = {self.phrases[phrase] for phrase in ngrams_up_to(words, LONGEST) if phrase in self.phrases}
        values = indicated - {self.default}
        if len(values) > 1:
            return None
        return values.pop() if values else self.default


def fit(texts: Iterable[Sequence[str]], values: Sequence[str]) -> PhraseClassifier:
    """Finds the phrases that occur with one value only, in texts (as words) with these values of a label, one each.

    The default is "none" if that is a value; otherwise the most frequent value of texts without such a phrase.
    """
    texts = list(texts)
    counts_of: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for words, value in zip(texts, values, strict=True):
        for phrase in set(ngrams_up_to(words, LONGEST)):
            counts_of[phrase][value] += 1
    phrases = {
        phrase: next(iter(counts))
        for phrase, counts in counts_of.items()
        if len(counts) == 1 and counts.total() >= MIN_TEXTS
    }
    if "none" in values:
        return PhraseClassifier(phrases, "none")
    without = [
        value
        for words, value in zip(texts, values, strict=True)
        if not any(phrase in phrases for phrase in ngrams_up_to(words, LONGEST))
    ]
    return PhraseClassifier(phrases, Counter(without or values).most_common(1)[0][0])
