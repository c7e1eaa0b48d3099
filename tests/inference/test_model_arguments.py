"""What a model's functions refuse: one text for a list of texts, things that are no text, and no control."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import as_control, keyword, length
from jtextdiff.data.tokenizer_builders import Words
from jtextdiff.inference.editing.edits import UNKNOWN_IN_EDITS
from jtextdiff.inference.model import Model
from jtextdiff.inference.prompts import read_template
from jtextdiff.methods.components.types import TextSpec
from jtextdiff.methods.diffusion_lm import DiffusionLM
from jtextdiff.methods.masked import Masked
from jtextdiff.nets.transformer import Transformer
from jtextdiff.run.config_files import load_config, override
from jtextdiff.sampling.masked_samplers import Unmasking

TEXT_SPEC = TextSpec(
    vocab_size=12, mask=12, pad=0, eos=1, unk=2, length=8, length_counts=(0, 0, 9, 9, 30, 40, 50, 3, 60)
)


@pytest.fixture(scope="module")
def model() -> Model:
    method = DiffusionLM(
        text_spec=TEXT_SPEC, trunk=Transformer(num_layers=1, width=8, num_heads=2), embed_dim=4, embeddings="learned"
    )
    encode = lambda texts: [np.asarray(list(map(int, text.split()))) for text in texts]
    unknown_words = lambda text: text.split().count("2") * ["zorb"]
    tokenizer: Any = SimpleNamespace(
        pad=0,
        eos=1,
        unk=2,
        encode=encode,
        decode=str,
        decode_with=lambda ids, words: str(ids),
        unknown_words=unknown_words,
    )
    return Model(method=method, params=method.init(jax.random.key(0)), tokenizer=tokenizer, config=None, step=0)


FUNCTIONS = {
    "nll": lambda model, texts: model.nll(texts),
    "edit": lambda model, texts: model.edit(texts),
    "energy": lambda model, texts: model.energy(texts, keyword("3")),
    "num_tokens": lambda model, texts: model.num_tokens(texts),
    "hold": lambda model, texts: model.edit(["3 4"], hold=texts),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("texts", "message"),
    [
        *(("3 4 5", "one text"), ("", "one text"), (["3", 4], r"\[1\] is a int"), ([None], r"\[0\] is a NoneType")),
        *((None, "is a NoneType"), (3, "is a int"), ({"3"}, "is a set"), ({"3": "4"}, "is a dict")),
    ],
)
def test_texts_are_a_list_of_texts(name: str, texts: Any, message: str, model: Model) -> None:
    with pytest.raises(UserError, match=message):
        FUNCTIONS[name](model, texts)


def test_texts_may_come_from_a_generator(model: Model) -> None:
    assert model.nll(text for text in ["3 4"]) == model.nll(["3 4"])
    assert model.edit(text for text in ["3 4"]) == model.edit(["3 4"])


@pytest.mark.parametrize("num", [-1, 1.5, "3", True, None])
def test_a_number_of_samples_is_a_whole_number(num: Any, model: Model) -> None:
    with pytest.raises(UserError, match="num must be a whole number"):
        model.sample(num)


@pytest.mark.parametrize("seed", [1.5, "3", 2**70])
def test_a_seed_is_a_whole_number(seed: Any, model: Model) -> None:
    for function in (lambda: model.sample(1, seed=seed), lambda: model.nll(["3"], seed=seed)):
        with pytest.raises(UserError, match="seed must be a whole number"):
            function()


@pytest.mark.parametrize(("setting", "wrong"), [("template", 3), ("control", 3), ("control", b"food=Thai")])
def test_settings_of_samples_are_checked(setting: str, wrong: Any, model: Model) -> None:
    with pytest.raises(UserError, match="expected"):
        model.sample(1, **{setting: wrong})


@pytest.mark.parametrize(
    ("setting", "wrong"),
    [("strength", "0.5"), ("strength", 2), ("flow", {}), ("ids", [1.5]), ("ids", [-1]), ("ids", [1, 2]), ("ids", [])],
)
def test_settings_of_edits_are_checked(setting: str, wrong: Any, model: Model) -> None:
    with pytest.raises(UserError, match=setting):
        model.edit(["3 4"], **{setting: wrong})


def test_controls_refuse_what_no_text_can_have() -> None:
    wrong = (lambda: length(0), lambda: length(-5), lambda: length(1.5), lambda: keyword(3), lambda: keyword(["a"]))
    for make in (*wrong, lambda: keyword("a") * -1, lambda: keyword("a") * float("nan"), lambda: keyword("a") + 3):
        with pytest.raises(UserError):
            make()
    assert keyword("a") + "length=4" == keyword("a") + length(4)


def test_overrides_are_a_list_of_texts() -> None:
    for function in (lambda: override(None, "a.b=3"), lambda: load_config("x.py", "a.b=3")):
        with pytest.raises(UserError, match="one text"):
            function()


@pytest.mark.parametrize("wrong", [3, {"food": "Thai"}, ("food", "Thai"), b"food=Thai"])
def test_a_control_is_a_control_or_its_text(wrong: Any) -> None:
    assert as_control("food=Thai") == as_control(as_control("food=Thai")) and as_control(None) is None
    with pytest.raises(UserError, match="expected a text such as"):
        as_control(wrong)


def test_unknown_words_are_printed(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["3 4", "3 2 2", "2"]
    model.nll(texts)
    said = "warning: 2 of 3 texts have words outside the model's vocabulary: zorb."
    assert capsys.readouterr().err == f"{said} Each is scored as one unknown word, whatever its letters.\n"
    model.edit(texts)
    assert capsys.readouterr().err == f"{said} {UNKNOWN_IN_EDITS}\n"
    assert [edit.unknown for edit in model.edit_texts(texts)] == [(), ("zorb", "zorb"), ("zorb",)]
    model.nll(texts[:1]), model.edit(texts[:1])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["ordered", "entropy_bounded", "ancestral"])
def test_the_likelihood_in_order_is_that_of_samplers_that_have_one(model: Model, name: str) -> None:
    """Unknown words count, and batches of any lengths agree."""
    trunk = Transformer(num_layers=1, width=8, num_heads=2)
    method = Masked(text_spec=TEXT_SPEC, trunk=trunk, sampler=Unmasking(name=name, top_p=0.5, correct="random"))
    masked = dataclasses.replace(model, method=method, params=method.init(jax.random.key(0)))
    texts = ["3 4", "3 2 2", "2", "3 4 5 6 7"] * 3
    if name == "ancestral":
        assert not masked.has_order
        with pytest.raises(UserError, match="ancestral has no order"):
            masked.nll(texts, in_order=True)
        return
    nats = masked.nll(texts, in_order=True)
    assert np.isfinite(nats).all()
    np.testing.assert_allclose([masked.nll([text], in_order=True)[0] for text in texts[:4]], nats[:4], rtol=1e-5)


def test_a_template_names_its_unknown_words() -> None:
    method: Any = SimpleNamespace(text_spec=TEXT_SPEC, prefix_only=False)
    tokenizer = Words(min_count=1).train(["The Mill is cheap ."])
    with pytest.raises(UserError, match=r"vocabulary: hippo, potamus. Put words .* or \[MASK\]") as raised:
        read_template("The [MASK] hippo [MASK] potamus hippo", tokenizer, method, 1)
    assert "[UNK]" not in str(raised.value)
