"""Edits by masking: how many words may change, and which stay."""

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from support.cases import slow_but

from jtextdiff.cli.errors import UserError
from jtextdiff.control.resolve import Conditioning
from jtextdiff.inference.editing.edits import check_edit, masked_words
from jtextdiff.inference.editing.types import EMPTY, UNKNOWN
from jtextdiff.inference.model import Model
from jtextdiff.methods.autoregressive import Autoregressive
from jtextdiff.methods.cmlm import CMLM
from jtextdiff.methods.components.types import TextSpec
from jtextdiff.methods.d3pm import D3PM
from jtextdiff.methods.masked import Masked
from jtextdiff.methods.text_vae import TextVAE
from jtextdiff.nets.transformer import Transformer
from jtextdiff.sampling.energies import Sum

SPEC = TextSpec(vocab_size=40, mask=40, pad=0, eos=1, unk=2, length=9, length_counts=(0, *[1] * 9))
TRUNK = Transformer(num_layers=1, width=8, num_heads=2)
METHODS = {
    "masked": Masked(text_spec=SPEC, trunk=TRUNK),
    "absorbing": D3PM(text_spec=SPEC, trunk=TRUNK, num_steps=64),
    "uniform": D3PM(text_spec=SPEC, trunk=TRUNK, num_steps=64, kernel="uniform", schedule="cosine_d3pm"),
    "cmlm": CMLM(text_spec=SPEC, trunk=TRUNK),
}
TEXTS = ["3 4 5 6 7 8 9 10", "11 12 13", "14", "3 3 3 3 3 3"]


def model_of(method: Any) -> Model:
    encode = lambda texts: [np.asarray(list(map(int, text.split())), np.int32) for text in texts]
    decode = lambda row: " ".join(str(token) for token in np.asarray(row) if token not in (0, 1))
    tokenizer: Any = SimpleNamespace(
        pad=0, eos=1, unk=2, mask=40, encode=encode, decode=decode, unknown_words=lambda text: [], vocab_size=40
    )
    return Model(method=method, params=method.init(jax.random.key(0)), tokenizer=tokenizer, config=None, step=0)


@pytest.mark.parametrize("name", slow_but(["masked"], METHODS))
def test_an_edit_by_masking_changes_a_share_of_the_words_at_most(name: str) -> None:
    model = model_of(METHODS[name])
    for strength, most in ((0.25, (2, 1, 1, 2)), (1.0, (8, 3, 1, 6))):
        edits = model.edit(TEXTS, strength=strength, seed=1)
        changed = [
            sum(a != b for a, b in zip(edit.split(), text.split(), strict=True))
            for edit, text in zip(edits, TEXTS, strict=True)
        ]
        assert all(number <= limit for number, limit in zip(changed, most, strict=True)), (strength, changed)
        assert sum(changed) > 0.5 * sum(most)


def test_held_words_stay_and_an_edit_depends_on_its_number_alone() -> None:
    model = model_of(METHODS["masked"])
    edits = model.edit(TEXTS, strength=1.0, hold=["3", "5"])
    assert edits[3] == TEXTS[3] and edits[0].split()[0] == "3" and edits[0].split()[2] == "5"
    assert [edit.text for edit in model.edit_texts(TEXTS[1:2], strength=1.0, ids=[1])] == [edits[1]]


def test_texts_without_known_words_stay_as_they_are() -> None:
    """The edits of the others are the same, and all are counted as finished."""
    model, done = model_of(METHODS["masked"]), []
    edits = model.edit_texts(["2 2", TEXTS[0], "", " "], strength=1.0, ids=[4, 0, 1, 2], progress=done.append)
    assert [edit.skipped_because for edit in edits] == [UNKNOWN, "", EMPTY, EMPTY] and sum(done) == 4
    assert [edit.text for edit in edits] == ["2 2", model.edit(TEXTS[:1], strength=1.0)[0], "", ""]
    assert [edit.text for edit in model.edit_texts(["", "2"])] == ["", "2"]


def test_a_model_that_samples_from_left_to_right_cannot_edit() -> None:
    method = Autoregressive(text_spec=SPEC, trunk=Transformer(num_layers=1, width=8, num_heads=2, causal=True))
    with pytest.raises(UserError, match="from left to right: it cannot edit"):
        model_of(method).edit(TEXTS)


def test_controls_without_weight_move_no_latent() -> None:
    conditioning = lambda *weights: Conditioning(Sum(energies=(None, None), weights=weights), names=("a=b", "c=d"))
    for weights, named in (((0.0, 0.0), "a=b and c=d"), ((1.0, 0.0), "c=d")):
        with pytest.raises(UserError, match=f"^{named} with a weight of 0 moves no latent"):
            check_edit(TextVAE(text_spec=SPEC), conditioning(*weights))
    check_edit(TextVAE(text_spec=SPEC), conditioning(1.0, 0.1))


def test_the_words_with_the_least_noise_are_masked_and_eos_never() -> None:
    tokens = np.array([[5, 6, 7, 8, 1, 0]])
    noise = np.array([[0.9, 0.1, 0.2, 0.8, 0.0, 0.0]])
    free = np.array([[True, True, False, True, True, False]])
    masked = [masked_words(tokens, free, 1, strength, noise)[0].astype(int).tolist() for strength in (0.3, 0.5, 1)]
    assert masked == [[0, 1, 0, 0, 0, 0], [0, 1, 0, 1, 0, 0], [1, 1, 0, 1, 0, 0]]
