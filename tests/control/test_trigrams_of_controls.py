"""Trigrams in the folders of controls: of several, those that counted most; a file that holds none is named."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jtextdiff.cli.errors import UserError
from jtextdiff.control.controls import classifier
from jtextdiff.control.resolve import _most_trigrams
from jtextdiff.control.trained import TRIGRAMS, control_dir, stored_state, trained_trigrams
from jtextdiff.metrics import trigrams

VOCAB, EOS = 9, 1


class Model:
    """A run with controls, as far as they are read here."""

    method = SimpleNamespace(text_spec=SimpleNamespace(vocab_size=VOCAB))

    def __init__(self, run: Path) -> None:
        self.run = run


def counted(run: Path, label: str, num_texts: int, vocab_size: int = VOCAB) -> Path:
    """Stores the trigrams of some texts of two tokens and EOS in a control's folder."""
    folder = control_dir(run, label)
    folder.mkdir(parents=True)
    tokens = np.asarray([[2 + i, 3 + i, EOS] for i in range(num_texts)])
    trigrams.save(trigrams.fit(tokens, tokens > 0, vocab_size), folder / TRIGRAMS)
    return folder / TRIGRAMS


def test_the_most_are_used_in_whatever_order_the_controls_are(tmp_path: Path, capsys: Any) -> None:
    counted(tmp_path, "food", 2)
    counted(tmp_path, "tense", 5)
    control_dir(tmp_path, "old").mkdir()
    model: Any = Model(tmp_path)
    food, tense, old = (classifier(label, "x") for label in ("food", "tense", "old"))
    of_tense = trained_trigrams("tense", model)
    assert of_tense is not None and len(of_tense.log_p_3.numbers) == 15
    for leaves in ([food, tense], [tense, food], [old, food, tense]):
        assert _most_trigrams(leaves, model) is of_tense
    assert _most_trigrams([food], model) is trained_trigrams("food", model)
    assert capsys.readouterr().err.count("old has no trigrams") == 1
    assert _most_trigrams([old], model) is None


@pytest.mark.parametrize("damage", ["empty", "half", "byte", "text", "array", "arrays", "vocabulary", "folder"])
def test_a_file_that_holds_no_trigrams_of_the_model_is_named(tmp_path: Path, damage: str) -> None:
    file = counted(tmp_path, "food", 3, VOCAB - 1 if damage == "vocabulary" else VOCAB)
    whole = file.read_bytes()
    contents = {"empty": b"", "half": whole[: len(whole) // 2], "text": b"no trigrams"}
    contents["byte"] = whole[:80] + bytes([whole[80] ^ 255]) + whole[81:]
    if damage in contents:
        file.write_bytes(contents[damage])
    elif damage == "folder":
        file.unlink()
        file.mkdir()
    elif damage == "array":
        with file.open("wb") as out:
            np.save(out, np.zeros(3))
    elif damage == "arrays":
        np.savez(file, np.zeros(3), np.zeros(2))
    with pytest.raises(UserError, match=f"{file} holds .*trigrams.*Remove .*food, and fit the control again"):
        trained_trigrams("food", Model(tmp_path))  # pyright: ignore


def test_other_trigrams_are_another_state_of_a_control(tmp_path: Path) -> None:
    file = counted(tmp_path, "food", 3)
    before = stored_state(file.parent)
    file.unlink()
    without = stored_state(file.parent)
    file.parent.rmdir()
    counted(tmp_path, "food", 4)
    assert len({str(state) for state in (before, without, stored_state(file.parent))}) == 3
