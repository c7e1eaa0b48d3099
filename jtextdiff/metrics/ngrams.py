"""Unigram entropy, distinct n-grams, share of copies."""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

Sentence = str | Sequence[Hashable]  # a string stands for its words between white space


def unigram_entropy(texts: Iterable[Sentence]) -> float:
    """The entropy, in nats, of a word drawn from all the texts. Raises ValueError if they hold no word."""
    counts = Counter(word for text in texts for word in _words(text))
    total = counts.total()
    if total == 0:
        raise ValueError("no word in the texts; entropy needs at least one")
    return math.log(total) - sum(count * math.log(count) for count in counts.values()) / total


def distinct_ngrams(texts: Iterable[Sentence], n: int) -> float:
    """Different n-grams per n-gram over all the texts, in (0, 1]. It falls with the number of texts: compare
    equal numbers. Raises ValueError if no text has n words."""
    counts: Counter[tuple[Hashable, ...]] = Counter()
    for text in texts:
        words = _words(text)
        counts.update(zip(*(words[i:] for i in range(n)), strict=False))
    if n < 1 or not counts:
        raise ValueError(f"no {n}-gram in the texts; expected n of at least 1 and a text of at least n words")
    return len(counts) / counts.total()


def copies(texts: Iterable[Sentence], train_texts: Iterable[Sentence]) -> float:
    """The share of texts that stand, word for word, among the training texts. Raises ValueError for none."""
    known = {tuple(_words(text)) for text in train_texts}
    copied = [tuple(_words(text)) in known for text in texts]
    if not copied:
        raise ValueError("no texts given; the share of copies needs at least one")
    return sum(copied) / len(copied)


def _words(text: Sentence) -> Sequence[Hashable]:
    return text.split() if isinstance(text, str) else text
