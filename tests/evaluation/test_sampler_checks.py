"""The certificate passes sound methods, and each of its checks fails a method that is broken in its way."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.data.batches import Batch
from jtextdiff.evaluation.sampler_checks import Check, certify
from jtextdiff.methods.autoregressive import Autoregressive
from jtextdiff.methods.cmlm import CMLM
from jtextdiff.methods.components.autoregressive_sampler import Writer
from jtextdiff.methods.components.types import Given, Language, Sample
from jtextdiff.methods.d3pm import D3PM, Ancestral
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.methods.masked import Masked
from jtextdiff.methods.text_vae import TextVAE
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.masked_samplers import Unmasking

PAD, EOS, UNK, MASK = 0, 1, 2, 12
LANGUAGE = Language(
    vocab_size=12, mask=MASK, pad=PAD, eos=EOS, unk=UNK, length=8, length_counts=(0, 0, 1, 2, 30, 40, 50, 3, 60)
)
TRUNK = Transformer(num_layers=1, width=16, num_heads=2)
CAUSAL = dataclasses.replace(TRUNK, causal=True)
METHODS: dict[str, Any] = {
    "autoregressive": Autoregressive(language=LANGUAGE, trunk=CAUSAL),
    "greedy": Autoregressive(language=LANGUAGE, trunk=CAUSAL, sampler=Writer(name="greedy")),
    "written_pad_is_eos": Autoregressive(language=dataclasses.replace(LANGUAGE, pad=EOS), trunk=CAUSAL),
    "pad_is_eos": Masked(language=dataclasses.replace(LANGUAGE, pad=EOS), trunk=TRUNK, sampler=Unmasking(steps=8)),
    "masked": Masked(language=LANGUAGE, trunk=TRUNK, sampler=Unmasking(steps=8)),
    "first_hitting": Masked(language=LANGUAGE, trunk=TRUNK, sampler=Unmasking(name="first_hitting", top_p=0.9)),
    "cmlm": CMLM(language=LANGUAGE, trunk=TRUNK),
    "absorbing": D3PM(language=LANGUAGE, trunk=TRUNK, num_steps=50, sampler=Ancestral(steps=10)),
    "uniform": D3PM(language=LANGUAGE, trunk=TRUNK, num_steps=20, kernel="uniform", sampler=Ancestral(steps=10)),
    "diffusion_lm": DiffusionLM(language=LANGUAGE, trunk=TRUNK, embed_dim=4),
    "text_vae": TextVAE(language=LANGUAGE, encoder=TRUNK, decoder=CAUSAL, latent_dim=4),
}


def certificate(method: Any, repeats: int = 100) -> dict[str, Check]:
    """The checks of a network that has learned nothing, its logits spread so that some words are rare."""
    params = method.init(jax.random.key(0))
    spread = lambda path, leaf: leaf + 6 * jnp.linspace(-1, 0, 12) if leaf.shape == (12,) else leaf
    params = jax.tree_util.tree_map_with_path(spread, params)
    sizes = np.random.default_rng(0).integers(2, 9, 64)
    valid = np.arange(8) < sizes[:, None]
    words = np.random.default_rng(1).integers(3, 12, valid.shape)
    tokens = np.where(np.arange(8) == sizes[:, None] - 1, EOS, np.where(valid, words, method.language.pad)).astype(
        np.int32
    )
    batch = Batch(tokens, valid, np.zeros_like(valid), {})
    return {check.name: check for check in certify(method, params, batch, seed=0, repeats=repeats)}


@pytest.mark.parametrize("name", METHODS)
def test_sound_methods_pass(name: str) -> None:
    checks = certificate(METHODS[name], repeats=32)
    assert [check for check in checks.values() if not check.passes] == []
    assert {"batch_mates", "batch_size", "fixed_words", "not_words", "two_likelihoods"} <= set(checks)
    assert ("rare_words" in checks) == (name not in ("greedy", "uniform", "diffusion_lm", "text_vae"))
    by_words = ("autoregressive", "greedy", "written_pad_is_eos", "cmlm", "text_vae")
    assert ("rare_lengths" in checks) == (name not in by_words)


class OneKey(Masked):
    def sample(self, params: Any, keys: Any, given: Given, **static: Any) -> Sample:
        shared = jax.vmap(lambda row: jax.random.fold_in(keys[0], row))(jnp.arange(len(keys)))
        return Masked.sample(self, params, shared, given, **static)


class Forgetful(Masked):
    def sample(self, params: Any, keys: Any, given: Given, **static: Any) -> Sample:
        return Masked.sample(self, params, keys, given._replace(fixed=jnp.zeros_like(given.fixed)), **static)


class Unfinished(Masked):
    def sample(self, params: Any, keys: Any, given: Given, **static: Any) -> Sample:
        drawn = Masked.sample(self, params, keys, given, **static)
        return drawn._replace(tokens=drawn.tokens.at[:, 0].set(MASK))


class Short(Masked):
    def lengths(self, params: Any, keys: Any, given: Given) -> jax.Array:
        return jnp.maximum(Masked.lengths(self, params, keys, given) - 1, 1)


class Sharp(Masked):
    def law(self, params: Any, given: Given) -> jax.Array:
        return jax.nn.log_softmax(Masked.law(self, params, given) / 1.3)


class Optimist(Masked):
    def nll(self, params: Any, key: Any, batch: Batch) -> jax.Array:
        return Masked.nll(self, params, key, batch) * 0.9


class Leaky(Autoregressive):
    def nll_again(self, params: Any, key: Any, batch: Batch) -> jax.Array:
        return Autoregressive.nll_again(self, params, key, batch) + 0.01


BROKEN = [
    (OneKey, "batch_mates"),
    (Forgetful, "fixed_words"),
    (Unfinished, "not_words"),
    (Short, "lengths_asked"),
    (Short, "rare_lengths"),
    (Sharp, "rare_words"),
    (Optimist, "two_likelihoods"),
]


@pytest.mark.parametrize(("kind", "check"), BROKEN)
def test_what_is_broken_fails(kind: Any, check: str) -> None:
    broken = kind(language=LANGUAGE, trunk=TRUNK, sampler=Unmasking(steps=8), bound_points=64)
    assert not certificate(broken)[check].passes


def test_a_cache_that_differs_fails() -> None:
    assert not certificate(Leaky(language=LANGUAGE, trunk=CAUSAL))["two_likelihoods"].passes
