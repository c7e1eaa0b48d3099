"""Likelihood, perplexity and generative perplexity under a judge."""

import math
from collections.abc import Sequence

import numpy as np

from jtextdiff.cli.errors import UserError
from jtextdiff.cli.output import say
from jtextdiff.data.grammar.pcfg import Grammar
from jtextdiff.evaluation.score import Score, compared_score, reference, score
from jtextdiff.inference.model import Model, load
from jtextdiff.metrics.units import units
from jtextdiff.pretrained.standalone import is_published, read_model

Rate = tuple[float, float]
"""Nats per token, word or character, and its standard error."""


def likelihood_scores(
    model: Model, real: dict[str, list[str]], nats: dict[str, list[float]], split: str
) -> dict[str, Score]:
    """Returns the model's likelihood of real text, whose `nats` are one number per text, in every unit."""
    per_token = {name: _rate(nats[name], model.num_tokens(texts)) for name, texts in real.items()}
    per_word = {name: _rate(nats[name], [len(units(text)) + 1 for text in texts]) for name, texts in real.items()}
    per_char = {name: _rate(nats[name], [len(text) + 1 for text in texts]) for name, texts in real.items()}
    in_units = {
        "nll": ("nats/token", per_token),
        "perplexity": ("per token", {name: _perplexity(rate) for name, rate in per_token.items()}),
        "word_perplexity": ("per word, end counted", {name: _perplexity(rate) for name, rate in per_word.items()}),
        "bits_per_char": ("bits/char, end counted", {name: _bits(rate) for name, rate in per_char.items()}),
    }
    n, kind = len(real[split]), model.method.bound
    return {
        name: score(rates[split][0], unit, rates[split][1], n, kind) | reference(rates[split][0], rates["train"][0])
        for name, (unit, rates) in in_units.items()
    }


def nll_in_order_score(model: Model, texts: dict[str, list[str]], split: str, seed: int) -> dict[str, Score]:
    """Returns the exact NLL of drawing real texts in the order of the sampler; empty if it has none."""
    if not model.has_order:
        return {}
    rates = {
        name: _rate(model.nll(rows, seed=seed, in_order=True), model.num_tokens(rows)) for name, rows in texts.items()
    }
    sampler = model.method.sampler
    kind = f"exact, of tokens in the order of {sampler.name} in {sampler.steps} steps, without top-p and corrections"
    rate, se = rates[split]
    return {"nll_in_order": score(rate, "nats/token", se, len(texts[split]), kind) | reference(rate, rates["train"][0])}


def nll_gap(model: Model, grammar: Grammar, texts: list[str], nats: list[float]) -> dict[str, Score]:
    """Returns the model's NLL minus the grammar's exact one, over those texts that the grammar can derive.

    Empty for fewer than two such texts.
    """
    log_probs = [grammar.log_prob(text.split()) for text in texts]
    derivable = [row for row, log_p in enumerate(log_probs) if log_p > -math.inf]
    if len(derivable) < 2:
        return {}
    gaps = [nats[row] + log_probs[row] for row in derivable]
    rate, se = _rate(gaps, model.num_tokens([texts[row] for row in derivable]))
    return {"excess_nll": score(rate, "nats/token", se, len(gaps), "over the grammar's own") | reference(0.0, None)}


def load_judge(run: str, model: Model, checkpoint: str, flag: str = "--judge") -> Model:
    """Loads the run, or the published checkpoint, that judges a model's texts in tokens of its own.

    Raises UserError if its likelihood is only a bound, or if it has another tokenizer with unknown words.
    """
    judge = Model(**read_model(run, how="copy it to a folder with the checkpoint")) if is_published(run) else load(run)
    if judge.method.bound != "exact":
        name = type(judge.method).__name__
        raise UserError(f"{flag} {run} is {name}, whose likelihood is: {judge.method.bound}. A judge must be exact.")
    if not judge.tokenizer.open_vocabulary and judge.tokenizer.fingerprint() != model.tokenizer.fingerprint():
        of_judge, of_model = (f"{run.config.text.tokenizer} of {run.tokenizer.vocab_size:,}" for run in (judge, model))
        remedy = "Train it with the same text.tokenizer, on the same text, or with byte_pairs:N on any."
        if judge.run is None:
            remedy = "Give a judge whose tokenizer knows all words, such as hub:gpt2."
        raise UserError(
            f"{flag} {run} has another tokenizer ({of_judge}) than {checkpoint} ({of_model}): all words that it lacks "
            f"would be one unknown word. {remedy}"
        )
    return judge


