"""All scores of a model's samples.

A judge is not used to choose samples or settings: every sample of a fixed seed is scored as it is.
"""

import dataclasses
import hashlib
import os
import sys
from typing import Any

from rich.progress import Progress

from jtextdiff.cli.output import progress_bar, say
from jtextdiff.control.resolve import resolve
from jtextdiff.data.corpus import Corpus
from jtextdiff.data.grammar.errors import ERRORS, error_of
from jtextdiff.data.grammar.pcfg import Grammar
from jtextdiff.evaluation.control_success import control_checker, control_scores
from jtextdiff.evaluation.diversity import copy_rate, diversity_scores, mauve_score, token_ids
from jtextdiff.evaluation.label_judges import LabelJudge, label_judge, phrase_judge
from jtextdiff.evaluation.latent_space import latent_scores
from jtextdiff.evaluation.likelihood import (
    generative_perplexity,
    judge_nll,
    likelihood_scores,
    nll_gap,
    nll_in_order_score,
)
from jtextdiff.evaluation.score import Score, mean_score, real_texts, reference
from jtextdiff.evaluation.tables import ScoreRow, format_value, output_width, score_table
from jtextdiff.inference.model import Model
from jtextdiff.inference.reranking import SamplingSpec, sample_and_rerank
from jtextdiff.methods.method import HasSteps, LatentVariableModel
from jtextdiff.run.config import to_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleTask:
    """A model, the text with which its samples are compared, the sampling, and the judges."""

    model: Model
    corpus: Corpus
    spec: SamplingSpec = SamplingSpec()
    num: int = 512  # samples, and at most this many real texts of each kind
    split: str = "valid"
    seed: int = 0
    judge: Model | None = None
    judge_run: str | None = None  # where the judge was loaded from
    judge_text: str | None = None  # labelled text whose n-grams judge the controls


def evaluate_samples(task: SampleTask) -> dict[str, Any]:
    """Scores samples with a progress bar, prints the table, and returns the scores with their settings."""
    with progress_bar() as bar:
        metrics, calls = score_samples(task, bar)
    result = report(task, metrics, calls, load=os.getloadavg()[0])
    say("\n".join(sample_table(result, output_width(sys.stderr))))
    return result


def score_samples(task: SampleTask, bar: Progress) -> tuple[dict[str, Score], float]:
    """Returns the scores of `num` samples and of as many real texts of each kind; and network calls per sample."""
    model, corpus, split = task.model, task.corpus, task.split
    controls = [request.control for request in task.spec.requests(task.num)]
    for control in set(controls):
        resolve(control, model)  # errors in the controls come before any measurement
    requested = [control for control in controls if control is not None]
    checker = control_checker(corpus, requested, lambda label: _judge_of_label(task, label))
    # Texts as the tokenizer decodes them, so that samples and real text are spelled in the same way.
    real = {name: real_texts(model, corpus, name, task.num) for name in (split, "train")}
    bar.add_task("likelihood", total=None)
    scores = _likelihood(task, real)
    progress = bar.add_task("sampling", total=task.num * task.spec.num_candidates)
    samples, calls = sample_and_rerank(
        model, task.num, task.spec, seed=task.seed, progress=lambda num: bar.advance(progress, num)
    )
    if task.judge is not None:
        bar.add_task("judging", total=None)
        scores |= judge_scores(task, task.judge, samples, real)
    rows = {name: token_ids(corpus, texts) for name, texts in {"samples": samples, **real}.items()}
    scores |= diversity_scores(rows, split) | copy_rate(rows, split, corpus)
    if corpus.grammar is not None:
        scores |= grammar_scores(corpus.grammar, samples)
    if isinstance(model.method, LatentVariableModel):
        scores |= latent_scores(model, real[split], task.seed)
    if requested:
        scores = control_scores(checker, controls, samples, split) | scores
    return scores, calls


def grammar_scores(grammar: Grammar, samples: list[str]) -> dict[str, Score]:
    """Returns the share of samples that a grammar generates, and of those whose first error is of each kind."""
    errors = [error_of(grammar, text.split()) for text in samples]
    members = mean_score([float(error is None) for error in errors], "share", "exact membership of the grammar")
    shares = {kind: [float(error == kind) for error in errors] for kind in ERRORS}
    return {"members": members | reference(1.0, 1.0)} | {
        f"{kind}_errors": mean_score(share, "share", "of samples, by the first error") | reference(0.0, 0.0)
        for kind, share in shares.items()
    }


