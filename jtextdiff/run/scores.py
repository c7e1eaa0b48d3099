"""Scores: what samples and likelihoods are worth, each number beside the same number of real text.

The judge never chooses anything: it reads samples drawn with a fixed seed, all of them, as they came.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rich.progress import Progress
from rich.table import Table

from jtextdiff.run.config import to_json
from jtextdiff.run.model import Model
from jtextdiff.text.corpora import Corpus
from jtextdiff.text.metrics import copies, distinct_ngrams, unigram_entropy
from jtextdiff.text.restaurants import grammar

Score = dict[str, Any]
"""value, unit, se (standard error), n, kind (how it was found), real_valid, real_train."""

ENTROPY_LOSS, DISTINCT_SHARE = 0.35, 0.8
"""The diversity guard: at most so many nats below train text, at least this share of its distinct bigrams."""


def score(
    model: Model, corpus: Corpus, *, judge: Model | None, split: str, num: int, seed: int, bar: Progress
) -> dict[str, Score]:
    """All scores of a model, on `num` samples and `num` sentences of each kind of real text."""
    task = bar.add_task("sampling", total=num)
    samples = model.sample(num, seed=seed, progress=lambda done: bar.advance(task, done))
    # Texts as the tokenizer writes them, so that samples and real text are spelled alike.
    real = {name: _evenly(model, corpus, name, num) for name in (split, "train")}
    metrics = _likelihoods(model, real, split, seed, bar)
    if judge is not None:
        bar.add_task("judging", total=None)
        metrics |= _judged(judge, samples, real, split)
    metrics |= _variety(samples, real, split)
    metrics |= _copied(samples, real, split, corpus)
    if corpus.is_grammar:
        members = [float(text.split() in grammar()) for text in samples]
        metrics["members"] = _mean(members, "share", "exact membership of the grammar") | _beside(1.0, 1.0)
    return metrics


def report(model: Model, metrics: dict[str, Score], *, split: str, num: int, seed: int, load: float) -> Score:
    """The scores with all that is needed to find them again."""
    sampler = getattr(model.method, "sampler", None)
    steps = model.method.language.length if sampler is None else sampler.steps
    return {
        "method": type(model.method).__name__,
        "step": model.step,
        "split": split,
        "seed": seed,
        "num_samples": num,
        "sampler": "autoregress" if sampler is None else sampler.name,
        "steps": steps,
        "nfe": steps,
        "dtype": "float32",
        "config_hash": hashlib.sha256(to_json(model.config).encode()).hexdigest()[:16],
        "load": load,
        "metrics": metrics,
    }


def table(result: Score) -> Table:
    """The scores for a reader."""
    head = f"{result['method']} at step {result['step']}: {result['num_samples']} samples, {result['steps']} steps"
    table = Table(title=f"{head} ({result['sampler']}), seed {result['seed']}, split {result['split']}")
    for name in ("score", "value", "± se", f"real {result['split']}", "real train", "unit", "how"):
        table.add_column(name, overflow="fold")
    for name, row in result["metrics"].items():
        cells = (_shown(row[column]) for column in ("value", "se", "real_valid", "real_train"))
        table.add_row(name, *cells, row["unit"], row["kind"])
    return table


def _likelihoods(model: Model, real: dict[str, list[str]], split: str, seed: int, bar: Progress) -> dict[str, Score]:
    """The model's own likelihood of real text, in every unit."""
    bar.add_task("likelihood", total=None)
    nats = {name: model.nll(texts, seed=seed) for name, texts in real.items()}
    per: dict[str, tuple[Callable[[str], float], str, Callable[[float], float]]] = {
        "nll": (lambda text: model.num_tokens([text])[0], "nats/token", lambda rate: rate),
        "perplexity": (lambda text: model.num_tokens([text])[0], "per token", math.exp),
        "word_perplexity": (lambda text: len(text.split()) + 1, "per word, end counted", math.exp),
        "bits_per_char": (lambda text: len(text) + 1, "bits/char, end counted", lambda rate: rate / math.log(2)),
    }
    scores = {}
    for name, (size, unit, convert) in per.items():
        rows = {which: _ratio(nats[which], [size(text) for text in real[which]]) for which in real}
        rate, se = rows[split]
        slope = convert(rate) if convert is math.exp else convert(1.0)
        beside = _beside(convert(rate), convert(rows["train"][0]))
        scores[name] = _score(convert(rate), unit, se * slope, len(real[split]), model.method.bound) | beside
    return scores