def check_judge(judge: Model, texts: Sequence[str]) -> None:
    """Raises UserError, before anything is sampled, if a real text has more tokens than the judge can read."""
    longest, allowed = max(judge.num_tokens(texts), default=0), judge.method.text_spec.length
    if longest > allowed:
        raise UserError(
            f"A real text has {longest:,} tokens of the judge {_name(judge)}, which reads {allowed:,} at most, the end "
            "included. Give another --judge."
        )


def judged_texts(judge: Model, texts: Sequence[str]) -> list[str]:
    """Returns the texts that the judge can read, and prints how many are too long for it.

    Raises UserError if fewer than two are left.
    """
    allowed = judge.method.text_spec.length
    kept = [text for text, num in zip(texts, judge.num_tokens(texts), strict=True) if num <= allowed]
    left_out = f"{len(texts) - len(kept)} of {len(texts)} texts are longer than the {allowed:,} tokens of the judge"
    if len(kept) < min(2, len(texts)):
        raise UserError(f"{left_out} {_name(judge)}. Give another --judge.")
    if len(kept) < len(texts):
        say(f"warning: {left_out} {_name(judge)}; its scores leave them out.")
    return kept


def _name(judge: Model) -> str:
    return str(judge.run or judge.config.init)


def judge_nll(judge: Model, texts: list[str]) -> Rate:
    """Returns the judge's nats per token, ends counted, and their standard error."""
    return _rate(judge.nll(texts), judge.num_tokens(texts))


def generative_perplexity(judge: Model, rates: dict[str, Rate], split: str, num: dict[str, int]) -> dict[str, Score]:
    """Returns exp of the judge's nats per token of samples, its ratio to that of real text, and the judge's own NLL.

    `rates` and `num`, the numbers of texts, have the keys samples, the split and train.
    """
    perplexity = {name: _exp(rate) for name, (rate, _) in rates.items()}
    ratio = {name: value / perplexity[split] for name, value in perplexity.items()}
    nll = {name: rate for name, (rate, _) in rates.items()}
    perplexity_se = perplexity["samples"] * rates["samples"][1]
    ratio_se = ratio["samples"] * math.hypot(rates["samples"][1], rates[split][1])
    name = judge.config.init if judge.run is None else f"{type(judge.method).__name__} at step {judge.step}"
    kind, n = f"under {name}, {judge.method.bound}", num["samples"]
    of_real_text = score(nll[split], "nats/token", rates[split][1], num[split], "the judge on real text")
    return {
        "generative_perplexity": compared_score(perplexity, split, "per token", n, kind, perplexity_se),
        "perplexity_ratio": compared_score(ratio, split, "to real text", n, kind, ratio_se),
        "judge_nll": of_real_text | reference(nll[split], nll["train"]),
    }


def _rate(totals: Sequence[float], sizes: Sequence[float]) -> Rate:
    """Sum over sum, and its standard error (delta method, texts being independent)."""
    total, size = np.asarray(totals), np.asarray(sizes, float)
    rate = total.sum() / size.sum()
    spread = np.sum((total - rate * size) ** 2) * len(size) / max(len(size) - 1, 1)
    return float(rate), float(np.sqrt(spread) / size.sum())


def _perplexity(rate: Rate) -> Rate:
    value, se = rate
    return _exp(value), se * _exp(value)


def _bits(rate: Rate) -> Rate:
    value, se = rate
    return value / math.log(2), se * (1 / math.log(2))


def _exp(rate: float) -> float:
    """e^rate, of at most e^700: an untrained model's rate may exceed any float."""
    return math.exp(min(rate, 700.0))
