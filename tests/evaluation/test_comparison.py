"""Scores of several runs share a table if they were taken alike, and seeds of one recipe share a row."""

import json
from pathlib import Path

import pytest

from jtextdiff.cli.errors import UserError
from jtextdiff.compare import command


def scores(value: float, *, steps: int = 200, num: int = 512, name: str = "nll") -> str:
    row = {"value": value, "unit": "nats/token", "se": 0.25, "n": num, "kind": "", "real_valid": value, "real_train": 1}
    alike = {"text": "mine", "method": "Masked", "settings": {}, "split": "valid", "num_samples": num, "judge": None}
    alike["tokenizer"] = "words"
    return json.dumps({**alike, "sampler": "ancestral", "steps": steps, "nfe": steps / 2, "metrics": {name: row}})


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    texts = {
        "a.0.json": scores(1.0),
        "a.1.json": scores(3.0),
        "b.json": scores(7.5, steps=20),
        "few.json": scores(1.0, num=8),
        "other.json": scores(1.0, name="members"),
        "list.json": "[]",
        "bare.json": json.dumps(json.loads(scores(1.0)) | {"metrics": {"nll": 3}}),
        "elsewhere.json": json.dumps(json.loads(scores(1.0)) | {"text": "other"}),
        "broken.json": "{",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return {name: str(tmp_path / name) for name in texts}


def test_seeds_make_one_row(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    command([files["a.0.json"], files["a.1.json"], files["b.json"]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| 512 samples | sampler | calls | nll (nats/token) |"
    assert lines[3:] == ["| a | ancestral 200 | 100 | 2 ± 1.4 (2 runs) |", "| b | ancestral 20 | 10 | 7.5 ± 0.25 |"]
    assert lines[2] == "| real valid text | | |  |"  # each model's own likelihood of it: the text has none


def test_files_of_other_folders_or_other_settings_make_other_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warm = json.loads(scores(2.0)) | {"settings": {"temperature": 0.9}, "steps": None}
    texts = {
        "A/x.json": scores(1.0),
        "B/x.json": scores(1.0),
        "t-0.8.json": scores(4.0),
        "t-0.9.json": json.dumps(warm),
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    command([str(tmp_path / name) for name in texts])
    rows = [line.split(" | ")[:2] for line in capsys.readouterr().out.splitlines()[3:]]
    assert rows == [
        [f"| {tmp_path}/A/x.json", "ancestral 200"],
        [f"| {tmp_path}/B/x.json", "ancestral 200"],
        ["| t-0.8", "ancestral 200"],
        ["| t-0.9", "ancestral, temperature 0.9"],
    ]


def test_what_real_text_has_of_its_own_stands_above(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    command([files["b.json"], files["other.json"]])
    assert capsys.readouterr().out.splitlines()[2] == "| real valid text | | | 7.5 | 1 |"


def test_a_metric_that_a_row_lacks_is_left_blank(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    command([files["b.json"], files["other.json"]])
    assert capsys.readouterr().out.splitlines()[3:] == [
        "| b | ancestral 20 | 10 | 7.5 ± 0.25 |  |",
        "| other | ancestral 200 | 100 |  | 1 ± 0.25 |",
    ]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["a.0.json", "few.json"], "num_samples"),
        (["a.0.json", "elsewhere.json"], "text"),
        (["list.json"], "no scores"),
        (["bare.json"], "no scores"),
        (["broken.json"], "broken.json"),
        (["b.json", "--metric=mauve"], "There are: nll"),
    ],
)
def test_what_cannot_be_compared_is_refused(files: dict[str, str], names: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told.replace(".", r"\.")):
        command([files.get(name, name) for name in names])
