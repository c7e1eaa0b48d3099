"""Entropy, distinct n-grams, self-BLEU, MAUVE and copies."""

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from jtextdiff.data.cache import evenly_spaced
from jtextdiff.data.corpus import Corpus
from jtextdiff.data.grammar.restaurants import sentences
from jtextdiff.evaluation.score import Score, compared_score, reference, score
from jtextdiff.inference.model import Model
from jtextdiff.metrics.bleu import self_bleu
from jtextdiff.metrics.mauve import frontier_area
from jtextdiff.metrics.ngrams import distinct_ngrams, share_copied, unigram_entropy

ENTROPY_LOSS, DISTINCT_SHARE = 0.35, 0.8
"""The diversity guard: at most this many nats below train text, at least this share of its distinct bigrams."""

FRESH_SENTENCES = 20_000
"""Sentences drawn from the grammar to measure how often one is a copy by chance; also their seed, not any corpus's."""

Ids = tuple[int, ...]
Item = TypeVar("Item")


def mauve_score(judge: Model, texts: dict[str, list[str]], comparison: list[str], split: str) -> dict[str, Score]:
    """Returns MAUVE of samples and real text against other real texts, `comparison`, on the judge's features.

    Empty if there are fewer than 20 texts of any kind.
    """
    n = min(len(rows) for rows in [comparison, *texts.values()])
    if n < 20:
        return {}
    features = judge.features(_subset(comparison, n))
    area = {name: frontier_area(judge.features(_subset(rows, n)), features) for name, rows in texts.items()}
    kind = f"frontier area (MAUVE) against {n} other texts of {split}, on the judge's features"
    return {"divergence_area": compared_score(area, split, "0 to 1", n, kind)}


def diversity_scores(rows: dict[str, list[Ids]], split: str) -> dict[str, Score]:
    """Returns entropy, distinct n-grams and self-BLEU at equal numbers of texts, the diversity guard and the length."""
    equal = equal_numbers(rows)
    n = len(equal["samples"])
    entropy = {name: unigram_entropy(texts) for name, texts in equal.items()}
    bigrams = {name: distinct_ngrams(texts, 2) for name, texts in equal.items()}
    bleu = {name: self_bleu(texts) for name, texts in equal.items()}
    length = {name: float(np.mean([len(text) for text in texts])) for name, texts in rows.items()}
    tokens = "of tokens, ends counted"
    scores = {
        "unigram_entropy": compared_score(entropy, split, "nats", n, tokens),
        "distinct_bigrams": compared_score(bigrams, split, "share", n, tokens),
    }
    if all(any(len(text) >= 3 for text in texts) for texts in equal.values()):
        trigrams = {name: distinct_ngrams(texts, 3) for name, texts in equal.items()}
        scores["distinct_trigrams"] = compared_score(trigrams, split, "share", n, tokens)
    return scores | {
        "self_bleu": compared_score(bleu, split, "0 to 1", n, "of each text against the others, 4-grams"),
        "diversity_guard": _diversity_guard(entropy, bigrams, n),
        "mean_length": compared_score(length, split, "tokens", len(rows["samples"]), "mean, end counted"),
    }


def equal_numbers(rows: dict[str, list[Ids]]) -> dict[str, list[Ids]]:
    """Returns as many texts of each kind as there are of the rarest, evenly spaced: entropy depends on their number."""
    n = min(len(texts) for texts in rows.values())
    return {name: _subset(texts, n) for name, texts in rows.items()}


def _diversity_guard(entropy: dict[str, float], bigrams: dict[str, float], n: int) -> Score:
    """1 if the samples are about as diverse as train text."""
    passes = (
        entropy["samples"] >= entropy["train"] - ENTROPY_LOSS
        and bigrams["samples"] >= DISTINCT_SHARE * bigrams["train"]
    )
    kind = f"entropy >= train - {ENTROPY_LOSS}, distinct bigrams >= {DISTINCT_SHARE} x train"
    return score(float(passes), "1 = passes", None, n, kind) | reference(None, None)


def copy_rate(rows: dict[str, list[Ids]], split: str, corpus: Corpus) -> dict[str, Score]:
    """Returns the share of samples that occur in the training text, and for the grammar that expected by chance."""
    train, kind = corpus.splits["train"], "token for token in train"
    if corpus.grammar is not None:
        in_train = set(train.texts())
        fresh = sentences(FRESH_SENTENCES, seed=FRESH_SENTENCES)
        chance = float(np.mean([sentence.text in in_train for sentence in fresh]))
        kind += f"; of {FRESH_SENTENCES:,} fresh draws of the grammar {chance:.2%} are copies"
    train_rows = [(row.tobytes(),) for row in np.split(np.asarray(train.tokens, np.int32), train.offsets[1:-1])]
    share = {
        name: share_copied([(np.asarray(text, np.int32).tobytes(),) for text in texts], train_rows)
        for name, texts in rows.items()
    }
    n = len(rows["samples"])
    se = math.sqrt(share["samples"] * (1 - share["samples"]) / n)
    return {"training_copies": compared_score(share, split, "share", n, kind, se)}


def token_ids(corpus: Corpus, texts: list[str]) -> list[Ids]:
    """Returns texts as ids, EOS after each, so that counts do not depend on how the tokenizer spells a text."""
    return [(*row.tolist(), corpus.tokenizer.eos) for row in corpus.tokenizer.encode(texts)]


def _subset(rows: Sequence[Item], n: int) -> list[Item]:
    """`n` evenly spaced rows."""
    return [rows[place] for place in evenly_spaced(np.arange(len(rows)), n)]
