"""Fits a control or a field at once, from few labelled texts.

No other label is used. Accuracy and calibration are measured on the valid split.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.sparse import csr_matrix

from jtextdiff.cli.errors import UserError, mistakes
from jtextdiff.cli.output import progress_bar, say, write_atomically
from jtextdiff.control.trained import FIELDS, TRIGRAMS, fitted_dir
from jtextdiff.data.batches import Batch
from jtextdiff.data.cache import evenly_spaced
from jtextdiff.data.corpus import Corpus
from jtextdiff.devices.sharding import mesh_of, num_shards
from jtextdiff.inference.batched import LengthBucket, jitted, map_batches
from jtextdiff.inference.model import Model, load
from jtextdiff.inference.references import EXPECTED, read_references
from jtextdiff.methods.components.cross_validation import log_p_of_words
from jtextdiff.methods.components.latents import PRIOR, LabelledLatents, collapse_warnings
from jtextdiff.methods.latent_classifier import LatentClassifier
from jtextdiff.methods.method import Fitted, LatentVariableModel
from jtextdiff.metrics import ngram_classifier, trigram_classifier
from jtextdiff.metrics.calibration import balanced_weights, calibration_error
from jtextdiff.metrics.co_training import co_train, mean_log_odds
from jtextdiff.metrics.ngram_classifier import token_occurrences
from jtextdiff.metrics.trigram_classifier import TrigramClassifier, log_likelihoods
from jtextdiff.nets.functional import Params
from jtextdiff.run import checkpoints
from jtextdiff.run.config import Config, build
from jtextdiff.run.corpus import open_corpus
from jtextdiff.run.workdir import store_config
from jtextdiff.training.control_setup import FEW_TEXTS, control_flag, labelled_corpus, labelled_rows
from jtextdiff.training.setup import complete_config

MAX_LABELLED = 200_000
"""Labelled texts from which words and trigrams are learned in co-training, at most."""

MAX_VALID_TEXTS = 5_000
"""Texts of the valid split, at most, on which accuracy is measured."""


def fit_control(config: Config, workdir: Path) -> None:
    """Fits a control or a field of a latent base and stores it in `workdir` as a run of one step.

    Does nothing if there is one. Raises UserError if the stored one has another config, and for too few labels to
    learn from.
    """
    exists = checkpoints.has_checkpoints(workdir)
    whole = open_corpus(config, workdir)
    corpus = labelled_corpus(whole, config)
    config = complete_config(config, corpus, workdir)
    store_config(workdir, config, corpus.digests(config.label) | _references_digest(config), resumed=exists)
    if exists:
        say(f"{workdir} is there already. To fit it anew, remove it.")
        return
    method, base = build(config.method), load(config.base)
    corpus.tokenizer.save(workdir / "tokenizer")
    fit_key, sample_key = jax.random.split(jax.random.key(config.seed))
    sample_keys = [jax.random.fold_in(sample_key, i) for i in range(method.samples)]
    if config.get("references"):
        train = encode_references(base, corpus, config.references, method, sample_keys)
    else:
        train = encode_labelled(base, corpus, "train", method.label, method.max_texts, sample_keys)
    valid = encode_labelled(base, corpus, "valid", method.label, MAX_VALID_TEXTS)
    check_label_counts(train, method)
    kind = "labelled texts" if train.source_samples is None else "edits"
    say(f"{method.label}: {len(train.value):,} {kind}, {', '.join(method.values)} -> {workdir}")
    if train.mean.size:
        for warning in collapse_warnings({"kl": float(train.kl.mean())}):
            say(warning)
    with mistakes(ValueError):
        params, metrics = method.fit_latents(fit_key, dict(base.params), train)
    if isinstance(method, LatentClassifier):
        metrics["text_accuracy"] = ngram_accuracy(corpus, method)
        if method.learns_words:
            params, classifier = learn_from_all_texts(base, whole, config, method, params)
            trigram_classifier.save(classifier, workdir / TRIGRAMS)
            metrics |= report_reading(base, corpus, params, classifier, valid)
    metrics |= method.report({**params, "base": base.params}, valid)
    with checkpoints.open_checkpoints(workdir) as manager:
        checkpoints.save(manager, 1, params, {"step": jnp.ones((), jnp.int32)}, metrics["loss"])
    write_atomically(workdir / "metrics.jsonl", json.dumps({"step": 1, **metrics}) + "\n")
    print_summary(config, workdir, method.describe(metrics, len(valid.value)))


def print_summary(config: Config, workdir: Path, lines: list[str]) -> None:
    """Prints how well the fit describes latents, and how to use it."""
    say("\n".join(lines))
    if workdir.resolve() == fitted_dir(config).resolve():
        use = " --learned" if workdir.parent.name == FIELDS else ""
        say(f"Done. Edit with: python -m jtextdiff.edit --checkpoint {config.base} {control_flag(workdir.name)}{use}")
    else:
        say(f"Done. To use it, move it to {fitted_dir(config)}.")


def check_label_counts(texts: LabelledLatents, method: Fitted) -> None:
    """Raises UserError for a value with fewer than 2 texts: some are left out of the fit. No edit aims at "none"."""
    counts = dict(zip(method.values, np.bincount(texts.value, minlength=len(method.values)), strict=True))
    if texts.source_samples is not None:
        counts.pop("none", None)
    kind = "texts of each value" if texts.source_samples is None else "edits towards each value"
    if rare := [f"{value} ({num})" for value, num in counts.items() if num < 2]:
        raise UserError(f"{method.label}: at least 2 {kind} are needed to learn from; got {', '.join(rare)}.")


def _references_digest(config: Config) -> dict[str, str]:
    """Returns the digest of the file of references, if a field is fitted to them.

    Raises UserError if it is given to another coupling, is missing, or comes with a number of labelled texts.
    """
    file, paired = config.get("references"), config.method.get("coupling") == "paired"
    if paired != bool(file):
        raise UserError(
            "--config.method.coupling=paired and --config.references=FILE go together: FILE has the pairs, JSON lines "
            f"such as {EXPECTED}."
        )
    if not file:
        return {}
    if config.num_labelled is not None:
        raise UserError("--config.num_labelled does not apply to --config.references, all of which are used.")
    try:
        return {"references": hashlib.sha256(Path(file).read_bytes()).hexdigest()}
    except OSError as error:
        raise UserError(f"--config.references={file} cannot be read: {error.strerror}.") from None


def encode_references(
    base: Model, corpus: Corpus, file: str, method: Fitted, sample_keys: Sequence[Any]
) -> LabelledLatents:
    """Returns the latents of the edits in a file of references, with those of the texts of which they are edits."""
    rows = read_references(file, "--config.references", base, corpus, method.label, to_fit=True)
    values = np.asarray([method.values.index(row.wanted) for row in rows])
    batch = base.batch([row.reference for row in rows] + [row.text for row in rows])
    samples, mean, kl = encode(base, batch, sample_keys)
    edits = slice(len(rows))
    return LabelledLatents(samples[edits], mean[edits], kl[edits], values, samples[len(rows) :])


def encode_labelled(
    base: Model, corpus: Corpus, split_name: str, label: str, max_texts: int, sample_keys: Sequence[Any] = ()
) -> LabelledLatents:
    """Returns the latents of at most `max_texts` evenly spaced texts of a split, and their values of a label.

    Each of `sample_keys` draws one sample of q(z | text) for every text.
    """
    split = corpus.splits[split_name]
    rows = split.evenly_spaced(max_texts)
    batch, values = base.batch(split.texts(rows)), np.asarray(split.labels[label][rows])
    return LabelledLatents(*encode(base, batch, sample_keys), values, occurrences=occurrences_of(base, batch))


def occurrences_of(base: Model, batch: Batch) -> csr_matrix:
    """Returns which known words occur in each text, 1 or 0, [texts, vocabulary]."""
    text_spec = base.method.text_spec
    counted = batch.valid & (batch.tokens != text_spec.eos) & (batch.tokens != text_spec.unk)
    return token_occurrences(batch.tokens, counted, text_spec.vocab_size)


def learn_from_all_texts(
    base: Model, corpus: Corpus, config: Config, method: LatentClassifier, params: Params
) -> tuple[Params, TrigramClassifier]:
    """Returns a control's parameters and its trigrams, learned from texts without a label, too.

    Their values are predicted by co-training from the control's latents and words. Of `corpus`, with all training
    texts, at most `method.max_unlabelled` are read of those whose label is not used; none if a value has few labelled
    texts, of which co-training would make confident errors.
    """
    train, labelled = corpus.splits["train"], labelled_rows(corpus, config)
    values, others = np.asarray(train.labels[method.label]), np.setdiff1d(np.arange(len(train)), labelled)
    few = np.bincount(values[labelled], minlength=len(method.values)).min() < FEW_TEXTS
    unlabelled = evenly_spaced(others, 0 if few else int(method.max_unlabelled))
    rows = np.concatenate([evenly_spaced(labelled, MAX_LABELLED), unlabelled])
    value = np.where(np.isin(rows, labelled), values[rows], -1)
    batch, vocab_size = base.batch(train.texts(rows)), base.method.text_spec.vocab_size
    tokens, valid = np.asarray(batch.tokens), np.asarray(batch.valid)
    if not len(unlabelled):
        views = [np.zeros((len(rows), len(method.values)))]
        return params, co_train(views, value, tokens, valid, vocab_size)[1]
    say(f"{method.label}: reads {len(unlabelled):,} further texts, without their label, to learn what words say of it.")
    with progress_bar() as bar:
        task = bar.add_task("texts", total=len(rows))
        _, mean, kl = encode(base, batch, [], lambda num_done: bar.advance(task, num_done))
    encoded = LabelledLatents(mean[:, None], mean, kl, value, occurrences=occurrences_of(base, batch))
    views = _views(method, params, encoded)
    p, classifier = co_train(views, value, tokens, valid, vocab_size)
    params = {**params, "words": method.fit_words(dict(base.params), encoded, p)}
    return params, classifier


def _views(method: LatentClassifier, params: Params, texts: LabelledLatents) -> list[Float[np.ndarray, "n c"]]:
    """log p of every value by the latents of texts, and by their words."""
    assert texts.occurrences is not None
    by_latent = jax.jit(method.log_p_of_latent)(params, texts.mean)
    return [np.asarray(by_latent), log_p_of_words(params["words"], texts.occurrences)]


def report_reading(
    base: Model, corpus: Corpus, params: Params, classifier: TrigramClassifier, texts: LabelledLatents
) -> dict[str, float]:
    """Returns accuracy and calibration error on valid of words and trigrams together; all values weigh the same."""
    split = corpus.splits["valid"]
    batch = base.batch(split.texts(split.evenly_spaced(MAX_VALID_TEXTS)))
    by_trigrams = classifier.log_p(
        log_likelihoods(classifier.of_values, np.asarray(batch.tokens), np.asarray(batch.valid))
    )
    assert texts.occurrences is not None
    log_p = mean_log_odds([log_p_of_words(params["words"], texts.occurrences), by_trigrams])
    weights, correct = balanced_weights(texts.value), log_p.argmax(-1) == texts.value
    error = calibration_error(np.exp(log_p.max(-1)), correct, weights)
    return {"reading_accuracy": float(np.average(correct, weights=weights)), "reading_calibration_error": error}


def encode(
    base: Model,
    batch: Batch,
    sample_keys: Sequence[Any],
    progress: Callable[[int], None] = lambda num_done: None,
) -> tuple[Array, Array, Array]:
    """Returns samples of q(z | text) by each key, its mean, both whitened, and its KL from N(0, I) in nats.

    Of a base without latents they are empty. `progress` receives the number of texts in each finished batch.
    """
    if not isinstance(base.method, LatentVariableModel):
        nothing = jnp.zeros((len(batch.tokens), 0))
        return nothing[:, None], nothing, nothing.sum(-1)
    num, mesh = len(batch.tokens), mesh_of(base.params)
    latent_samples, latent_dim = jitted(base.method, "latent_samples", mesh), base.params[PRIOR]["shift"].size
    noise = np.zeros((num, len(sample_keys), latent_dim), np.float32)
    for i, key in enumerate(sample_keys):
        noise[:, i] = jax.random.normal(key, (num, latent_dim))

    def latents(bucket: LengthBucket, inputs: tuple[Any, Any]) -> Any:
        return latent_samples(base.params, *inputs, noise[bucket.rows])

    samples, mean, kl = map_batches(
        latents,
        (batch.tokens, batch.valid),
        np.asarray(batch.valid).sum(-1),
        longest=base.method.text_spec.length,
        shards=num_shards(mesh),
        progress=progress,
    )
    return jnp.asarray(samples), jnp.asarray(mean), jnp.asarray(kl)


def ngram_accuracy(corpus: Corpus, method: Fitted) -> float:
    """Returns the accuracy on valid of an n-gram classifier of the same labelled texts; all values weigh the same."""
    train, valid = corpus.splits["train"], corpus.splits["valid"]
    fitted_on, tested_on = train.evenly_spaced(method.max_texts), valid.evenly_spaced(MAX_VALID_TEXTS)
    labels = train.labels[method.label][fitted_on]
    classifier = ngram_classifier.fit(train.texts(fitted_on), labels, len(method.values))
    values = np.asarray(valid.labels[method.label][tested_on])
    correct = classifier.values(valid.texts(tested_on)) == values
    return float(np.average(correct, weights=balanced_weights(values)))
