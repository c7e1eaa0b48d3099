"""All scores of a model's samples.

A judge is not used to choose samples or settings: every sample of a fixed seed is scored as it is.
"""

import dataclasses
import hashlib
import os
import sys
from typing import Any

from rich.progress import Progress

from jtextdiff.cli.errors import UserError
from jtextdiff.cli.output import progress_bar, say
from jtextdiff.cli.tables import ScoreRow, format_value, output_width, score_table
from jtextdiff.control.resolve import resolve
from jtextdiff.data.corpus import Corpus
from jtextdiff.data.grammar.automaton import automaton_of
from jtextdiff.data.grammar.errors import ERRORS, error_of
from jtextdiff.data.grammar.pcfg import Grammar
from jtextdiff.evaluation.control_success import control_checker, control_scores
from jtextdiff.evaluation.diversity import copy_rate, diversity_scores, equal_numbers, mauve_score, token_ids
from jtextdiff.evaluation.label_judges import LabelJudge, label_judge, phrase_judge
from jtextdiff.evaluation.latent_space import latent_scores
from jtextdiff.evaluation.likelihood import (
    check_judge,
    generative_perplexity,
    judge_nll,
    judged_texts,
    likelihood_scores,
    nll_gap,
    nll_in_order_score,
)
from jtextdiff.evaluation.matched_entropy import TOLERANCE, check_temperature, matching_temperature, with_temperature
from jtextdiff.evaluation.score import Score, mean_score, real_texts, reference
from jtextdiff.inference.exact_masked import ExactMasked
from jtextdiff.inference.model import Model
from jtextdiff.inference.reranking import SamplingSpec, sample_and_rerank
from jtextdiff.methods.masked import Masked
from jtextdiff.methods.method import HasSteps, LatentVariableModel
from jtextdiff.metrics.ngrams import unigram_entropy
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
    match_entropy: bool = False  # score samples also at the temperature that gives them the entropy of real text
    exact_denoiser: bool = False  # score samples also with the grammar's predictions in place of the network's


def evaluate_samples(task: SampleTask) -> dict[str, Any]:
    """Scores samples with a progress bar, prints the tables, and returns the scores with their settings."""
    if task.match_entropy:
        check_temperature(task.model)
    if task.exact_denoiser:
        check_exact_denoiser(task)
    with progress_bar() as bar:
        metrics, calls, samples = score_samples(task, bar)
    result = report(task, metrics, calls, load=os.getloadavg()[0])
    say("\n".join(sample_table(result, output_width(sys.stderr))))
    if task.match_entropy:
        with progress_bar() as bar:
            matched = scores_at_real_entropy(task, samples, metrics["unigram_entropy"], bar)
        result["matched_entropy"] = matched
        say("\n".join(["", *matched_table(matched, task.split, output_width(sys.stderr))]))
    return result


def scores_at_real_entropy(task: SampleTask, own_samples: list[str], entropy: Score, bar: Progress) -> dict[str, Any]:
    """Returns a temperature at which samples have about the entropy of the split, and their scores there.

    `entropy` is that of the model's own samples, at its own temperature.
    """
    real = {name: real_texts(task.model, task.corpus, name, task.num) for name in (task.split, "train")}
    sampler: Any = task.model.method.sampler
    samples = {sampler.temperature: own_samples}

    def draw(temperature: float) -> float:
        progress = bar.add_task(f"sampling at temperature {temperature:.2f}", total=task.num * task.spec.num_candidates)
        model = with_temperature(task.model, temperature)
        samples[temperature], _ = sample_and_rerank(
            model, task.num, task.spec, seed=task.seed, progress=lambda num: bar.advance(progress, num)
        )
        texts = {"samples": samples[temperature], **real}
        rows = {name: token_ids(task.corpus, rows) for name, rows in texts.items()}
        return unigram_entropy(equal_numbers(rows)["samples"])

    temperature = matching_temperature(draw, entropy["real_valid"], sampler.temperature, entropy["value"])
    return {"temperature": temperature, "metrics": text_scores(task, samples[temperature], real)}


def score_samples(task: SampleTask, bar: Progress) -> tuple[dict[str, Score], float, list[str]]:
    """Returns the scores of `num` samples and of as many real texts of each kind, calls per sample, and the samples."""
    model, corpus, split = task.model, task.corpus, task.split
    controls = [request.control for request in task.spec.requests(task.num)]
    for control in set(controls):
        resolve(control, model)  # errors in the controls come before any measurement
    requested = [control for control in controls if control is not None]
    checker = control_checker(corpus, requested, lambda label: _judge_of_label(task, label))
    # Texts as the tokenizer decodes them, so that samples and real text are spelled in the same way.
    real = {name: real_texts(model, corpus, name, task.num) for name in (split, "train")}
    if task.judge is not None:
        check_judge(task.judge, [*real[split], *real["train"]])
    bar.add_task("likelihood", total=None)
    scores = _likelihood(task, real)
    progress = bar.add_task("sampling", total=task.num * task.spec.num_candidates)
    samples, calls = sample_and_rerank(
        model, task.num, task.spec, seed=task.seed, progress=lambda num: bar.advance(progress, num)
    )
    bar.add_task("scoring", total=None)
    scores |= text_scores(task, samples, real)
    if task.exact_denoiser:
        scores |= exact_denoiser_scores(task, bar)
    if isinstance(model.method, LatentVariableModel):
        scores |= latent_scores(model, real[split], task.seed)
    if requested:
        scores = control_scores(checker, controls, samples, split) | scores
    return scores, calls, samples


