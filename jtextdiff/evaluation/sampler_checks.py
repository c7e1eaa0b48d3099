"""Statistical checks of a trained model's sampler and likelihood."""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from jtextdiff.cli.errors import UserError
from jtextdiff.cli.output import say
from jtextdiff.cli.tables import output_width, wrap
from jtextdiff.data.batches import Batch
from jtextdiff.data.corpus import Corpus
from jtextdiff.diffusion.lengths import length_log_probs
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.inference.model import Model
from jtextdiff.methods.components.types import Given, nothing_given
from jtextdiff.methods.d3pm import D3PM
from jtextdiff.methods.method import HasSecondLikelihood, HasSteps, HasTokenDistribution, Method, SamplesLength
from jtextdiff.nets.functional import Params

NUM_TEXTS = 64
"""Texts in a batch, and real texts that are read."""

NUM_ALONE = 16
"""Samples that are also drawn in a batch of one."""

TAIL = 0.05
"""Outcomes are rare if they are the least likely ones whose total probability is at most this."""

MAX_DEVIATIONS = 4.0
"""Standard errors above which a deviation fails: by chance once in 16,000 checks of a sound model."""


FIRST_STEP_COUNT = 40
"""From here on, samplers must have about the same token entropy at neighbouring numbers of steps."""

MAX_ENTROPY_CHANGE = 0.5
"""Share of the median by which the token entropy at one of these numbers may differ; texts of one word lose all."""


class Check(NamedTuple):
    """A measured value, which must not exceed its limit."""

    name: str
    value: float
    limit: float
    unit: str
    how: str

    @property
    def passes(self) -> bool:
        return self.value <= self.limit  # never true of a NaN

    def lines(self, width: int) -> list[str]:
        """Returns the check as text: the result, and below it how it was obtained."""
        outcome = "passes" if self.passes else "FAILS "
        result = f"{outcome}  {self.name:<17} {self.value:<9.3g} limit {self.limit:g} {self.unit}"
        return [result, *wrap(self.how, width, first=" " * 8)]


def verify(model: Model, corpus: Corpus, *, seed: int, repeats: int, num_step_counts: int = 20) -> dict[str, Any]:
    """Runs all checks of a model, prints each when it is done, and returns them.

    `repeats` and `num_step_counts` are as in `run_checks`.

    Raises UserError if the text's valid split has a single text.
    """
    valid = corpus.splits["valid"]
    real = model.batch(valid.texts(valid.evenly_spaced(NUM_TEXTS)))
    if len(real.tokens) < 2:
        raise UserError("The text's valid split has a single text; the checks need at least 2.")
    method, sampler = type(model.method).__name__, model.method.sampler.name
    say(f"{method} at step {model.step}, {sampler}; real texts: {len(real.tokens)} of valid; seed {seed}")
    checks = []
    counts = {"repeats": repeats, "num_step_counts": num_step_counts}
    for check in run_checks(model.method, model.params, real, seed=seed, **counts):
        say("\n".join(check.lines(output_width(sys.stderr))))
        checks.append(check._asdict() | {"passes": check.passes})
    failed = [check["name"] for check in checks if not check["passes"]]
    if failed:
        say(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}.")
    about = {"method": method, "step": model.step, "sampler": sampler, "seed": seed}
    return about | {"passes": not failed, "checks": checks}


def run_checks(
    method: Method,
    params: Params,
    real: Batch,
    *,
    seed: int,
    repeats: int,
    num_step_counts: int,
) -> Iterator[Check]:
    """Yields the checks of a model, some of them on the first NUM_TEXTS texts of `real`.

    `repeats`: samples of each missing token, and of the length of as many texts. `num_step_counts`: how many
    numbers of steps each of the method's samplers is run with.
    """
    key, real = jax.random.key(seed), jax.tree.map(lambda leaf: leaf[:NUM_TEXTS], real)
    sample = jax.jit(method.sample)
    yield from check_batch_invariance(method, params, sample, key)
    yield from check_given(method, params, sample, key, real)
    if isinstance(method, HasTokenDistribution):
        yield from check_rare_tokens(method, params, sample, key, real, repeats)
    if isinstance(method, SamplesLength):
        yield from check_rare_lengths(method, params, key, repeats * NUM_TEXTS)
    yield check_two_likelihoods(method, params, key, real)
    yield from check_step_counts(method, params, key, num_step_counts)


