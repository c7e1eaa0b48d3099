"""Entropy, distinct n-grams, self-BLEU, MAUVE, copies."""

import math

import numpy as np

from jtextdiff.data.corpus import Corpus
from jtextdiff.data.grammar.restaurants import sentences
from jtextdiff.evaluation.score import Score, _even, beside, figure
from jtextdiff.inference.model import Model
from jtextdiff.metrics.bleu import self_bleu
from jtextdiff.metrics.mauve import frontier_area
from jtextdiff.metrics.ngrams import copies, distinct_ngrams, unigram_entropy

ENTROPY_LOSS, DISTINCT_SHARE = 0.35, 0.8
"""The diversity guard: at most so many nats below train text, at least this share of its distinct bigrams."""

FRESH = 20_000
"""Sentences drawn from the grammar to see how often one of its own is a copy; also their seed, which no corpus has."""


def apart(judge: Model, texts: dict[str, list[str]], others: list[str], split: str) -> dict[str, Score]:
    """How near each set of texts lies to real ones that none of them holds, by the judge's features."""
    n = min(len(rows) for rows in [others, *texts.values()])
    if n < 20:
        return {}
    reference = judge.features(_even(others, n))
    area = {name: frontier_area(judge.features(_even(rows, n)), reference) for name, rows in texts.items()}
    kind = f"frontier area (MAUVE) against {n} other texts of {split}, on the judge's features"
    return {"divergence_area": figure(area["samples"], "0 to 1", None, n, kind) | beside(area[split], area["train"])}


def variety(rows: dict[str, list[tuple[int, ...]]], split: str) -> dict[str, Score]:
    """Entropy and distinct bigrams at equal numbers of texts, and whether the samples pass the guard."""
    n = min(len(texts) for texts in rows.values())
    equal = {name: _even(texts, n) for name, texts in rows.items()}
    entropy = {name: unigram_entropy(texts) for name, texts in equal.items()}
    distinct = {name: distinct_ngrams(texts, 2) for name, texts in equal.items()}
    long = all(any(len(text) >= 3 for text in texts) for texts in equal.values())
    trigrams = {name: distinct_ngrams(texts, 3) for name, texts in equal.items()} if long else None
    bleu = {name: self_bleu(texts) for name, texts in equal.items()}
    length = {name: float(np.mean([len(text) for text in texts])) for name, texts in rows.items()}
    passes = (
        entropy["samples"] >= entropy["train"] - ENTROPY_LOSS
        and distinct["samples"] >= DISTINCT_SHARE * distinct["train"]
    )
    kind = f"entropy >= train - {ENTROPY_LOSS}, distinct bigrams >= {DISTINCT_SHARE} x train"
    tokens = "of tokens, ends counted"
    return {
        "unigram_entropy": figure(entropy["samples"], "nats", None, n, tokens)
        | beside(entropy[split], entropy["train"]),
        "distinct_bigrams": figure(distinct["samples"], "share", None, n, tokens)
        | beside(distinct[split], distinct["train"]),
        **(
            {}
            if trigrams is None
            else {
                "distinct_trigrams": figure(trigrams["samples"], "share", None, n, tokens)
                | beside(trigrams[split], trigrams["train"])
            }
        ),
        "self_bleu": figure(bleu["samples"], "0 to 1", None, n, "of each text against the others, 4-grams")
        | beside(bleu[split], bleu["train"]),
        "diversity_guard": figure(float(passes), "1 = passes", None, n, kind) | beside(None, None),
        "mean_length": figure(length["samples"], "tokens", None, len(rows["samples"]), "mean, end counted")
        | beside(length[split], length["train"]),
    }


def copied(rows: dict[str, list[tuple[int, ...]]], split: str, corpus: Corpus) -> dict[str, Score]:
    """The share of samples that stand in the training text; for the grammar, beside what chance would give."""
    train, kind = corpus.splits["train"], "token for token in train"
    if corpus.is_grammar:
        there = set(train.texts())
        chance = float(np.mean([one.text in there for one in sentences(FRESH, seed=FRESH)]))
        kind += f"; of {FRESH:,} fresh draws of the grammar {chance:.2%} are copies"
    known = [(row.tobytes(),) for row in np.split(np.asarray(train.tokens, np.int32), train.offsets[1:-1])]
    share = {
        name: copies([(np.asarray(text, np.int32).tobytes(),) for text in texts], known) for name, texts in rows.items()
    }
    value, n = share["samples"], len(rows["samples"])
    score = figure(value, "share", math.sqrt(value * (1 - value) / n), n, kind)
    return {"training_copies": score | beside(share[split], share["train"])}


def rows_of(corpus: Corpus, texts: list[str]) -> list[tuple[int, ...]]:
    """Texts as ids, EOS after each, so that what is counted does not depend on the tokenizer's spelling."""
    return [(*row.tolist(), corpus.tokenizer.eos) for row in corpus.tokenizer.encode(texts)]