def text_scores(task: SampleTask, samples: list[str], real: dict[str, list[str]]) -> dict[str, Score]:
    """Returns the scores of the texts alone: likelihood under the judge, variety, copies, and those of the grammar."""
    corpus, split = task.corpus, task.split
    scores = judge_scores(task, task.judge, samples, real) if task.judge is not None else {}
    rows = {name: token_ids(corpus, texts) for name, texts in {"samples": samples, **real}.items()}
    scores |= diversity_scores(rows, split) | copy_rate(rows, split, corpus)
    return scores | (grammar_scores(corpus.grammar, samples) if corpus.grammar is not None else {})


def grammar_scores(grammar: Grammar, samples: list[str]) -> dict[str, Score]:
    """Returns the share of samples that a grammar generates, and of those whose first error is of each kind."""
    errors = [error_of(grammar, text.split()) for text in samples]
    members = mean_score([float(error is None) for error in errors], "share", "exact membership of the grammar")
    shares = {kind: [float(error == kind) for error in errors] for kind in ERRORS}
    return {"members": members | reference(1.0, 1.0)} | {
        f"{kind}_errors": mean_score(share, "share", "of samples, by the first error") | reference(0.0, 0.0)
        for kind, share in shares.items()
    }


def check_exact_denoiser(task: SampleTask) -> None:
    """Raises UserError for another text than the grammar, and for a method whose exact predictions are not known."""
    method = task.model.method
    if task.corpus.grammar is None or not isinstance(method, Masked) or method.self_conditioning:
        raise UserError(
            "--exact_denoiser takes the predictions of the embedded grammar in place of the network's. It is for "
            "masked diffusion without self-conditioning, trained on the grammar."
        )
    if any(request.control is not None for request in task.spec.requests(task.num)):
        raise UserError("--exact_denoiser follows no controls: leave out --control and --targets.")
    tokens = {task.model.tokenizer.decode([token]) for token in range(task.model.tokenizer.vocab_size)}
    if missing := [word for word in task.corpus.grammar.vocabulary if word not in tokens]:
        raise UserError(
            f"--exact_denoiser needs a tokenizer whose tokens are words; this one has no {missing[0]!r}, a word of the "
            "grammar."
        )


def exact_denoiser_scores(task: SampleTask, bar: Progress) -> dict[str, Score]:
    """Returns the share of members that the same sampler draws with the exact predictions of the grammar."""
    model, grammar = task.model, task.corpus.grammar
    assert isinstance(model.method, Masked) and grammar is not None
    progress = bar.add_task("sampling with exact predictions", total=task.num * task.spec.num_candidates)
    words = [model.tokenizer.decode([token]) for token in range(model.tokenizer.vocab_size)]
    settings = {name: getattr(model.method, name) for name in ("text_spec", "sampler", "schedule")}
    exact: Any = ExactMasked(words=tuple(words), automaton=automaton_of(grammar), **settings)
    samples, _ = sample_and_rerank(
        dataclasses.replace(model, method=exact),
        task.num,
        task.spec,
        seed=task.seed,
        progress=lambda num: bar.advance(progress, num),
    )
    return {"exact_denoiser_members": grammar_scores(grammar, samples)["members"]}


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
    texts = {"samples": judged_texts(judge, samples), **real}
    rates = {name: judge_nll(judge, rows) for name, rows in texts.items()}
    sizes = {name: len(rows) for name, rows in texts.items()}
    scored = set(real[task.split])
    candidates = real_texts(task.model, task.corpus, task.split, 2 * task.num)
    comparison = [text for text in candidates if text not in scored]
    comparison = judged_texts(judge, comparison)
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
    return _table(title, result["metrics"], result["split"], width)


def matched_table(matched: dict[str, Any], split: str, width: int) -> list[str]:
    """Returns the lines of a table of what `scores_at_real_entropy` has found."""
    entropy = matched["metrics"]["unigram_entropy"]
    title = f"At temperature {matched['temperature']:.3f}, where the entropy of samples is {entropy['value']:.2f} nats"
    if abs(entropy["value"] - entropy["real_valid"]) > TOLERANCE:
        title += f"; no temperature that was tried comes nearer to {split}'s {entropy['real_valid']:.2f}"
    return _table(title, matched["metrics"], split, width)


def _table(title: str, metrics: dict[str, Score], split: str, width: int) -> list[str]:
    rows = []
    for name, score in metrics.items():
        real = [format_value(score[field]) for field in ("real_valid", "real_train")]
        rows.append(ScoreRow(name, [format_value(score["value"], score["se"]), *real], score["unit"], score["kind"]))
    return score_table(title, ["value ± se", f"real {split}", "real train"], rows, width)


def changed_settings(sampler: Any) -> dict[str, Any]:
    """Returns the settings of a sampler that are not the default, without its name and its steps."""
    values = dataclasses.asdict(sampler)  # nested settings as dicts, too
    changed = [field.name for field in dataclasses.fields(sampler) if getattr(sampler, field.name) != field.default]
    return {name: values[name] for name in changed if name not in ("name", "steps")}


def compute_dtype(method: Any) -> str:
    """Returns the type in which a method's dense layers compute; parameters and sums are float32 in any case."""
    return "bfloat16" if _computes_in_bfloat16(method) else "float32"


def _computes_in_bfloat16(part: Any) -> bool:
    """Returns whether the field `bfloat16` is set anywhere in nested dataclasses."""
    values = [(field.name, getattr(part, field.name)) for field in dataclasses.fields(part)]
    return any(
        bool(value) if name == "bfloat16" else dataclasses.is_dataclass(value) and _computes_in_bfloat16(value)
        for name, value in values
    )
