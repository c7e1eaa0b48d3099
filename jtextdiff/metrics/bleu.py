"""Counting words: how varied a set of texts is, and how much of it was copied."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence

from jtextdiff.metrics.ngrams import Sentence, _words


def self_bleu(texts: Sequence[Sentence], n: int = 4) -> float:
    """The mean BLEU of each text with all others as its references, in [0, 1]: high where texts repeat each other.

    Zhu et al. (2018); n-grams of 1 … n, of an n that no text shares .1 is counted. It rises with the number of texts:
    compare equal numbers. Raises ValueError for fewer than two texts.
    """
    if len(texts) < 2:
        raise ValueError(f"self-BLEU compares texts with each other; expected at least two, got {len(texts)}")
    words = [_words(text) for text in texts]
    grams = [[Counter(zip(*(text[i:] for i in range(k)), strict=False)) for text in words] for k in range(1, n + 1)]
    rivals = [_two_largest(counts) for counts in grams]
    lengths = [len(text) for text in words]
    scores = []
    for i, text in enumerate(words):
        logs = []
        for counts, best in zip(grams, rivals, strict=True):
            shared = sum(min(count, _most(best[gram], count)) for gram, count in counts[i].items())
            logs.append(math.log(max(shared, 0.1) / max(counts[i].total(), 1)))
        scores.append(_brevity(len(text), lengths) * math.exp(sum(logs) / n))
    return sum(scores) / len(scores)


def sentence_bleu(text: Sentence, reference: Sentence, n: int = 4) -> float:
    """BLEU of one text against one reference, in [0, 1], with one added to every count of 2-grams and longer.

    Papineni et al. (2002); Lin & Och (2004) for what is added.
    """
    own, other = _words(text), _words(reference)
    logs = []
    for k in range(1, n + 1):
        mine = Counter(zip(*(own[i:] for i in range(k)), strict=False))
        theirs = Counter(zip(*(other[i:] for i in range(k)), strict=False))
        shared, more = (mine & theirs).total(), int(k > 1)
        if shared + more == 0:
            return 0.0
        logs.append(math.log((shared + more) / (max(mine.total(), 1 - more) + more)))
    brevity = min(0.0, 1 - len(other) / max(len(own), 1))
    return math.exp(brevity + sum(logs) / n)


def corpus_bleu(texts: Sequence[Sentence], references: Sequence[Sentence], n: int = 4) -> float:
    """BLEU of texts, each against one reference, in [0, 1]: counts are summed over all of them, and none is added.

    Papineni et al. (2002). Raises ValueError for none, or unequal numbers.
    """
    if not texts or len(texts) != len(references):
        raise ValueError(f"BLEU needs a reference for each text, got {len(texts)} texts, {len(references)} references")
    pairs = [(_words(text), _words(reference)) for text, reference in zip(texts, references, strict=True)]
    logs = []
    for k in range(1, n + 1):
        grams = [[Counter(zip(*(one[i:] for i in range(k)), strict=False)) for one in pair] for pair in pairs]
        shared, all_of = sum((own & other).total() for own, other in grams), sum(own.total() for own, _ in grams)
        if shared == 0:
            return 0.0
        logs.append(math.log(shared / all_of))
    own, other = (sum(len(pair[side]) for pair in pairs) for side in (0, 1))
    return math.exp(min(0.0, 1 - other / max(own, 1)) + sum(logs) / n)


def _two_largest(counts: Sequence[Counter[tuple[Hashable, ...]]]) -> dict[tuple[Hashable, ...], tuple[int, int]]:
    """The two largest numbers of times that an n-gram stands in one text."""
    best: dict[tuple[Hashable, ...], tuple[int, int]] = {}
    for count in counts:
        for gram, times in count.items():
            first, second = best.get(gram, (0, 0))
            best[gram] = (times, first) if times > first else (first, max(second, times))
    return best


def _most(best: tuple[int, int], own: int) -> int:
    """How often the others have an n-gram at most, of which one text has `own`."""
    return best[1] if own == best[0] else best[0]


def _brevity(length: int, lengths: Sequence[int]) -> float:
    """BLEU's penalty for a text shorter than that of the others which is nearest in length; its own is in `lengths`."""
    others = list(lengths)
    others.remove(length)
    nearest = min(others, key=lambda other: (abs(other - length), other))
    return 1.0 if length >= nearest else math.exp(1 - nearest / max(length, 1))
