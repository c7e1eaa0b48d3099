"""Scores of edits share a table; the success of a method at a level of BLEU lies between its neighbouring settings."""

import json
from pathlib import Path

import pytest

from jtextdiff.cli.errors import UserError
from jtextdiff.compare import command
from jtextdiff.evaluation.comparison import read_scores
from jtextdiff.evaluation.editing.comparison import edit_frontiers
from jtextdiff.metrics.interpolation import value_at


def scores(success: float, bleu: float, *, num: int = 8, judge: str = "n-grams") -> dict:
    row = {"value": success, "unit": "share", "se": 0.04, "n": num, "kind": judge}
    return {"success": row, "source_bleu": {"value": bleu, "unit": "0 to 100", "se": None, "n": num, "kind": "BLEU"}}


def edits(success: float, bleu: float, restored: float = 50.0, **conditions: object) -> str:
    rows = {"copy": scores(0.1, 100.0), "reconstruction": scores(0.2, restored), "edit": scores(success, bleu)}
    return json.dumps({"label": "mood", "split": "valid", "num": 8, "flow": {}, "rows": rows, **conditions})


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    texts = {
        "energy.0.9.json": edits(0.5, 30.0),
        "energy.0.99.json": edits(0.7, 20.0),
        "energy.0.999.json": edits(0.8, 10.0),
        "shift.1.json": edits(0.6, 25.0, restored=40.0),
        "test.json": edits(0.6, 25.0, split="test"),
        "samples.json": json.dumps({"metrics": {}}),
        "others.json": edits(0.6, 25.0).replace('"value": 0.1,', '"value": 0.2,'),
    }
    texts["judged.json"] = texts["shift.1.json"].replace("n-grams", "a grammar")
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return {name: str(tmp_path / name) for name in texts}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_copies_and_different_reconstructions_stand_before_the_edits(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    command([files["energy.0.9.json"], files["energy.0.99.json"], files["shift.1.json"]])
    rows = [cells(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["8 texts", "success", "source_bleu"]
    assert [row[0] for row in rows[2:]] == [
        *("copy", "reconstruction (energy)", "reconstruction (shift)", "energy.0.9", "energy.0.99", "shift.1")
    ]
    assert rows[5] == ["energy.0.9", "0.5 ± 0.04", "30"]


def test_success_at_equal_bleu_is_interpolated_within_a_method_only(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    energy = [files[f"energy.{p}.json"] for p in ("0.999", "0.9", "0.99")]
    command([*energy, files["shift.1.json"], "--at_bleu=22.5", "--at_bleu=10", "--at_bleu=31"])
    head, _, *rows = [cells(line) for line in capsys.readouterr().out.splitlines()[-4:]]
    assert head[1:] == ["22.5", "10", "31"]
    assert rows == [["energy", "0.65 ± 0.04", "0.8 ± 0.04", ""], ["shift", "", "", ""]]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("test.json", "differ in split"),
        ("judged.json", "differ in judge of success"),
        ("samples.json", "holds scores of edits and"),
        ("others.json", "differ in texts"),
    ],
)
def test_scores_of_other_conditions_are_refused(other: str, message: str, files: dict[str, str]) -> None:
    with pytest.raises(UserError, match=message):
        command([files["energy.0.9.json"], files[other]])


def test_methods_of_several_directories_are_different(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "energy.1.json").write_text(edits(0.9, 25.0))
    command([files["energy.0.9.json"], str(tmp_path / "other" / "energy.1.json"), "--at_bleu=27"])
    rows = [cells(line) for line in capsys.readouterr().out.splitlines()]
    assert [row[1] for row in rows[-2:]] == ["", ""]  # nothing lies between the two runs


def test_a_frontier_of_edits_is_drawn_from_the_points_of_each_method(files: dict[str, str], tmp_path: Path) -> None:
    energy = [files[f"energy.{p}.json"] for p in ("0.999", "0.9", "0.99")]
    command([*energy, files["shift.1.json"], f"--frontier={tmp_path / 'x.png'}"])
    assert (tmp_path / "x.png").stat().st_size
    results = {Path(file): read_scores(Path(file)) for file in (*energy, files["shift.1.json"])}
    curves = edit_frontiers(results)
    assert sorted(curves["energy"]) == [(10.0, 0.8, 0.04), (20.0, 0.7, 0.04), (30.0, 0.5, 0.04)]
    assert curves["shift"] == [(25.0, 0.6, 0.04)]


def test_an_interpolated_score_has_the_value_and_error_of_a_point_at_that_point() -> None:
    points = [(10.0, 0.8, 0.01), (20.0, 0.6, 0.05)]
    assert value_at(10.0, points) == (0.8, 0.01) and value_at(20.0, points) == pytest.approx((0.6, 0.05))
    assert value_at(12.5, points) == pytest.approx((0.75, 0.02)) and value_at(21.0, points) == (None, None)


def test_a_metric_that_no_file_has_is_refused(files: dict[str, str]) -> None:
    with pytest.raises(UserError, match="There are: success, source_bleu"):
        command([files["energy.0.9.json"], "--metric=perplexity"])
