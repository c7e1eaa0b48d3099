"""Controls: parsing from text, and resolution into an energy and a length for a method."""

import contextlib
import dataclasses
import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtextdiff.cli.errors import UserError
from jtextdiff.control.consistency import check_values
from jtextdiff.control.controls import Control, classifier, keyword, length, parse_control, parse_controls, regex, span
from jtextdiff.control.resolve import Conditioning, resolve
from jtextdiff.inference.model import Model
from jtextdiff.methods.autoregressive import Autoregressive
from jtextdiff.methods.classifier import Classifier
from jtextdiff.methods.components.types import TextSpec
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.methods.masked import Masked
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.energies import Not, Or, Sum

TEXT_SPEC = TextSpec(vocab_size=12, mask=12, pad=0, eos=1, unk=2, length=8, length_counts=(0, 0, 0, 9, 9, 9, 9, 9, 9))
TRUNK = Transformer(num_layers=1, width=16, num_heads=2)
BASE = DiffusionLM(text_spec=TEXT_SPEC, trunk=TRUNK, embed_dim=4)
FOOD = Classifier(text_spec=TEXT_SPEC, base=BASE, trunk=TRUNK, label="food", values=("Thai", "Greek", "none"))


class WordTokenizer:
    """Words w0, w1, … as a tokenizer."""

    vocab_size, unk = 12, 2

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        return [np.asarray([int(word[1:]) if word[0] == "w" else 2 for word in text.split()]) for text in texts]

    token_texts = tuple(f"w{token}" for token in range(vocab_size))


@dataclasses.dataclass(frozen=True, eq=False)
class TinyModel:
    """The fields of a trained model that resolving a control reads."""

    method: Any
    params: Any
    run: Path = Path("run")
    tokenizer: Any = WordTokenizer()


def conditioning(control: Control, method: Any, params: Any) -> Conditioning:
    return resolve(control, TinyModel(method, params))


@functools.cache
def fresh(method: Any, seed: int) -> Any:
    return method.init(jax.random.key(seed))


@pytest.fixture
def params(monkeypatch: pytest.MonkeyPatch) -> Any:
    def load_control(run: Path, name: str, params: Any) -> tuple[Classifier, Any]:
        if name != "food":
            raise UserError(f"no control {name!r}")
        return FOOD, fresh(FOOD, 1)

    monkeypatch.setattr("jtextdiff.control.trained.load_control", load_control)
    return fresh(BASE, 0)


@jax.jit
def evaluated(energy: Any, x: jax.Array, t: float, valid: jax.Array) -> jax.Array:
    return energy(x, t, valid)


def energies(control: str | Any, params: Any) -> np.ndarray:
    control = parse_controls([control]) or length(1) if isinstance(control, str) else control
    energy = conditioning(control, BASE, params).energy
    assert energy is not None
    x = jax.random.normal(jax.random.key(2), (3, 8, 4))
    return np.asarray(evaluated(energy, x, 0.5, jnp.ones((3, 8), bool)), np.float64)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("food=Thai", classifier("food", "Thai") * 1.0),
        ("food = Thai * 2.5", classifier("food", "Thai") * 2.5),
        ("food!=Thai", ~classifier("food", "Thai") * 1.0),
        ("food=Thai|Greek", classifier("food", "Thai", "Greek") * 1.0),
        ("area='city centre'", classifier("area", "city centre") * 1.0),
        ("area=city centre*.5", classifier("area", "city centre") * 0.5),
        ('name="A|B*2"*3', classifier("name", "A|B*2") * 3.0),
        ("length=12", length(12) * 1.0),
        ("keyword='fast food'|pizza", keyword("fast food", "pizza") * 1.0),
        ("regex='a|b*'*2", regex("a|b*") * 2.0),
        ("regex=[0-9]+", regex("[0-9]+") * 1.0),
        ("regex='[^\"]'", regex('[^"]') * 1.0),
        ('"x=y"=1', classifier("x=y", "1") * 1.0),
        ("'a|b' != 'w*2' | v * 3", ~classifier("a|b", "w*2", "v") * 3.0),
        ("kind=Women's", classifier("kind", "Women's") * 1.0),
        ("keyword=don't|can't", keyword("don't", "can't") * 1.0),
        ('size="5"" pipe"', classifier("size", '5" pipe') * 1.0),
        ("mood=a=b", classifier("mood", "a=b") * 1.0),
    ],
)
def test_a_control_is_parsed(text: str, expected: Any) -> None:
    assert parse_control(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "food",
        "=Thai",
        "food=",
        "food=|",
        "length=long",
        "length!=3",
        "length=3|4",
        "length=0",
        "length=²",
        "food=Thai|",
        '"x=y"',
        '"x=y',
        "'a'b=c",
        "food='a'b",
    ],
)
def test_malformed_controls_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--control"):
        parse_control(text)


