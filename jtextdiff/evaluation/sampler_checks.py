"""A certificate: what can be shown of a trained model's own samples and likelihoods, in figures with a limit each."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from jtextdiff.data.batches import Batch
from jtextdiff.diffusion import losses as objectives
from jtextdiff.diffusion.randomness import keys_for
from jtextdiff.methods.components.types import Given, nothing_given
from jtextdiff.methods.method import Lawful, Measured, Method, Rechecked
from jtextdiff.nets.functional import Params

ROWS = 64
"""Texts at a time, and real texts that are read."""

TAIL = 0.05
"""Rare are the least likely outcomes that together have no more than this share."""

FAR = 4.0
"""Standard errors at which chance is no longer an excuse: once in 16,000 checks of a sound model."""


class Check(NamedTuple):
    """One figure, which must not exceed its limit."""

    name: str
    value: float
    limit: float
    unit: str
    how: str

    @property
    def passes(self) -> bool:
        return self.value <= self.limit  # never true of a NaN


def certify(method: Method, params: Params, real: Batch, *, seed: int, repeats: int) -> Iterator[Check]:
    """Check after check of a model, with the first texts of `real` (ROWS of them at most) where it needs some.

    `repeats`: how often the words missing from those texts are drawn, and the lengths of as many.
    """
    key, real = jax.random.key(seed), jax.tree.map(lambda leaf: leaf[:ROWS], real)
    sample = jax.jit(method.sample)
    yield from _company(method, params, sample, key)
    yield from _asked(method, params, sample, key, real)
    if isinstance(method, Lawful):
        yield from _rare_words(method, params, sample, key, real, repeats)
    if isinstance(method, Measured):
        yield from _rare_lengths(method, params, key, repeats * ROWS)
    yield _two_likelihoods(method, params, key, real)


def _company(method: Method, params: Params, sample: Callable[..., Any], key: Any) -> Iterator[Check]:
    """Whether a sample is the same beside others, in another place, or alone."""
    length = method.language.length
    ids = np.arange(ROWS)
    drawn = np.asarray(sample(params, _keys(key, ids), nothing_given(ROWS, length)).tokens)
    other = np.concatenate([ids[: ROWS // 2][::-1], ids[ROWS // 2 :] + ROWS])
    beside = np.asarray(sample(params, _keys(key, other), nothing_given(ROWS, length)).tokens)
    changed = np.any(beside[: ROWS // 2] != drawn[: ROWS // 2][::-1], axis=-1)
    how = f"{ROWS // 2} samples, token for token, in another place of a batch and beside others"
    yield Check("batch_mates", float(changed.mean()), 0.0, "share changed", how)
    few = 16
    alone = [sample(params, _keys(key, ids[i : i + 1]), nothing_given(1, length)).tokens[0] for i in range(few)]
    changed = np.any(np.stack(alone) != drawn[:few], axis=-1)
    how = f"{few} samples drawn alone; a float of another shape may break a tie"
    yield Check("batch_size", float(changed.mean()), 1 / few, "share changed", how)


def _asked(method: Method, params: Params, sample: Callable[..., Any], key: Any, real: Batch) -> Iterator[Check]:
    """Whether what was asked for is what comes: the words, the length, and words at all."""
    language, places = method.language, np.arange(real.tokens.shape[1])
    size = real.valid.sum(-1)
    kept = np.asarray(jax.random.bernoulli(jax.random.fold_in(key, 1), 0.5, real.tokens.shape))
    ends = places == size[:, None] - 1
    fixed = (places < size[:, None] // 2) if method.prefix_only else real.valid & (kept | ends)
    given = _given(real, fixed)
    tokens = np.asarray(sample(params, _keys(key, np.arange(len(size))), given).tokens)
    changed = float(np.mean((tokens != real.tokens)[fixed])) if fixed.any() else 0.0
    yield Check("fixed_words", changed, 0.0, "share changed", f"{fixed.sum()} given words of {len(size)} real texts")
    one_id = language.pad == language.eos  # as GPT-2 has it: the first that follows the words is their end
    last = np.max(np.where(tokens != language.pad, places + 1, 0), axis=-1) + one_id
    written = places < last[:, None]
    no_words = [language.mask, language.unk] + [language.pad] * (not one_id)
    strange = written & np.isin(tokens, no_words) & ~fixed
    yield Check("not_words", float(strange.sum()), 0.0, "count", "MASK, UNK or PAD among the words of those texts")
    if not method.prefix_only:
        other = float(np.mean(written.sum(-1) != size))
        yield Check("lengths_asked", other, 0.0, "share other", f"lengths of {len(size)} texts, as asked for")


def _rare_words(
    method: Any, params: Params, sample: Callable[..., Any], key: Any, real: Batch, repeats: int
) -> Iterator[Check]:
    """Whether words of low probability come as often as the network says, where one is missing from a real text."""
    size = real.valid.sum(-1)
    place = np.asarray(jax.random.randint(jax.random.fold_in(key, 2), size.shape, 0, np.maximum(size - 1, 1)))
    places = np.arange(real.tokens.shape[1])
    missing = places == place[:, None]
    given = _given(real, places < place[:, None] if method.prefix_only else real.valid & ~missing)
    law = jax.jit(method.law)(params, given)
    if law is None:
        return
    p = np.exp(np.asarray(law, np.float64))
    words = [
        np.asarray(sample(params, _keys(jax.random.fold_in(key, 3 + turn), np.arange(len(size))), given).tokens)
        for turn in range(repeats)
    ]
    drawn = np.stack([tokens[missing] for tokens in words])
    how = f"a word missing from each of {len(size)} real texts, drawn {repeats} times, against the network's law"
    yield _rarely("rare_words", p / p.sum(-1, keepdims=True), drawn, how)


def _rare_lengths(method: Any, params: Params, key: Any, num: int) -> Iterator[Check]:
    """Whether lengths of low probability come as often as in the training text."""
    lengths = jax.jit(method.lengths)(params, _keys(key, np.arange(num)), nothing_given(num, method.language.length))
    if (lengths == method.language.length).all():
        return  # the length is a part of the text, and not drawn beforehand
    p = np.exp(np.asarray(objectives.length_law(jnp.asarray(method.language.length_counts)), np.float64))
    yield _rarely("rare_lengths", p[None], np.asarray(lengths)[:, None], f"{num} lengths, against the training text's")


def _rarely(name: str, p: Float[np.ndarray, "n k"], drawn: Int[np.ndarray, "m n"], how: str) -> Check:
    """How far the number of rare outcomes lies from its mean, in standard errors; each row has a law of its own."""
    rare = _tail(p)
    share = np.sum(np.where(rare, p, 0.0), axis=-1)
    within = drawn < p.shape[-1]  # MASK, where it was left, may be an id beyond the words
    seen = np.sum(~within | rare[np.arange(len(p)), np.where(within, drawn, 0)])
    mean = len(drawn) * share.sum()
    # A count of rare things is Poisson's, or less spread; its tail as that of a normal law of so many deviations.
    tail = 2 * min(stats.poisson.cdf(seen, mean), stats.poisson.sf(seen - 1, mean), 0.5)
    far = stats.norm.isf(max(tail, 1e-300) / 2)
    return Check(name, float(far), FAR, "standard errors", f"{how}: {seen} rare ones, {mean:.1f} expected")


def _tail(p: Float[np.ndarray, "n k"]) -> Bool[np.ndarray, "n k"]:
    """The least likely outcomes of each row that together have no more than TAIL."""
    order = np.argsort(p, axis=-1)
    below = np.cumsum(np.take_along_axis(p, order, axis=-1), axis=-1) <= TAIL
    rare = np.zeros(p.shape, bool)
    np.put_along_axis(rare, order, below, axis=-1)
    return rare


def _two_likelihoods(method: Method, params: Params, key: Any, real: Batch) -> Check:
    """Whether two ways to find the likelihood of real texts agree: to a float's precision, or within their noise."""
    again: Callable[..., Any]
    if isinstance(method, Rechecked):
        again, name = method.nll_again, method.bound_again
    else:
        many: Any = dataclasses.replace(method, bound_points=4 * method.bound_points)  # pyright: ignore
        again, name = many.nll, many.bound
    keys = [jax.random.fold_in(key, purpose) for purpose in range(2)]
    size = real.valid.sum()
    first, second = (np.asarray(jax.jit(f)(params, k, real)) for f, k in zip((method.nll, again), keys, strict=True))
    apart = (first - second).astype(np.float64)
    how = f"{first.sum() / size:.5g} ({method.bound}) and {second.sum() / size:.5g} nats/token ({name})"
    if method.bound == "exact":
        far = float(np.max(np.abs(apart) / real.valid.sum(-1)))
        return Check("two_likelihoods", far, 1e-4, "nats/token", how)
    error = apart.std(ddof=1) / np.sqrt(len(apart))
    # A t statistic of few texts strays further than a normal one: as many deviations as have its probability.
    tail = 2 * stats.t.sf(abs(apart.mean()) / error, len(apart) - 1) if error > 0 else float(not apart.any())
    far = float(stats.norm.isf(max(tail, 1e-300) / 2))
    return Check("two_likelihoods", far, FAR, "standard errors", how)


def _given(real: Batch, fixed: Bool[np.ndarray, "b l"]) -> Given:
    return Given(jnp.asarray(real.tokens), jnp.asarray(fixed), jnp.asarray(real.valid.sum(-1)))


def _keys(key: Any, ids: Int[np.ndarray, "b"]) -> Any:
    return keys_for(key, jnp.asarray(ids))