def check_batch_invariance(method: Method, params: Params, sample: Callable[..., Any], key: Any) -> Iterator[Check]:
    """Checks that a sample is the same among other samples, at another place of the batch, and alone."""
    length, half = method.text_spec.length, NUM_TEXTS // 2

    def draw(ids: Int[np.ndarray, "b"]) -> Int[np.ndarray, "b l"]:
        return np.asarray(sample(params, _keys(key, ids), nothing_given(len(ids), length)).tokens)

    ids = np.arange(NUM_TEXTS)
    samples = draw(ids)
    rearranged = draw(np.concatenate([ids[:half][::-1], ids[half:] + NUM_TEXTS]))
    changed = np.any(rearranged[:half] != samples[:half][::-1], axis=-1)
    note = f"{half} samples, token for token, at another place of a batch and among other samples"
    yield Check("batch_invariance", float(changed.mean()), 0.0, "share changed", note)
    alone = np.stack([draw(ids[i : i + 1])[0] for i in range(NUM_ALONE)])
    changed = np.any(alone != samples[:NUM_ALONE], axis=-1)
    note = f"{NUM_ALONE} samples drawn alone; a float of another shape may break a tie"
    yield Check("batch_size", float(changed.mean()), 1 / NUM_ALONE, "share changed", note)