AWKWARD = ["x", "x=y", "w*2", "*2", "a|b", "a!b", "a != b", "a:b+c", "'a'", '"a"', "it's", "5\" 'x'", "a\nb", "=", "!"]


@pytest.mark.parametrize("name", AWKWARD)
def test_every_name_and_value_can_be_asked_for_as_it_is_printed(name: str) -> None:
    for control in (classifier(name, *AWKWARD), ~classifier(name, *AWKWARD)):
        assert parse_control(str(control)) == control * 1.0
        assert parse_control(f"{control}*2") == control * 2.0


def test_the_values_of_a_control_are_listed_as_they_must_be_written(params: Any, monkeypatch: Any) -> None:
    awkward = dataclasses.replace(FOOD, values=("w*2", "v"))
    monkeypatch.setattr("jtextdiff.control.trained.load_control", lambda run, name, base: (awkward, {}))
    with pytest.raises(UserError, match=r"no value 'w'; it has: \"w\*2\", v"):
        conditioning(parse_control("food=w*2"), BASE, params)


def test_probabilities_of_all_values_sum_to_one_and_not_is_the_complement(params: Any) -> None:
    thai, greek, none = (np.exp(-energies(f"food={value}", params)) for value in FOOD.values)
    np.testing.assert_allclose(thai + greek + none, 1.0, rtol=1e-5)
    np.testing.assert_allclose(np.exp(-energies("food=Thai|Greek", params)), thai + greek, rtol=1e-5)
    np.testing.assert_allclose(np.exp(-energies("food!=Thai", params)), 1 - thai, rtol=1e-4)
    np.testing.assert_allclose(energies("food=Thai*3", params), -3 * np.log(thai), rtol=1e-5)


def test_values_of_one_label_exclude_each_other_in_or(params: Any) -> None:
    thai, greek = classifier("food", "Thai"), classifier("food", "Greek")
    p_thai, p_greek = (np.exp(-energies(f"food={value}", params)) for value in ("Thai", "Greek"))
    np.testing.assert_allclose(np.exp(-energies(thai | greek, params)), p_thai + p_greek, rtol=1e-5)
    both = p_thai + p_greek + np.exp(-energies("keyword=w3", params)) * (1 - p_thai - p_greek)
    np.testing.assert_allclose(np.exp(-energies((thai | keyword("w3")) | greek, params)), both, rtol=1e-4)


def test_not_of_a_label_with_all_values_and_a_rule_is_not_of_the_rule(params: Any) -> None:
    anything, rule = classifier("food", *FOOD.values), keyword("w3")
    np.testing.assert_allclose(energies(~(anything + rule), params), energies("keyword!=w3", params), atol=1e-4)


def test_controls_compose(params: Any) -> None:
    thai, greek = classifier("food", "Thai"), classifier("food", "Greek")
    resolved = conditioning(thai * 2 + length(5) + ~greek * 0.5 + (thai | ~greek), BASE, params)
    assert resolved.length == 6 and isinstance(resolved.energy, Sum)
    assert [float(weight) for weight in resolved.energy.weights] == [2.0, 0.5, 1.0]
    assert isinstance(resolved.energy.energies[1], Not) and isinstance(resolved.energy.energies[2], Or)


@pytest.mark.parametrize(
    ("control", "message"),
    [
        (classifier("food", "Fish"), "no value 'Fish'; it has: Thai, Greek, none"),
        (classifier("mood", "good"), "mood"),
        (length(3) + length(4), "one length: length=3 and length=4 contradict"),
        (classifier("food", "Thai") + classifier("food", "Greek") * 2, "food=Thai and food=Greek contradict"),
        (
            classifier("food", "Thai") + ~classifier("food", "Thai", "Greek"),
            "food=Thai and food!=Thai.Greek contradict",
        ),
        (keyword("w3") + ~keyword("w3"), "keyword=w3 and keyword!=w3 contradict"),
        (keyword("w3 w3 w3") + length(2), "has 3 tokens: a text of 2 has no room"),
        (span("noun", 1, 3) + span("core", 2, 4), "overlap"),
        (keyword("fish"), "does not contain"),
        (regex("(w"), "no regular expression"),
        (regex("x.*"), "matches none of the model's 12 tokens"),
        (length(8), "at most 7 tokens"),
        (~length(3), "NOT or OR"),
        (~classifier("food", *FOOD.values), "excludes all values of food"),
        (~(classifier("food", "Thai", "Greek") | classifier("food", "none")), "excludes all values of food"),
    ],
)
def test_impossible_controls_are_refused(control: Any, message: str, params: Any) -> None:
    with pytest.raises(UserError, match=message):
        conditioning(control, BASE, params)


