"""Scores: what samples and likelihoods are worth, each number beside the same number of real text.

The judge never chooses anything: it reads samples drawn with a fixed seed, all of them, as they came.
"""

import dataclasses
import hashlib
from typing import Any

from rich.progress import Progress
from rich.table import Table

from jtextdiff.control.resolve import asked
from jtextdiff.data.corpus import Corpus
from jtextdiff.data.grammar.restaurants import grammar
from jtextdiff.evaluation.control_success import Rules, followed
from jtextdiff.evaluation.diversity import apart, copied, rows_of, variety
from jtextdiff.evaluation.label_judges import verdict
from jtextdiff.evaluation.latent_space import latent_scores
from jtextdiff.evaluation.likelihood import excess, generative, judged, likelihoods
from jtextdiff.evaluation.score import Score, beside, evenly, mean
from jtextdiff.inference.model import Model
from jtextdiff.inference.reranking import Choice, chosen
from jtextdiff.methods.method import Latent
from jtextdiff.run.config import to_json

PLAIN = Choice()


def score(
    model: Model,
    corpus: Corpus,
    *,
    judge: Model | None,
    split: str,
    num: int,
    seed: int,
    bar: Progress,
    wish: Choice = PLAIN,
    judge_text: str | None = None,
) -> tuple[dict[str, Score], float]:
    """All scores of a model, on `num` samples and `num` sentences of each kind of real text; and calls a sample.

    Success is told by n-grams of a `judge_text` if there is one.
    """
    controls = [each.control for each in wish.of(num)]
    for control in {control for control in controls if control is not None}:
        asked(control, model.steered)  # what cannot be asked for is told before anything is measured
    by_text = (lambda label: verdict(corpus, label, judge_text, model, split)) if judge_text else None
    rules = Rules(corpus, [control for control in controls if control], by_text) if any(controls) else None
    # Texts as the tokenizer writes them, so that samples and real text are spelled alike.
    real = {name: evenly(model, corpus, name, num) for name in (split, "train")}
    bar.add_task("likelihood", total=None)
    nats = {name: model.nll(texts, seed=seed) for name, texts in real.items()}
    metrics = likelihoods(model, real, nats, split)
    if corpus.is_grammar:
        metrics |= excess(model, real[split], nats[split])
    verdicts = {} if judge is None else {name: judged(judge, texts) for name, texts in real.items()}
    task = bar.add_task("sampling", total=num * wish.many)
    samples, calls = chosen(model, num, wish, seed=seed, progress=lambda done: bar.advance(task, done))
    if judge is not None:
        bar.add_task("judging", total=None)
        others = evenly(model, corpus, split, 2 * num)
        metrics |= by_judge(judge, samples, real, verdicts, others, split)
    rows = {name: rows_of(corpus, texts) for name, texts in {"samples": samples, **real}.items()}
    metrics |= variety(rows, split)
    metrics |= copied(rows, split, corpus)
    if corpus.is_grammar:
        members = [float(text.split() in grammar()) for text in samples]
        metrics["members"] = mean(members, "share", "exact membership of the grammar") | beside(1.0, 1.0)
    if isinstance(model.method, Latent):
        metrics |= latent_scores(model, real[split], seed)
    if rules is not None:
        metrics = followed(rules, controls, samples, split) | metrics
    return metrics, calls


def by_judge(
    judge: Model,
    samples: list[str],
    real: dict[str, list[str]],
    rates: dict[str, tuple[float, float]],
    others: list[str],
    split: str,
) -> dict[str, Score]:
    """What a judge, whose `rates` of real texts are known, makes of samples: how likely they are, and how near to those
    of the `others` that are none of the real ones beside them."""
    sizes = {"samples": len(samples)} | {name: len(texts) for name, texts in real.items()}
    known = set(real[split])
    found = generative(judge, {"samples": judged(judge, samples), **rates}, split, sizes)
    return found | apart(judge, {"samples": samples, **real}, [text for text in others if text not in known], split)


def report(
    model: Model,
    metrics: dict[str, Score],
    calls: float,
    *,
    judge: str | None,
    split: str,
    num: int,
    seed: int,
    load: float,
    wish: Choice = PLAIN,
) -> Score:
    """The scores with all that is needed to find them again."""
    sampler = model.method.sampler
    return {
        "method": type(model.method).__name__,
        "step": model.step,
        "text": model.config.text.path or "the grammar",
        "tokenizer": model.config.text.tokenizer,
        "judge": judge,
        "split": split,
        "seed": seed,
        "num_samples": num,
        "sampler": sampler.name,
        "steps": sampler.steps if getattr(sampler, "stepped", hasattr(sampler, "steps")) else None,
        "settings": _changed(sampler),
        "control": None if wish.control is None else str(wish.control),
        "targets": wish.spelling,
        "chosen": str(wish),
        "nfe": calls,
        "dtype": "float32",
        "config_hash": hashlib.sha256(to_json(model.config).encode()).hexdigest()[:16],
        "load": load,
        "metrics": metrics,
    }


def table(result: Score) -> Table:
    """The scores for a reader."""
    head = (
        f"{result['method']} at step {result['step']}: {result['num_samples']} samples, {result['nfe']:.4g} calls each"
    )
    table = Table(title=f"{head} ({result['sampler']}), seed {result['seed']}, split {result['split']}")
    for name in ("score", "value", "± se", f"real {result['split']}", "real train", "unit", "how"):
        table.add_column(name, overflow="fold")
    for name, row in result["metrics"].items():
        cells = (_shown(row[column]) for column in ("value", "se", "real_valid", "real_train"))
        table.add_row(name, *cells, row["unit"], row["kind"])
    return table


def _changed(sampler: Any) -> dict[str, Any]:
    """The settings of a sampler that are not its default, but for its name and steps."""
    fields = [field for field in dataclasses.fields(sampler) if field.name not in ("name", "steps")]
    return {f.name: _plain(value) for f in fields if (value := getattr(sampler, f.name)) != f.default}


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
