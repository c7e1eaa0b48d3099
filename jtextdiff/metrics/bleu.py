"""Sentence, corpus and self-BLEU."""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

from jtextdiff.metrics.ngrams import Text, ngrams, ngrams_up_to, words_of

Ngram = tuple[Hashable, ...]


def self_bleu(texts: Sequence[Text], n: int = 4) -> float:
    """Returns the mean BLEU of each text with all others as its references, in [0, 1]: high where texts are alike.

    Zhu et al. (2018); n-grams of 1 … n; if none of an order matches, its number of matches is set to 0.1. It rises with
    the number of texts: compare equal numbers. Raises ValueError for fewer than two texts.
    """
    if len(texts) < 2:
        raise ValueError(f"self-BLEU compares texts with each other; expected at least two, got {len(texts)}")
    words = [words_of(text) for text in texts]
    counts_of_size = [[Counter(ngrams(text, size)) for text in words] for size in range(1, n + 1)]
    largest_of_size = [_two_largest(counts) for counts in counts_of_size]
    lengths = [len(text) for text in words]
    scores = []
    for i, text in enumerate(words):
        log_precisions = []
        for counts, largest in zip(counts_of_size, largest_of_size, strict=True):
            matches = sum(min(count, _largest_of_others(largest[ngram], count)) for ngram, count in counts[i].items())
            log_precisions.append(math.log(max(matches, 0.1) / max(counts[i].total(), 1)))
        scores.append(_brevity_penalty(len(text), lengths) * math.exp(sum(log_precisions) / n))
    return sum(scores) / len(scores)


def sentence_bleu(text: Text, reference: Text, n: int = 4) -> float:
    """Returns BLEU of one text against one reference, see `bleu_against`."""
    return bleu_against(reference, n)(text)


def bleu_against(reference: Text, n: int = 4) -> Callable[[Text], float]:
    """Returns BLEU against one reference as a function of a text, in [0, 1]; one is added to counts of longer n-grams.

    Papineni et al. (2002); Lin & Och (2004) for what is added to the counts of 2-grams and longer.
    """
    reference_words = words_of(reference)
    reference_counts = Counter(ngrams_up_to(reference_words, n))

    def bleu(text: Text) -> float:
        words = words_of(text)
        matches = [0, *[1] * (n - 1)]
        for ngram, count in Counter(ngrams_up_to(words, n)).items():
            if ngram in reference_counts:
                matches[len(ngram) - 1] += min(count, reference_counts[ngram])
        if matches[0] == 0:
            return 0.0
        totals = [max(len(words), 1), *(max(len(words) - size, 0) + 1 for size in range(1, n))]
        brevity = min(0.0, 1 - len(reference_words) / max(len(words), 1))
        return math.exp(brevity + sum(map(math.log, matches)) / n - sum(map(math.log, totals)) / n)

    return bleu


def corpus_bleu(texts: Sequence[Text], references: Sequence[Text], n: int = 4) -> float:
    """Returns BLEU of texts, each against one reference, in [0, 1]. Counts are summed over all, and none is added.

    Papineni et al. (2002). Raises ValueError for none, or unequal numbers.
    """
    if isinstance(texts, str) or isinstance(references, str):
        raise ValueError("BLEU needs lists of texts and references, got one text")
    if not texts or len(texts) != len(references):
        raise ValueError(f"BLEU needs a reference for each text, got {len(texts)} texts, {len(references)} references")
    pairs = [(words_of(text), words_of(reference)) for text, reference in zip(texts, references, strict=True)]
    log_precisions = []
    for size in range(1, n + 1):
        counts = [(Counter(ngrams(text, size)), Counter(ngrams(reference, size))) for text, reference in pairs]
        matches = sum((of_text & of_reference).total() for of_text, of_reference in counts)
        if matches == 0:
            return 0.0
        log_precisions.append(math.log(matches / sum(of_text.total() for of_text, _ in counts)))
    length, reference_length = sum(len(text) for text, _ in pairs), sum(len(reference) for _, reference in pairs)
    return math.exp(min(0.0, 1 - reference_length / max(length, 1)) + sum(log_precisions) / n)


def _two_largest(counts: Sequence[Counter[Ngram]]) -> dict[Ngram, tuple[int, int]]:
    """The two largest counts of each n-gram in one text."""
    largest: dict[Ngram, tuple[int, int]] = {}
    for of_text in counts:
        for ngram, count in of_text.items():
            first, second = largest.get(ngram, (0, 0))
            largest[ngram] = (count, first) if count > first else (first, max(second, count))
    return largest


def _largest_of_others(two_largest: tuple[int, int], count: int) -> int:
    """The largest count of an n-gram in any other text than one in which it occurs `count` times."""
    return two_largest[1] if count == two_largest[0] else two_largest[0]


def _brevity_penalty(length: int, lengths: Sequence[int]) -> float:
    """BLEU's penalty for a text shorter than the other nearest in length; the text's own is one of `lengths`."""
    other_lengths = list(lengths)
    other_lengths.remove(length)
    nearest = min(other_lengths, key=lambda other: (abs(other - length), other))
    return 1.0 if length >= nearest else math.exp(1 - nearest / max(length, 1))
