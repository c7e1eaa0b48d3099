"""Targets of classifiers of tokens and spans: accepted cells, implied lengths and error messages."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import classifier, parts_of_speech, span, tree
from jtextdiff.control.label_targets import label_target
from jtextdiff.data.grammar.constituents import constituents_of
from jtextdiff.data.grammar.restaurants import sentences
from jtextdiff.methods.classifier import Classifier
from jtextdiff.methods.components.types import TextSpec
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.nets.transformer import Transformer

TEXT_SPEC = TextSpec(vocab_size=12, mask=12, pad=0, eos=1, length=8, length_counts=(0, 0, 0, 9, 9, 9, 9, 9, 9))
TRUNK = Transformer(num_layers=1, width=16, num_heads=2)
BASE = DiffusionLM(text_spec=TEXT_SPEC, trunk=TRUNK, embed_dim=4)
POS = Classifier(text_spec=TEXT_SPEC, base=BASE, trunk=TRUNK, label="pos", kind="words", values=("DET", "NOUN", "END"))
TREE = Classifier(
    text_spec=TEXT_SPEC,
    base=BASE,
    trunk=TRUNK,
    label="tree",
    kind="spans",
    values=("none", "core", "core::noun", "noun"),
)


def test_tags_constrain_each_token_and_end_the_rest() -> None:
    accepted, size, _ = label_target(parts_of_speech("DET NOUN NOUN"), POS)
    assert size == 3 and accepted.sum() == 8
    np.testing.assert_array_equal(np.argmax(accepted, axis=-1), [0, 1, 1, 2, 2, 2, 2, 2])


def test_a_tree_constrains_every_span_and_a_span_control_one() -> None:
    accepted, size, _ = label_target(tree("(core x y (noun z))"), TREE)
    assert size == 3 and np.all(accepted.sum(-1) == 1)
    chart = np.argmax(accepted, axis=-1)
    assert chart[0, 2] == 1 and chart[2, 2] == 3 and np.count_nonzero(chart) == 2
    accepted, size, minimum = label_target(span("noun", 2, 3), TREE)
    assert (
        size is None and minimum == 3 and accepted.sum() == 2 and accepted[1, 2].tolist() == [False, False, True, True]
    )


@pytest.mark.parametrize(
    ("control", "method", "message"),
    [
        (classifier("pos", "DET VERB"), POS, "has no value 'VERB'; it has: DET, NOUN, END"),
        (classifier("pos", "a b"), POS, "neither parts of speech"),
        (classifier("pos", "DET " * 8), POS, "at most 7"),
        (classifier("pos", "DET", "NOUN"), POS, "one value"),
        (classifier("tree", "(core x y"), TREE, "tree=.*no closing bracket"),
        (classifier("tree", "(fish x)"), TREE, "has no value 'fish'"),
        (classifier("span", "4-2:noun"), TREE, "FIRST-LAST:NAME"),
        (classifier("span", "1-2:fish"), TREE, "has no value 'fish'; it has: core, none, noun"),
        (classifier("span", "1-8:noun"), TREE, "at most 7"),
    ],
)
def test_impossible_targets_are_refused(control: object, method: Classifier, message: str) -> None:
    with pytest.raises(UserError, match=message):
        label_target(control, method)  # type: ignore[arg-type]


def test_an_example_text_means_its_tags_or_its_tree() -> None:
    example = next(example for example in sentences(50, seed=4) if len(example.words) < 20)
    text_spec = dataclasses.replace(TEXT_SPEC, length=31)
    names = tuple(sorted({each.name for each in constituents_of(example.tree)}))
    tags = dataclasses.replace(POS, text_spec=text_spec, values=(*sorted(set(example.tags)), "END"))
    trees = dataclasses.replace(TREE, text_spec=text_spec, values=("none", *names))
    given = label_target(parts_of_speech(example.text), tags)
    assert given.num_words == len(example.words)
    np.testing.assert_array_equal(given.accepted, label_target(parts_of_speech(" ".join(example.tags)), tags).accepted)
    chart = np.argmax(label_target(tree(example.text), trees).accepted, axis=-1)
    assert {(i, j + 1, trees.values[chart[i, j]]) for i, j in zip(*np.nonzero(chart), strict=True)} == set(
        constituents_of(example.tree)
    )


@pytest.mark.parametrize("method", [POS, TREE])
def test_an_energy_counts_constrained_cells_inside_the_text(method: Classifier) -> None:
    """It is 0 if all values are accepted, padding does not change it, and one target for all equals one per text."""
    params, x = method.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (3, 8, 4))
    valid = jnp.arange(8) < jnp.asarray([8, 5, 3])[:, None]
    shape = (8,) if method is POS else (8, 8)
    rng = np.random.default_rng(0)
    target = np.eye(len(method.values), dtype=bool)[rng.integers(len(method.values), size=shape)]
    compiled = jax.jit(lambda energy, x, valid: energy(x, 0.3, valid))
    energy = lambda target, x, valid: np.asarray(compiled(method.energy(params, target, {}), x, valid))
    np.testing.assert_allclose(energy(np.ones_like(target), x, valid), 0.0, atol=1e-4)
    np.testing.assert_array_equal(energy(np.zeros_like(target), x, valid), 0.0)
    energies = energy(target, x, valid)
    np.testing.assert_allclose(energy(np.stack([target] * 3), x, valid), energies, rtol=1e-6)
    np.testing.assert_allclose(energy(target, x.at[2, 3:].set(9.0), valid), energies, rtol=1e-5)
    np.testing.assert_allclose(energy(target, x[:, :5], valid[:, :5])[1:], energies[1:], rtol=1e-5)
    logits = jax.jit(
        lambda net: method.net.bind(net)(BASE.states.network_input(x, 0.3), jnp.full((3, 1), 300.0), valid=valid)
    )
    log_p = np.asarray(jax.nn.log_softmax(logits(params["net"])))
    cells = np.asarray(valid) if method is POS else np.triu(np.asarray(valid)[:, :, None] & np.asarray(valid)[:, None])
    np.testing.assert_allclose(
        energies, -np.where(cells, np.where(target, log_p, 0).sum(-1), 0).reshape(3, -1).sum(1), rtol=1e-4
    )


def test_the_span_head_is_a_dense_layer_of_both_ends() -> None:
    """Factorised = dense: tanh(W [h_i, h_j] + b) with the two halves of W."""
    net = TREE.net.bind(TREE.init(jax.random.key(2))["net"])
    h = jax.random.normal(jax.random.key(3), (2, 4, 16))
    both = jnp.concatenate([jnp.repeat(h[:, :, None], 4, 2), jnp.repeat(h[:, None], 4, 1)], axis=-1)
    kernel = jnp.concatenate([net.first.kernel[...], net.last.kernel[...]])
    dense = jnp.tanh(both @ kernel + net.first.bias[...] + net.last.bias[...])
    np.testing.assert_allclose(jax.jit(net.span_states)(h), dense, atol=1e-5)
