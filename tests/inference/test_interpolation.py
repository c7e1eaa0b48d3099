"""Texts between two texts: both ends are their reconstructions, and the arc between them stays in the prior's shell."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.command_line import run
from support.params import random_params

from jtextdiff.cli.errors import UserError
from jtextdiff.inference.interpolation import arc, interpolate
from jtextdiff.inference.model import Model
from jtextdiff.methods.autoregressive import Autoregressive
from jtextdiff.methods.components.types import TextSpec
from jtextdiff.methods.text_vae import TextVAE
from jtextdiff.nets.transformer import Transformer

SPEC = TextSpec(vocab_size=40, mask=40, pad=0, eos=1, unk=2, length=9, length_counts=(0, *[1] * 9))
CAUSAL = Transformer(num_layers=1, width=8, num_heads=2, causal=True)
METHOD = TextVAE(text_spec=SPEC, encoder=dataclasses.replace(CAUSAL, causal=False), decoder=CAUSAL, latent_dim=4)
FIRST, SECOND = "3 4 5 6 7", "11 12 13"


def model_of(method: Any) -> Model:
    tokenizer: Any = SimpleNamespace(
        pad=0,
        eos=1,
        unk=2,
        mask=40,
        vocab_size=40,
        encode=lambda texts: [np.asarray(list(map(int, text.split())), np.int32) for text in texts],
        decode=lambda row: " ".join(str(token) for token in np.asarray(row) if token not in (0, 1)),
        unknown_words=lambda text: [],
    )
    return Model(method=method, params=random_params(method.init), tokenizer=tokenizer, config=None, step=0)


def test_both_ends_are_reconstructions_and_a_text_depends_on_its_place_alone() -> None:
    model = model_of(METHOD)
    few, many = interpolate(model, FIRST, SECOND, 3), interpolate(model, FIRST, SECOND, 9)
    assert [few[0], few[-1]] == [many[0], many[-1]] == model.edit([FIRST, SECOND])
    assert few[1] == many[4] and len(set(many)) > 2
    assert interpolate(model, SECOND, FIRST, 9) == many[::-1]


def test_unknown_words_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    model = model_of(METHOD)
    model.tokenizer.unknown_words = lambda text: ["zebra"]  # type: ignore[method-assign]
    interpolate(model, "3 2 5", SECOND, 2)
    assert (
        "1 of 2 texts have words outside the model's vocabulary: zebra." in (said := capsys.readouterr().err)
        and "Each is read as the unknown word." in said
    )


def test_what_has_no_path_is_refused() -> None:
    autoregressive = model_of(Autoregressive(text_spec=SPEC, trunk=CAUSAL))
    with pytest.raises(UserError, match="Autoregressive has no latents to interpolate between: a TextVAE does"):
        interpolate(autoregressive, FIRST, SECOND)
    with pytest.raises(UserError, match="num must be a whole number from 2 .*got 1"):
        interpolate(model_of(METHOD), FIRST, SECOND, 1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--num 1", "--num must be at least 2, got 1"),
        ("--control food=Thai", "leave out --control"),
        ("--best_of 3", "leave out --best_of"),
        ("--template [MASK]", "leave out --template"),
        ("--chat What?", "leave out --between"),
    ],
)
def test_flags_that_say_more_than_two_texts_are_refused(flags: str, message: str, tmp_path: Path) -> None:
    done = run("sample", "--checkpoint=none", "--between", "one", "two", *flags.split(), cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr


def test_the_arc_has_equal_steps_on_a_sphere() -> None:
    random = np.random.default_rng(0)
    first, second = (5 * vector / np.linalg.norm(vector) for vector in random.normal(size=(2, 7)))
    points = arc(first, second, np.linspace(0, 1, 6))
    np.testing.assert_allclose(points[[0, -1]], [first, second], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(points, axis=-1), 5, rtol=1e-12)
    steps = np.linalg.norm(np.diff(points, axis=0), axis=-1)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-12)


@pytest.mark.parametrize("factor", [1.0, -1.0])
def test_without_a_unique_arc_points_lie_on_the_line(factor: float) -> None:
    vector = np.asarray([1.0, 2.0, -1.0])
    points = arc(vector, factor * vector, np.asarray([0.25, 0.5]))
    expected = [(0.75 + 0.25 * factor) * vector, (0.5 + 0.5 * factor) * vector]
    np.testing.assert_allclose(points, expected, atol=1e-12)
