"""Checks of samplers: correct methods pass all, and each check fails the method that violates it."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.cases import slow_but

from jtextdiff.data.batches import Batch
from jtextdiff.evaluation.sampler_checks import Check, check_step_counts, run_checks
from jtextdiff.methods import d3pm
from jtextdiff.methods.autoregressive import Autoregressive
from jtextdiff.methods.block_diffusion import BlockDiffusion
from jtextdiff.methods.cmlm import CMLM
from jtextdiff.methods.components.autoregressive_sampler import DecodingSettings
from jtextdiff.methods.components.types import Given, Sample, TextSpec
from jtextdiff.methods.d3pm import D3PM
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.methods.masked import Masked
from jtextdiff.methods.text_vae import TextVAE
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.gaussian_samplers import Sampler
from jtextdiff.sampling.masked_samplers import Unmasking

PAD, EOS, UNK, MASK = 0, 1, 2, 12
TEXT_SPEC = TextSpec(
    vocab_size=12, mask=MASK, pad=PAD, eos=EOS, unk=UNK, length=8, length_counts=(0, 0, 1, 2, 30, 40, 50, 3, 60)
)
TRUNK = Transformer(num_layers=1, width=16, num_heads=2)
CAUSAL = dataclasses.replace(TRUNK, causal=True)
METHODS: dict[str, Any] = {
    "autoregressive": Autoregressive(text_spec=TEXT_SPEC, trunk=CAUSAL),
    "greedy": Autoregressive(text_spec=TEXT_SPEC, trunk=CAUSAL, sampler=DecodingSettings(name="greedy")),
    "written_pad_is_eos": Autoregressive(text_spec=dataclasses.replace(TEXT_SPEC, pad=EOS), trunk=CAUSAL),
    "pad_is_eos": Masked(text_spec=dataclasses.replace(TEXT_SPEC, pad=EOS), trunk=TRUNK, sampler=Unmasking(steps=8)),
    "masked": Masked(text_spec=TEXT_SPEC, trunk=TRUNK, sampler=Unmasking(steps=8)),
    "first_hitting": Masked(text_spec=TEXT_SPEC, trunk=TRUNK, sampler=Unmasking(name="first_hitting", top_p=0.9)),
    "blocks": BlockDiffusion(text_spec=TEXT_SPEC, trunk=TRUNK, block_size=3),
    "blocks_pad_is_eos": BlockDiffusion(text_spec=dataclasses.replace(TEXT_SPEC, pad=EOS), trunk=TRUNK, block_size=3),
    "cmlm": CMLM(text_spec=TEXT_SPEC, trunk=TRUNK),
    "absorbing": D3PM(text_spec=TEXT_SPEC, trunk=TRUNK, num_steps=50, sampler=d3pm.Sampler(steps=10)),
    "uniform": D3PM(text_spec=TEXT_SPEC, trunk=TRUNK, num_steps=20, kernel="uniform", sampler=d3pm.Sampler(steps=10)),
    "diffusion_lm": DiffusionLM(text_spec=TEXT_SPEC, trunk=TRUNK, embed_dim=4, sampler=Sampler(steps=20)),
    "text_vae": TextVAE(text_spec=TEXT_SPEC, encoder=TRUNK, decoder=CAUSAL, latent_dim=4),
}

SAME_SAMPLERS = ("pad_is_eos", "first_hitting", "blocks_pad_is_eos")
"""All samplers of a class are run in several numbers of steps, whichever the method has: these repeat another case."""


def checks_of(method: Any, repeats: int, num_step_counts: int = 3) -> Iterator[Check]:
    """Returns the checks of an untrained network whose logits are spread so that some tokens are rare."""
    params = method.init(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 6 * jnp.linspace(-1, 0, 12) if leaf.shape == (12,) else leaf, params)
    sizes = np.random.default_rng(0).integers(2, 9, 64)
    valid = np.arange(8) < sizes[:, None]
    words = np.random.default_rng(1).integers(3, 12, valid.shape)
    tokens = np.where(np.arange(8) == sizes[:, None] - 1, EOS, np.where(valid, words, method.text_spec.pad)).astype(
        np.int32
    )
    batch = Batch(tokens, valid, np.zeros_like(valid), {})
    return run_checks(method, params, batch, seed=0, repeats=repeats, num_step_counts=num_step_counts)


@pytest.mark.parametrize("name", slow_but(["autoregressive"], METHODS))
def test_correct_methods_pass(name: str) -> None:
    with_steps = ("blocks", "masked", "cmlm", "absorbing", "uniform", "diffusion_lm")
    found = checks_of(METHODS[name], repeats=32, num_step_counts=0 if name in SAME_SAMPLERS else 3)
    checks = {check.name: check for check in found}
    assert [check for check in checks.values() if not check.passes] == []
    assert {"batch_invariance", "batch_size", "fixed_words", "not_words", "two_likelihoods"} <= set(checks)
    no_rare_words = ("greedy", "uniform", "diffusion_lm", "text_vae", "blocks", "blocks_pad_is_eos")
    assert ("rare_words" in checks) == (name not in no_rare_words)
    assert any(name.startswith("steps_") for name in checks) == (name in with_steps)
    by_words = ("blocks", "blocks_pad_is_eos", "autoregressive", "greedy", "written_pad_is_eos", "cmlm", "text_vae")
    assert ("rare_lengths" in checks) == (name not in by_words)


class OneKey(Masked):
    def sample(self, params: Any, keys: Any, given: Given, **static: Any) -> Sample:
        shared = jax.vmap(lambda row: jax.random.fold_in(keys[0], row))(jnp.arange(len(keys)))
        return Masked.sample(self, params, shared, given, **static)


class IgnoresFixed(Masked):
    def sample(self, params: Any, keys: Any, given: Given, **static: Any) -> Sample:
        return Masked.sample(self, params, keys, given._replace(fixed=jnp.zeros_like(given.fixed)), **static)


class Unfinished(Masked):
    def sample(self, params: Any, keys: Any, given: Given, **static: Any) -> Sample:
        sample = Masked.sample(self, params, keys, given, **static)
        return sample._replace(tokens=sample.tokens.at[:, 0].set(MASK))


class Short(Masked):
    def sample_lengths(self, params: Any, keys: Any, given: Given) -> jax.Array:
        return jnp.maximum(Masked.sample_lengths(self, params, keys, given) - 1, 1)


class Sharp(Masked):
    def token_distribution(self, params: Any, given: Given) -> jax.Array:
        return jax.nn.log_softmax(Masked.token_distribution(self, params, given) / 1.3)


class Overconfident(Masked):
    def nll(self, params: Any, key: Any, batch: Batch) -> jax.Array:
        return Masked.nll(self, params, key, batch) * 0.9


class Leaky(Autoregressive):
    def nll_check(self, params: Any, key: Any, batch: Batch) -> jax.Array:
        return Autoregressive.nll_check(self, params, key, batch) + 0.01


BROKEN = [
    (OneKey, "batch_invariance"),
    (IgnoresFixed, "fixed_words"),
    (Unfinished, "not_words"),
    (Short, "given_lengths"),
    (Short, "rare_lengths"),
    (Sharp, "rare_words"),
    (Overconfident, "two_likelihoods"),
]


def failing_check(method: Any, name: str) -> bool:
    """Returns whether a method fails a check, by 100 samples of each masked token. Later checks are not run."""
    return not next(check for check in checks_of(method, repeats=100) if check.name == name).passes


class Collapses(DiffusionLM):
    """Writes one word over and over in 41 steps."""

    def sample(self, params: Any, keys: Any, given: Given, **static: Any) -> Sample:
        sample = DiffusionLM.sample(self, params, keys, given, **static)
        return sample._replace(tokens=jnp.where(self.sampler.steps == 41, 5, sample.tokens))


@pytest.mark.slow
def test_a_sampler_that_collapses_at_one_number_of_steps_fails() -> None:
    broken = Collapses(text_spec=TEXT_SPEC, trunk=TRUNK, embed_dim=4)
    checks = list(check_step_counts(broken, broken.init(jax.random.key(0)), jax.random.key(0), 3))
    assert [check.name for check in checks] == ["steps_ancestral", "steps_ddim", "steps_dpm_solver"]
    assert all(not check.passes and "furthest at 41 steps" in check.how for check in checks)


@pytest.mark.parametrize("case", slow_but([BROKEN[1], *BROKEN[5:]], BROKEN), ids=str)
def test_a_broken_method_fails(case: tuple[Any, str]) -> None:
    kind, check = case
    broken = kind(text_spec=TEXT_SPEC, trunk=TRUNK, sampler=Unmasking(steps=8), bound_points=64)
    assert failing_check(broken, check)


def test_a_second_likelihood_that_differs_fails() -> None:
    assert failing_check(Leaky(text_spec=TEXT_SPEC, trunk=CAUSAL), "two_likelihoods")


@pytest.mark.parametrize("width", [80, 120])
def test_a_check_is_printed_within_the_width(width: int) -> None:
    how = "a word missing from each of 64 real texts, drawn 32 times, against the network's probability: 7 rare ones"
    lines = Check("rare_words", 1.5321, 4.0, "standard errors", how).lines(width)
    assert lines[0] == "passes  rare_words        1.53      limit 4 standard errors"
    assert max(map(len, lines)) <= width and " ".join(" ".join(lines[1:]).split()) == how