def _judge_of_label(task: SampleTask, label: str) -> LabelJudge:
    """The judge of a control's label: n-grams of `judge_text` if there is one, else the grammar and phrases."""
    if task.judge_text is None:
        return phrase_judge(task.corpus, label, task.split)
    return label_judge(task.corpus, label, task.judge_text, task.model, task.split)


def _likelihood(task: SampleTask, real: dict[str, list[str]]) -> dict[str, Score]:
    nats = {name: task.model.nll(texts, seed=task.seed) for name, texts in real.items()}
    scores = likelihood_scores(task.model, real, nats, task.split)
    scores |= nll_in_order_score(task.model, real, task.split, task.seed)
    if task.corpus.grammar is not None:
        scores |= nll_gap(task.model, task.corpus.grammar, real[task.split], nats[task.split])
    return scores


def judge_scores(task: SampleTask, judge: Model, samples: list[str], real: dict[str, list[str]]) -> dict[str, Score]:
    """Returns generative perplexity and MAUVE of samples; MAUVE compares with real texts that are not in `real`."""
    texts = {"samples": samples, **real}
    rates = {name: judge_nll(judge, rows) for name, rows in texts.items()}
    sizes = {name: len(rows) for name, rows in texts.items()}
    scored = set(real[task.split])
    candidates = real_texts(task.model, task.corpus, task.split, 2 * task.num)
    comparison = [text for text in candidates if text not in scored]
    return generative_perplexity(judge, rates, task.split, sizes) | mauve_score(judge, texts, comparison, task.split)


def report(task: SampleTask, metrics: dict[str, Score], calls: float, *, load: float) -> dict[str, Any]:
    """Returns the scores with all that is needed to obtain them again."""
    model, spec = task.model, task.spec
    sampler: Any = model.method.sampler
    return {
        "method": type(model.method).__name__,
        "step": model.step,
        "text": model.config.text.path or "the grammar",
        "tokenizer": model.config.text.tokenizer,
        "judge": task.judge_run,
        "split": task.split,
        "seed": task.seed,
        "num_samples": task.num,
        "sampler": sampler.name,
        "steps": sampler.steps if isinstance(sampler, HasSteps) and sampler.uses_steps else None,
        "settings": changed_settings(sampler),
        "control": None if spec.control is None else str(spec.control),
        "targets": spec.targets_source,
        "chosen": str(spec),
        "nfe": calls,
        "dtype": compute_dtype(model.method),
        "config_hash": hashlib.sha256(to_json(model.config).encode()).hexdigest()[:16],
        "load": load,
        "metrics": metrics,
    }


def sample_table(result: dict[str, Any], width: int) -> list[str]:
    """Returns the lines of a table of the scores."""
    title = (
        f"{result['method']} at step {result['step']}: {result['num_samples']} samples, "
        f"{format_value(result['nfe'])} calls each ({result['sampler']}), seed {result['seed']}, "
        f"split {result['split']}"
    )
    rows = []
    for name, score in result["metrics"].items():
        real = [format_value(score[field]) for field in ("real_valid", "real_train")]
        rows.append(ScoreRow(name, [format_value(score["value"], score["se"]), *real], score["unit"], score["kind"]))
    return score_table(title, ["value ± se", f"real {result['split']}", "real train"], rows, width)


def changed_settings(sampler: Any) -> dict[str, Any]:
    """Returns the settings of a sampler that are not the default, without its name and its steps."""
    values = dataclasses.asdict(sampler)  # nested settings as dicts, too
    changed = [field.name for field in dataclasses.fields(sampler) if getattr(sampler, field.name) != field.default]
    return {name: values[name] for name in changed if name not in ("name", "steps")}


def compute_dtype(method: Any) -> str:
    """Returns the type in which a method's dense layers compute; parameters and sums are float32 in any case."""
    return "bfloat16" if _computes_in_bfloat16(method) else "float32"


def _computes_in_bfloat16(part: Any) -> bool:
    """Whether the field `bfloat16` is set anywhere in nested dataclasses."""
    values = [(field.name, getattr(part, field.name)) for field in dataclasses.fields(part)]
    return any(
        bool(value) if name == "bfloat16" else dataclasses.is_dataclass(value) and _computes_in_bfloat16(value)
        for name, value in values
    )
