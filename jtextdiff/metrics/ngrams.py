"""N-grams: unigram entropy, distinct n-grams and the share of copies."""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

from jtextdiff.metrics.units import units

Text = str | Sequence[Hashable]  # a string stands for its units

Word = TypeVar("Word", bound=Hashable)


def unigram_entropy(texts: Iterable[Text]) -> float:
    """Returns the entropy, in nats, of the words of all texts together. Raises ValueError if there is no word."""
    counts = Counter(word for text in texts for word in words_of(text))
    total = counts.total()
    if total == 0:
        raise ValueError("no word in the texts; entropy needs at least one")
    return math.log(total) - sum(count * math.log(count) for count in counts.values()) / total


def distinct_ngrams(texts: Iterable[Text], n: int) -> float:
    """Returns the number of different n-grams per n-gram over all texts, in (0, 1].

    It falls with the number of texts: compare equal numbers. Raises ValueError if no text has n words.
    """
    counts: Counter[tuple[Hashable, ...]] = Counter()
    for text in texts:
        counts.update(ngrams(words_of(text), n))
    if n < 1 or not counts:
        raise ValueError(f"no {n}-gram in the texts; expected n of at least 1 and a text of at least n words")
    return len(counts) / counts.total()


def share_copied(texts: Iterable[Text], train_texts: Iterable[Text]) -> float:
    """Returns the share of texts that occur word for word among the training texts. Raises ValueError for none."""
    in_train = {tuple(words_of(text)) for text in train_texts}
    copied = [tuple(words_of(text)) in in_train for text in texts]
    if not copied:
        raise ValueError("no texts given; the share of copies needs at least one")
    return sum(copied) / len(copied)


def words_of(text: Text) -> Sequence[Hashable]:
    """Returns the words of a text: its units if it is a string."""
    return units(text) if isinstance(text, str) else text


def ngrams(words: Sequence[Word], n: int) -> Iterator[tuple[Word, ...]]:
    """Returns the runs of n words, in their order."""
    return zip(*(words[start:] for start in range(n)), strict=False)


def ngrams_up_to(words: Sequence[Word], longest: int) -> Iterator[tuple[Word, ...]]:
    """Yields the runs of 1, then 2, … then `longest` words."""
    for n in range(1, longest + 1):
        yield from ngrams(words, n)