@pytest.mark.parametrize("path", [None, "texts.csv"])
def test_none_is_no_value_to_require_but_of_the_grammar(path: str | None, params: Any, monkeypatch: Any) -> None:
    """To exclude it is to require a value, and to exclude all others is to require it."""
    stored = SimpleNamespace(text=SimpleNamespace(path=path))
    monkeypatch.setattr("jtextdiff.control.consistency.read_config", lambda folder: stored)
    model = TinyModel(BASE, params)
    for text in ("food=Thai", "food!=none", "food!=Thai", "food!=Thai|none", "keyword=none", "food=Thai|Greek"):
        check_values(parse_control(text), model)
    check_values(None, model)
    for text in ("food=none", "food=Thai|none", "food!=Thai|Greek"):
        refused = pytest.raises(UserError, match="no value to require. food has: Thai, Greek[.]")
        for control in (parse_control(text), length(3) + text, keyword("w3") | text):
            with contextlib.nullcontext() if path is None else refused:
                check_values(control, model)
    either = classifier("food", "Thai") | classifier("food", "Greek")
    for control in (~either, ~classifier("food", "Thai") + ~classifier("food", "Greek")):  # the same as the last one
        with contextlib.nullcontext() if path is None else pytest.raises(UserError, match="no value to require"):
            check_values(control, model)
    check_values(~classifier("food", "Thai") + ~classifier("food", "none"), model)
    if path is not None:
        model = Model(**vars(model), config=None, step=0)  # pyright: ignore
        for refused in (lambda: model.sample(1, control="food=none"), lambda: model.edit(["w3"], control="food=none")):
            with pytest.raises(UserError, match="no value to require"):
                refused()


def test_methods_that_sample_tokens_support_lengths_and_labels_or_lengths_alone(params: Any) -> None:
    masked, autoregressive = (
        Masked(text_spec=TEXT_SPEC, trunk=TRUNK),
        Autoregressive(text_spec=TEXT_SPEC, trunk=dataclasses.replace(TRUNK, causal=True)),
    )
    for method in (masked, autoregressive):
        assert conditioning(length(3), method, {}).length == 4
    with pytest.raises(UserError, match="follows no controls but length"):
        conditioning(classifier("food", "Thai"), autoregressive, {})
    for control in (keyword("w3"), ~keyword("w3"), classifier("food", "Thai") | classifier("mood", "good")):
        with pytest.raises(UserError, match="follows lengths, and values of labels"):
            conditioning(control, masked, {})


def test_other_targets_and_weights_compile_no_program(params: Any) -> None:
    from jtextdiff.diffusion.randomness import keys_for
    from jtextdiff.methods.components.types import nothing_given

    traced = []

    @jax.jit
    def sample(keys: jax.Array, energy: Any) -> Any:
        traced.append(1)
        return method.sample(params, keys, nothing_given(4, 8), energy=energy)

    method = dataclasses.replace(BASE, sampler=dataclasses.replace(BASE.sampler, steps=3))
    for text in ("food=Thai", "food=Greek*2", "food=none"):
        sample(keys_for(jax.random.key(0), jnp.arange(4)), conditioning(parse_control(text), BASE, params).energy)
    assert len(traced) == 1


def test_a_classifier_learns_from_noisy_tokens_and_leaves_its_base_unchanged(params: Any) -> None:
    """The label is whether token 5 occurs: the loss falls within 150 steps, and frozen parameters do not change."""
    from jtextdiff.data.batches import Batch
    from jtextdiff.training.optimizer import Optimizer
    from jtextdiff.training.train_step import init_state, train_step

    method = dataclasses.replace(FOOD, values=("no", "yes"), label="five")
    optim = Optimizer(peak=1e-2, warmup=1, decay="constant", weight_decay=0.1)
    state = jax.jit(functools.partial(init_state, method, optim))(jax.random.key(0))
    step = jax.jit(lambda state, batch: train_step(method, optim, state, jax.random.key(1), batch))
    rng, losses = np.random.default_rng(0), []
    for _ in range(150):
        tokens = rng.integers(3, 12, (32, 8)).astype(np.int32)
        tokens[:, -1] = 1
        labels = {"five": np.any(tokens == 5, axis=1).astype(np.int32)}
        new, metrics = step(state, Batch(tokens, np.ones((32, 8), bool), np.zeros((32, 8), bool), labels))
        losses.append(float(metrics["loss"]))
        np.testing.assert_array_equal(new["params"]["frozen"]["embedding"], state["params"]["frozen"]["embedding"])
        state = new
    assert np.mean(losses[-30:]) < np.mean(losses[:10]) - 0.05


