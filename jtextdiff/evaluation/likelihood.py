"""Measures: likelihoods, variety, copies and what a judge says, each number beside the same number of real text."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jtextdiff.cli.errors import UserError
from jtextdiff.data.grammar.restaurants import grammar
from jtextdiff.evaluation.score import Score, beside, figure
from jtextdiff.inference.model import Model, load


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


def _ratio(totals: Sequence[float], sizes: Sequence[float]) -> tuple[float, float]:
    """Sum over sum, and its standard error (delta method, texts being independent)."""
    total, size = np.asarray(totals), np.asarray(sizes, float)
    rate = total.sum() / size.sum()
    spread = np.sum((total - rate * size) ** 2) * len(size) / max(len(size) - 1, 1)
    return float(rate), float(np.sqrt(spread) / size.sum())


def _exp(rate: float) -> float:
    """e^rate, of at most e^700: an untrained model's rate may be beyond any float."""
    return math.exp(min(rate, 700.0))