def check_given(method: Method, params: Params, sample: Callable[..., Any], key: Any, real: Batch) -> Iterator[Check]:
    """Checks that samples keep the given tokens and lengths, and that they consist of words."""
    text_spec, positions = method.text_spec, np.arange(real.tokens.shape[1])
    size = real.valid.sum(-1)
    half = np.asarray(jax.random.bernoulli(jax.random.fold_in(key, 1), 0.5, real.tokens.shape))
    ends = positions == size[:, None] - 1
    fixed = (positions < size[:, None] // 2) if method.prefix_only else real.valid & (half | ends)
    tokens = np.asarray(sample(params, _keys(key, np.arange(len(size))), _given(real, fixed)).tokens)
    changed = float(np.mean((tokens != real.tokens)[fixed])) if fixed.any() else 0.0
    yield Check("fixed_words", changed, 0.0, "share changed", f"{fixed.sum()} given words of {len(size)} real texts")
    pad_is_eos = text_spec.pad == text_spec.eos  # as in GPT-2: the first after the words is their end
    num_tokens = np.max(np.where(tokens != text_spec.pad, positions + 1, 0), axis=-1) + pad_is_eos
    in_text = positions < num_tokens[:, None]
    no_words = [text_spec.mask, text_spec.unk] + [text_spec.pad] * (not pad_is_eos)
    wrong = in_text & np.isin(tokens, no_words) & ~fixed
    yield Check("not_words", float(wrong.sum()), 0.0, "count", "MASK, UNK or PAD among the words of those texts")
    if not method.prefix_only:
        share = float(np.mean(in_text.sum(-1) != size))
        yield Check("given_lengths", share, 0.0, "share changed", f"given lengths of {len(size)} texts")


def check_rare_tokens(
    method: Any, params: Params, sample: Callable[..., Any], key: Any, real: Batch, repeats: int
) -> Iterator[Check]:
    """Checks the frequency of tokens of low probability, where one token is missing from a real text."""
    size = real.valid.sum(-1)
    missing_at = np.asarray(jax.random.randint(jax.random.fold_in(key, 2), size.shape, 0, np.maximum(size - 1, 1)))
    positions = np.arange(real.tokens.shape[1])
    missing = positions == missing_at[:, None]
    given = _given(real, positions < missing_at[:, None] if method.prefix_only else real.valid & ~missing)
    log_p = jax.jit(method.token_distribution)(params, given)
    if log_p is None:
        return
    p = np.exp(np.asarray(log_p, np.float64))
    draws = []
    for repeat in range(repeats):
        keys = _keys(jax.random.fold_in(key, 3 + repeat), np.arange(len(size)))
        draws.append(np.asarray(sample(params, keys, given).tokens)[missing])
    note = (
        f"a word missing from each of {len(size)} real texts, drawn {repeats} times, against the network's probability"
    )
    yield tail_frequency_check("rare_words", p / p.sum(-1, keepdims=True), np.stack(draws), note)


def check_rare_lengths(method: Any, params: Params, key: Any, num: int) -> Iterator[Check]:
    """Checks that lengths that are rare in the training text are as rare among sampled lengths."""
    longest = method.text_spec.length
    lengths = jax.jit(method.sample_lengths)(params, _keys(key, np.arange(num)), nothing_given(num, longest))
    if (lengths == longest).all():
        return  # the length is a part of the text, and not drawn beforehand
    p = np.exp(np.asarray(length_log_probs(jnp.asarray(method.text_spec.length_counts)), np.float64))
    note = f"{num} lengths, against the training text's"
    yield tail_frequency_check("rare_lengths", p[None], np.asarray(lengths)[:, None], note)


def tail_frequency_check(name: str, p: Float[np.ndarray, "n k"], draws: Int[np.ndarray, "m n"], note: str) -> Check:
    """Returns how far the number of rare outcomes is from its mean, in standard errors; row i of `p` is for draw i."""
    rare = _tail(p)
    rare_probability = np.sum(np.where(rare, p, 0.0), axis=-1)
    in_vocabulary = draws < p.shape[-1]  # MASK, where it was left, may be an id beyond the words
    num_rare = np.sum(~in_vocabulary | rare[np.arange(len(p)), np.where(in_vocabulary, draws, 0)])
    expected = len(draws) * rare_probability.sum()
    # A count of rare events is Poisson, or less spread; its tail is expressed as that of so many normal deviations.
    tail = 2 * min(stats.poisson.cdf(num_rare, expected), stats.poisson.sf(num_rare - 1, expected), 0.5)
    deviations = stats.norm.isf(max(tail, 1e-300) / 2)
    note = f"{note}: {num_rare} rare ones, {expected:.1f} expected"
    return Check(name, float(deviations), MAX_DEVIATIONS, "standard errors", note)


def _tail(p: Float[np.ndarray, "n k"]) -> Bool[np.ndarray, "n k"]:
    """The least likely outcomes of each row that together have no more than TAIL."""
    order = np.argsort(p, axis=-1)
    in_tail = np.cumsum(np.take_along_axis(p, order, axis=-1), axis=-1) <= TAIL
    rare = np.zeros(p.shape, bool)
    np.put_along_axis(rare, order, in_tail, axis=-1)
    return rare


def check_step_counts(method: Any, params: Params, key: Any, num: int) -> Iterator[Check]:
    """Checks that each sampler's token entropy is about the same at `num` neighbouring numbers of steps.

    Samplers without a number of steps have no such check. A program is compiled for each number.
    """
    settings: Any = method.sampler
    if not isinstance(settings, HasSteps) or num == 0:
        return
    last = min(FIRST_STEP_COUNT + num - 1, method.num_steps if isinstance(method, D3PM) else sys.maxsize)
    step_counts = range(max(last - num + 1, (last + 1) // 2), last + 1)
    given = nothing_given(NUM_TEXTS, method.text_spec.length)
    for name in settings.names:
        sampler = dataclasses.replace(method.sampler, name=name)
        if not sampler.uses_steps:
            continue
        say(f"{name} in {step_counts[0]} to {step_counts[-1]} steps …")
        entropies = []
        for steps in step_counts:
            with_steps = dataclasses.replace(method, sampler=dataclasses.replace(sampler, steps=steps))
            tokens = np.asarray(jax.jit(with_steps.sample)(params, _keys(key, np.arange(NUM_TEXTS)), given).tokens)
            entropies.append(stats.entropy(np.unique(tokens[tokens != method.text_spec.pad], return_counts=True)[1]))
        median = max(float(np.median(entropies)), 1e-6)
        change = np.abs(np.asarray(entropies) - median) / median
        note = (
            f"token entropy of {NUM_TEXTS} texts in {step_counts[0]} to {step_counts[-1]} steps against its median, "
            f"{median:.3g} nats; furthest at {step_counts[int(change.argmax())]} steps"
        )
        yield Check(f"steps_{name}", float(change.max()), MAX_ENTROPY_CHANGE, "of the median", note)


def check_two_likelihoods(method: Method, params: Params, key: Any, real: Batch) -> Check:
    """Checks that two computations of the likelihood of real texts agree: to a float's precision, or within noise."""
    nll_check: Callable[..., Any]
    if isinstance(method, HasSecondLikelihood):
        nll_check, name = method.nll_check, method.bound_check
    else:
        finer: Any = dataclasses.replace(method, bound_points=4 * method.bound_points)  # pyright: ignore
        nll_check, name = finer.nll, finer.bound
    num_tokens = real.valid.sum()
    first = np.asarray(jax.jit(method.nll)(params, jax.random.fold_in(key, 0), real))
    second = np.asarray(jax.jit(nll_check)(params, jax.random.fold_in(key, 1), real))
    difference = (first - second).astype(np.float64)
    note = f"{first.sum() / num_tokens:.5g} ({method.bound}) and {second.sum() / num_tokens:.5g} nats/token ({name})"
    if method.bound == "exact":
        largest = float(np.max(np.abs(difference) / real.valid.sum(-1)))
        return Check("two_likelihoods", largest, 1e-4, "nats/token", note)
    se = difference.std(ddof=1) / np.sqrt(len(difference))
    # A t statistic of few texts has heavier tails than a normal one: as many deviations as have its probability.
    tail = 2 * stats.t.sf(abs(difference.mean()) / se, len(difference) - 1) if se > 0 else float(not difference.any())
    deviations = float(stats.norm.isf(max(tail, 1e-300) / 2))
    return Check("two_likelihoods", deviations, MAX_DEVIATIONS, "standard errors", note)


def _given(real: Batch, fixed: Bool[np.ndarray, "b l"]) -> Given:
    return Given(jnp.asarray(real.tokens), jnp.asarray(fixed), jnp.asarray(real.valid.sum(-1)))


def _keys(key: Any, ids: Int[np.ndarray, "b"]) -> Any:
    return keys_for(key, jnp.asarray(ids))
