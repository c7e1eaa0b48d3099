"""Measures: likelihoods, variety, copies and what a judge says, each number beside the same number of real text."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jtextdiff.run.command import UserError
from jtextdiff.run.model import Model, load
from jtextdiff.text.corpora import Corpus
from jtextdiff.text.divergence import frontier_area
from jtextdiff.text.metrics import copies, distinct_ngrams, self_bleu, unigram_entropy
from jtextdiff.text.restaurants import grammar, sentences

Score = dict[str, Any]
"""value, unit, se (standard error), n, kind (how it was found), real_valid, real_train."""

ENTROPY_LOSS, DISTINCT_SHARE = 0.35, 0.8
"""The diversity guard: at most so many nats below train text, at least this share of its distinct bigrams."""

FRESH = 20_000
"""Sentences drawn from the grammar to see how often one of its own is a copy; also their seed, which no corpus has."""


def likelihoods(model: Model, real: dict[str, Any], nats: dict[str, list[float]], split: str) -> dict[str, Score]:
    """The model's own likelihood of real text, in every unit."""
    per: dict[str, tuple[Callable[[str], float], str, Callable[[float], float]]] = {
        "nll": (lambda text: model.num_tokens([text])[0], "nats/token", lambda rate: rate),
        "perplexity": (lambda text: model.num_tokens([text])[0], "per token", _exp),
        "word_perplexity": (lambda text: len(text.split()) + 1, "per word, end counted", _exp),
        "bits_per_char": (lambda text: len(text) + 1, "bits/char, end counted", lambda rate: rate / math.log(2)),
    }
    scores = {}
    for name, (size, unit, convert) in per.items():
        rows = {which: _ratio(nats[which], [size(text) for text in real[which]]) for which in real}
        rate, se = rows[split]
        slope = convert(rate) if convert is _exp else convert(1.0)
        of_real = beside(convert(rate), convert(rows["train"][0]))
        scores[name] = figure(convert(rate), unit, se * slope, len(real[split]), model.method.bound) | of_real
    return scores


def excess(model: Model, texts: list[str], nats: list[float]) -> dict[str, Score]:
    """What the likelihood lacks of the grammar's own, of the same texts, as far as they are still the grammar's."""
    exact = [grammar().log_prob(text.split()) for text in texts]
    more = [(own + log_p, text) for own, log_p, text in zip(nats, exact, texts, strict=True) if log_p > -math.inf]
    if len(more) < 2:
        return {}
    rate, se = _ratio([nat for nat, _ in more], model.num_tokens([text for _, text in more]))
    return {"excess_nll": figure(rate, "nats/token", se, len(more), "over the grammar's own") | beside(0.0, None)}


def load_judge(run: str, model: Model, checkpoint: str) -> Model:
    """The run that judges a model's texts, by the same tokens, or by others of which none is unknown.

    Raises UserError if its likelihood is a bound, or it does not know all words.
    """
    judge = load(run)
    if judge.method.bound != "exact":
        name = type(judge.method).__name__
        raise UserError(f"--judge {run} is {name}, whose likelihood is: {judge.method.bound}. A judge must be exact.")
    if not judge.tokenizer.knows_all and judge.tokenizer.fingerprint() != model.tokenizer.fingerprint():
        kinds = [f"{each.config.text.tokenizer} of {each.tokenizer.vocab_size:,}" for each in (judge, model)]
        raise UserError(
            f"--judge {run} has another tokenizer ({kinds[0]}) than {checkpoint} ({kinds[1]}): words "
            "that it does not know would all be one. Train it with the same text.tokenizer, on the same text, or with "
            "byte_pairs:N on any."
        )
    return judge


def judged(judge: Model, texts: list[str]) -> tuple[float, float]:
    """The judge's nats a token, ends counted, and their standard error."""
    return _ratio(judge.nll(texts), judge.num_tokens(texts))


def generative(
    judge: Model, rates: dict[str, tuple[float, float]], split: str, num: dict[str, int]
) -> dict[str, Score]:
    """Generative perplexity: exp of the judge's nats a token; and its ratio to that of real text."""
    perplexity = {name: _exp(rate) for name, (rate, _) in rates.items()}
    of_real = beside(perplexity[split], perplexity["train"])
    kind = f"under {type(judge.method).__name__} at step {judge.step}, {judge.method.bound}"
    value, ratio = perplexity["samples"], perplexity["samples"] / perplexity[split]
    ratio_se = ratio * math.hypot(rates["samples"][1], rates[split][1])
    own = figure(rates[split][0], "nats/token", rates[split][1], num[split], "the judge on real text")
    return {
        "generative_perplexity": figure(value, "per token", value * rates["samples"][1], num["samples"], kind)
        | of_real,
        "perplexity_ratio": figure(ratio, "to real text", ratio_se, num["samples"], kind)
        | beside(1.0, perplexity["train"] / perplexity[split]),
        "judge_nll": own | beside(rates[split][0], rates["train"][0]),
    }


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


def evenly(model: Model, corpus: Corpus, split: str, num: int) -> list[str]:
    """At most `num` texts, taken evenly from a split without repeating one, spelled as the tokenizer writes them."""
    of_split = corpus.splits[split]
    return [model.tokenizer.spelled(text) for text in of_split.texts(of_split.evenly(num))]


def _even(rows: list[Any], n: int) -> list[Any]:
    """`n` of the rows, evenly taken."""
    return [rows[i * len(rows) // n] for i in range(n)]


def _ratio(totals: Sequence[float], sizes: Sequence[float]) -> tuple[float, float]:
    """Sum over sum, and its standard error (delta method, texts being independent)."""
    total, size = np.asarray(totals), np.asarray(sizes, float)
    rate = total.sum() / size.sum()
    spread = np.sum((total - rate * size) ** 2) * len(size) / max(len(size) - 1, 1)
    return float(rate), float(np.sqrt(spread) / size.sum())


def _exp(rate: float) -> float:
    """e^rate, of at most e^700: an untrained model's rate may be beyond any float."""
    return math.exp(min(rate, 700.0))


def mean(values: Sequence[float], unit: str, kind: str) -> Score:
    n = len(values)
    return figure(float(np.mean(values)), unit, float(np.std(values, ddof=1) / math.sqrt(n)), n, kind)


def figure(value: float, unit: str, se: float | None, n: int, kind: str) -> Score:
    """One score, of `n` texts."""
    return {"value": value, "unit": unit, "se": se, "n": n, "kind": kind}


def beside(valid: float | None, train: float | None) -> Score:
    return {"real_valid": valid, "real_train": train}
