"""A trained model as the LM Evaluation Harness calls it: likelihoods of continuations, and texts that go on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jtextdiff.cli.errors import UserError
from jtextdiff.cli.output import say
from jtextdiff.data.batches import Batch
from jtextdiff.devices.sharding import mesh_of
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.inference.batched import LengthBucket, jitted, map_batches
from jtextdiff.inference.model import Model
from jtextdiff.inference.prompts import batch_of, note_on_unknown, unknown_words
from jtextdiff.inference.sample_batches import run_batched
from jtextdiff.methods.components.types import Given
from jtextdiff.methods.method import HasContinuationLikelihood, Method

NUM_ESTIMATES = 4
"""Of a bound, for its standard error."""


def check_method(method: Method) -> None:
    """Raises UserError for a method without a likelihood of continuations."""
    if not isinstance(method, HasContinuationLikelihood):
        name = type(method).__name__
        raise UserError(f"{name} has no likelihood of a continuation: the harness scores Autoregressive and Masked.")


def evaluate_tasks(
    model: Model,
    names: Sequence[str],
    *,
    seed: int = 0,
    include_path: str | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
) -> tuple[str, dict[str, Any]]:
    """Returns the harness's table, and its results with the mean standard error of the likelihoods.

    `include_path` is a folder with YAML files of further tasks. Raises UserError for a task that there is not.
    """
    from lm_eval import simple_evaluate  # pyright: ignore[reportMissingImports]
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]
    from lm_eval.utils import make_table  # pyright: ignore[reportMissingImports]

    if include_path is not None and not Path(include_path).is_dir():
        raise UserError(f"--include_path: there is no folder {include_path}.")
    tasks, adapter = TaskManager(include_path=include_path), harness_model(model, seed)
    if unknown := [name for name in names if not tasks.match_tasks([name])]:
        raise UserError(f"The harness has no task {', '.join(unknown)}. Give --include_path for a task of your own.")
    results = simple_evaluate(
        adapter, tasks=list(names), num_fewshot=num_fewshot, limit=limit, task_manager=tasks, log_samples=False
    )
    assert results is not None  # it is None in other processes than the first
    scores = {name: results[name] for name in ("results", "versions", "n-samples")}
    errors = adapter.standard_errors
    mean_error = sum(errors) / len(errors) if errors else 0.0
    return make_table(results), scores | {
        "step": model.step,
        "likelihood": model.method.bound,
        "mean_standard_error": mean_error,
        "seed": seed,
    }


def harness_model(model: Model, seed: int) -> Any:
    """Returns a model as the harness calls it."""
    from lm_eval.api.model import LM  # pyright: ignore[reportMissingImports]

    class HarnessModel(LM):
        """Answers requests of the harness. `standard_errors` are those of the likelihoods so far, nats."""

        def __init__(self) -> None:
            super().__init__()
            self.standard_errors: list[float] = []

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            return [(-nats, False) for nats in self._nll([request.args for request in requests])]

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            return [-nats for nats in self._nll([("", request.args[0]) for request in requests])]

        def generate_until(self, requests: list[Any]) -> list[str]:
            contexts, settings = zip(*(request.args for request in requests), strict=True)
            stops = [setting.get("until") or [] for setting in settings]
            stops = [[stop] if isinstance(stop, str) else stop for stop in stops]
            return continue_texts(model, contexts, stops, seed=seed)

        def _nll(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
            nats, errors = continuation_nll(model, pairs, seed=seed)
            self.standard_errors += errors
            return nats

    return HarnessModel()


def continuation_nll(
    model: Model, pairs: Sequence[tuple[str, str]], *, seed: int = 0
) -> tuple[list[float], list[float]]:
    """Returns −log p(continuation | context) of each pair, nats, and its standard error, 0 if it is exact.

    The continuation is what (context + continuation) has more tokens than the context, without the end. A bound is the
    mean of several estimates. Of a pair that is longer than the model's texts, the beginning is left out.
    """
    check_method(model.method)
    batch, scored = _batch(model, pairs)
    function, longest = jitted(model.method, "continuation_nll", mesh_of(model.params)), model.method.text_spec.length
    exact, lengths = model.method.bound == "exact", np.full(len(pairs), longest)

    def nll_of(bucket: LengthBucket, rows: tuple[Batch, Any]) -> Any:
        keys = [jax.random.fold_in(jax.random.key(seed), i) for i in range(1 if exact else NUM_ESTIMATES)]
        keys = [jax.random.fold_in(key, bucket.number) for key in keys]
        return jnp.stack([function(model.params, key, *rows) for key in keys], axis=-1)

    estimates = np.asarray(map_batches(nll_of, (batch, scored), lengths, longest=longest))
    errors = np.zeros(len(pairs)) if exact else estimates.std(axis=-1, ddof=1) / NUM_ESTIMATES**0.5
    return estimates.mean(axis=-1).tolist(), errors.tolist()


def continue_texts(
    model: Model, contexts: Sequence[str], stops: Sequence[Sequence[str]], *, seed: int = 0
) -> list[str]:
    """Returns a continuation of each context, drawn by the model's sampler, up to the first of its `stops`."""
    spec, num = model.method.text_spec, len(contexts)
    tokens, fixed = np.full((num, spec.length), spec.pad, np.int32), np.zeros((num, spec.length), bool)
    rows = [row[-(spec.length - 2) :] for row in model.tokenizer.encode(list(contexts))]
    for i, row in enumerate(rows):
        tokens[i, : len(row)], fixed[i, : len(row)] = row, True
    # A method that draws lengths draws one with room for at least one more token.
    least = 0 if model.method.prefix_only else np.asarray([-(len(row) + 2) for row in rows], np.int32)
    given = Given(jnp.asarray(tokens), jnp.asarray(fixed), jnp.broadcast_to(jnp.asarray(least, jnp.int32), (num,)))
    keys = keys_for(jax.random.key(seed), jnp.arange(num))
    output = run_batched(model.method, "sample", model.params, keys, given, [None])
    texts = [model.tokenizer.decode(out[len(row) :]) for out, row in zip(output.tokens, rows, strict=True)]
    return [_until(text, ends) for text, ends in zip(texts, stops, strict=True)]


def _batch(model: Model, pairs: Sequence[tuple[str, str]]) -> tuple[Batch, Any]:
    """Returns the pairs as texts, and which of their tokens are the continuations."""
    texts, room = [context + continuation for context, continuation in pairs], model.method.text_spec.length - 1
    rows = model.tokenizer.encode(texts)
    num_given = [len(row) for row in model.tokenizer.encode([context for context, _ in pairs])]
    if too_long := sum(len(row) > room for row in rows):
        say(f"warning: {too_long} of {len(rows)} texts are longer than {room} tokens: their beginning is left out.")
    batch = batch_of([row[-room:] for row in rows], model.method.text_spec)
    scored = np.zeros_like(batch.valid)
    for i, (row, given) in enumerate(zip(rows, num_given, strict=True)):
        kept = min(len(row), room)
        scored[i, max(given - len(row) + kept, 0) : kept] = True
    if note := note_on_unknown(unknown_words(texts, batch, model.tokenizer)):
        say(f"warning: {note} Each is scored as one unknown word.")
    return batch, scored


def _until(text: str, stops: Sequence[str]) -> str:
    ends = [text.find(stop) for stop in stops if stop and stop in text]
    return text[: min(ends)] if ends else text
