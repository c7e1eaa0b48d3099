"""Trigrams in the folders of controls: read once, and a file that holds none is named."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jtextdiff.cli.errors import UserError
from jtextdiff.control import trained
from jtextdiff.control.trained import TRIGRAMS, control_dir, stored_state, trained_trigrams
from jtextdiff.metrics.trigram_classifier import TrigramClassifier, fit_each, save

VOCAB, EOS = 9, 1


class Model:
    """A run with controls, as far as they are read here."""

    method = SimpleNamespace(text_spec=SimpleNamespace(vocab_size=VOCAB))

    def __init__(self, run: Path) -> None:
        self.run = run


@pytest.fixture(autouse=True)
def two_values(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = SimpleNamespace(values=("no", "yes"))
    monkeypatch.setattr(trained, "trained_classifier", lambda label, model: (classifier, {}))


def counted(run: Path, label: str, num_texts: int, vocab_size: int = VOCAB, num_values: int = 2) -> Path:
    """Stores the trigrams of some texts of two tokens and EOS for each value in a control's folder."""
    folder = control_dir(run, label)
    folder.mkdir(parents=True)
    tokens = np.asarray([[2 + i, 3 + i, EOS] for i in range(num_texts)] * num_values)
    value = np.repeat(np.arange(num_values), num_texts)
    of_values = fit_each(tokens, tokens > 0, value, num_values, vocab_size)
    save(TrigramClassifier(of_values, 1.0, np.zeros(num_values)), folder / TRIGRAMS)
    return folder / TRIGRAMS


def test_a_control_without_trigrams_is_noted_once(tmp_path: Path, capsys: Any) -> None:
    counted(tmp_path, "food", 2)
    control_dir(tmp_path, "old").mkdir()
    model: Any = Model(tmp_path)
    assert trained_trigrams("old", model) is None and trained_trigrams("old", model) is None
    assert trained_trigrams("food", model) is trained_trigrams("food", model) is not None
    assert capsys.readouterr().err.count("old has no trigrams of its values") == 1


DAMAGES = ["empty", "half", "byte", "text", "array", "arrays", "few", "vocabulary", "values", "folder"]
DAMAGES += ["not finite", "no logarithms", "unsorted", "words", "encrypted"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_holds_no_trigrams_of_the_model_is_named(tmp_path: Path, damage: str) -> None:
    others = {"vocabulary": {"vocab_size": VOCAB - 1}, "values": {"num_values": 3}}
    file = counted(tmp_path, "food", 3, **others.get(damage, {}))
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
    elif damage in ("few", "not finite", "no logarithms", "unsorted", "words"):
        with np.load(file) as stored:
            arrays = [stored[name] for name in stored.files]
        changed = {"not finite": (-1, np.full(3, np.nan)), "words": (0, np.full(VOCAB + 1, "a"))}
        changed["no logarithms"] = (0, np.full(VOCAB + 1, np.inf))
        place, array = changed.get(damage, (3, arrays[3][::-1]))
        np.savez(file, *(arrays[:9] if damage == "few" else [*arrays[:place], array, *arrays[place:][1:]]))
    elif damage == "encrypted":
        file.write_bytes(whole[:6] + bytes([whole[6] | 1]) + whole[7:])
        directory = file.read_bytes().find(b"PK\x01\x02")
        content = bytearray(file.read_bytes())
        content[directory + 8] |= 1
        file.write_bytes(bytes(content))
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