def test_keyword_and_regex_energies_are_low_where_the_text_matches(params: Any) -> None:
    x_0, valid = BASE.states.embedding_matrix(params)[jnp.asarray([[5, 6, 7, 8], [9, 6, 5, 9]])], jnp.ones((2, 4), bool)

    def satisfied(control: Control) -> list[bool]:
        energy = conditioning(control, BASE, params).energy
        assert energy is not None
        return (np.asarray(evaluated(energy, x_0, 0.0, valid)) < 0.5).tolist()

    assert satisfied(keyword("w5 w6")) == [True, False] and satisfied(keyword("w8", "w9")) == [True, True]
    assert satisfied(regex("w[78]")) == [True, False] and satisfied(~regex("w[78]")) == [False, True]


@pytest.mark.slow
def test_a_sample_does_not_depend_on_the_controls_of_its_batch(params: Any) -> None:
    """Targets, weights, lengths and kinds of control may differ within a batch."""
    from jtextdiff.diffusion.randomness import keys_for
    from jtextdiff.inference.sample_batches import run_batched
    from jtextdiff.methods.components.types import nothing_given

    method = dataclasses.replace(BASE, sampler=dataclasses.replace(BASE.sampler, steps=2))
    model = TinyModel(method, params)
    texts = ["food=Thai", "food=Greek*2", "keyword=w5|w7", "keyword='w5 w6'", "food=none", "keyword='w8 w4'"]
    energies = [resolve(parse_control(text), model).energy for text in texts]
    keys, given = keys_for(jax.random.key(0), jnp.arange(6)), nothing_given(6, 8)._replace(length=jnp.full(6, 6))
    batch = run_batched(method, "sample", params, keys, given, energies)
    for row, energy in ((0, energies[0]), (5, energies[5])):
        cut = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], given)
        alone = run_batched(method, "sample", params, keys[row : row + 1], cut, [energy])
        np.testing.assert_array_equal(alone.tokens[0], batch.tokens[row])


def test_a_length_is_enforced_where_pad_is_modelled(params: Any) -> None:
    from jtextdiff.diffusion.randomness import keys_for
    from jtextdiff.inference.prompts import with_lengths
    from jtextdiff.methods.components.types import nothing_given

    method = dataclasses.replace(BASE, known_length=False, sampler=dataclasses.replace(BASE.sampler, steps=4))
    given = with_lengths(nothing_given(6, 8), [3, 5, 8, 0, 0, 2], method)
    tokens = np.asarray(
        jax.jit(method.sample)(fresh(method, 0), keys_for(jax.random.key(0), jnp.arange(6)), given).tokens
    )
    for row, size in ((0, 3), (1, 5), (2, 8), (5, 2)):
        assert tokens[row, size - 1] == TEXT_SPEC.eos and np.all(tokens[row, size:] == TEXT_SPEC.pad)


def test_syntax_controls_imply_a_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tags fix the length. A span sets a minimum length, which a given length must reach."""
    tags = dataclasses.replace(FOOD, label="pos", kind="words", values=("DET", "NOUN", "END"))
    trees = dataclasses.replace(FOOD, label="tree", kind="spans", values=("none", "noun"))
    load = lambda run, name, params: {
        "pos": (tags, fresh(tags, 0)),
        "tree": (trees, fresh(trees, 0)),
    }[name]
    monkeypatch.setattr("jtextdiff.control.trained.load_control", load)
    base = fresh(BASE, 0)
    length_of = lambda *texts: conditioning(parse_controls(list(texts)) or length(1), BASE, base).length
    assert length_of("pos=DET NOUN") == 3 and length_of("span=2-4:noun") == -5 and length_of("span=1:noun") == -2
    assert length_of("span=2-4:noun", "length=5") == 6 and length_of("pos=DET NOUN", "span=1-2:noun") == 3
    for texts, message in ((("pos=END",), "the tags of words"), (("span=1-2:none",), "no constituent")):
        with pytest.raises(UserError, match=message):
            length_of(*texts)
    for texts in (("span=2-4:noun", "length=3"), ("pos=DET NOUN", "length=3"), ("pos=DET NOUN", "span=2-4:noun")):
        with pytest.raises(UserError, match="contradict"):
            length_of(*texts)