def _judged(judge: Model, samples: list[str], real: dict[str, list[str]], split: str) -> dict[str, Score]:
    """Generative perplexity: exp of the judge's nats a token, ends counted."""
    texts = {"samples": samples, **real}
    rates = {name: _ratio(judge.nll(rows), judge.num_tokens(rows)) for name, rows in texts.items()}
    perplexity = {name: math.exp(rate) for name, (rate, _) in rates.items()}
    beside = _beside(perplexity[split], perplexity["train"])
    kind = f"under {type(judge.method).__name__} at step {judge.step}, {judge.method.bound}"
    value, se = perplexity["samples"], perplexity["samples"] * rates["samples"][1]
    ratio = value / perplexity[split]
    judge_nll = _score(rates[split][0], "nats/token", rates[split][1], len(real[split]), "the judge on real text")
    return {
        "generative_perplexity": _score(value, "per token", se, len(samples), kind) | beside,
        "perplexity_ratio": _score(ratio, "to real text", None, len(samples), kind)
        | _beside(1.0, perplexity["train"] / perplexity[split]),
        "judge_nll": judge_nll | _beside(rates[split][0], rates["train"][0]),
    }


def _variety(samples: list[str], real: dict[str, list[str]], split: str) -> dict[str, Score]:
    """Entropy and distinct bigrams at equal numbers of texts, and whether the samples pass the guard."""
    n, texts = len(samples), {"samples": samples, **real}
    entropy = {name: unigram_entropy(rows) for name, rows in texts.items()}
    distinct = {name: distinct_ngrams(rows, 2) for name, rows in texts.items()}
    length = {name: float(np.mean([len(text.split()) for text in rows])) for name, rows in texts.items()}
    passes = (
        entropy["samples"] >= entropy["train"] - ENTROPY_LOSS
        and distinct["samples"] >= DISTINCT_SHARE * distinct["train"]
    )
    kind = f"entropy >= train - {ENTROPY_LOSS}, distinct bigrams >= {DISTINCT_SHARE} x train"
    return {
        "unigram_entropy": _score(entropy["samples"], "nats", None, n, "plug-in")
        | _beside(entropy[split], entropy["train"]),
        "distinct_bigrams": _score(distinct["samples"], "share", None, n, "at equal numbers of texts")
        | _beside(distinct[split], distinct["train"]),
        "diversity_guard": _score(float(passes), "1 = passes", None, n, kind) | _beside(None, None),
        "mean_length": _score(length["samples"], "words", None, n, "mean") | _beside(length[split], length["train"]),
    }


def _copied(samples: list[str], real: dict[str, list[str]], split: str, corpus: Corpus) -> dict[str, Score]:
    """The share of samples that stand in the training text; for the grammar, beside what chance would give."""
    split_ids = corpus.splits["train"]
    train = [row.tobytes() for row in np.split(np.asarray(split_ids.tokens, np.int32), split_ids.offsets[1:-1])]
    kind = "token for token in train"
    if corpus.is_grammar:
        expected = sum(math.exp(grammar().log_prob(text.split())) for text in set(split_ids.texts()))
        kind += f"; a fresh draw of the grammar is a copy with probability {expected:.2g}"

    def spelled(texts: list[str]) -> list[tuple[bytes, ...]]:
        end = np.asarray([corpus.tokenizer.eos], np.int32)
        return [(np.concatenate([row, end]).tobytes(),) for row in corpus.tokenizer.encode(texts)]

    known = [(row,) for row in train]
    value, n = copies(spelled(samples), known), len(samples)
    share = _score(value, "share", math.sqrt(value * (1 - value) / n), n, kind)
    beside = _beside(copies(spelled(real[split]), known), copies(spelled(real["train"]), known))
    return {"training_copies": share | beside}


def _evenly(model: Model, corpus: Corpus, split: str, num: int) -> list[str]:
    """At most `num` texts, taken evenly from a split without repeating one, spelled as the tokenizer writes them."""
    size = len(corpus.splits[split])
    rows = np.arange(min(num, size)) * size // min(num, size)
    return [model.tokenizer.normalize(text) for text in corpus.splits[split].texts(rows)]


def _ratio(totals: Sequence[float], sizes: Sequence[float]) -> tuple[float, float]:
    """Sum over sum, and its standard error (delta method, texts being independent)."""
    total, size = np.asarray(totals), np.asarray(sizes, float)
    rate = total.sum() / size.sum()
    spread = np.sum((total - rate * size) ** 2) * len(size) / max(len(size) - 1, 1)
    return float(rate), float(np.sqrt(spread) / size.sum())


def _mean(values: Sequence[float], unit: str, kind: str) -> Score:
    n = len(values)
    return _score(float(np.mean(values)), unit, float(np.std(values, ddof=1) / math.sqrt(n)), n, kind)


def _score(value: float, unit: str, se: float | None, n: int, kind: str) -> Score:
    return {"value": value, "unit": unit, "se": se, "n": n, "kind": kind}


def _beside(valid: float | None, train: float | None) -> Score:
    return {"real_valid": valid, "real_train": train}


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
