"""Scores obtained under the same conditions share a table, seeds of one recipe a row, and a table fits its width."""

import json
from pathlib import Path

import pytest

from jtextdiff.cli.errors import UserError
from jtextdiff.compare import command
from jtextdiff.evaluation.comparison import DEFAULT_METRICS


def scores(value: float, *, steps: int = 200, num: int = 512, name: str = "nll") -> str:
    row = {"value": value, "unit": "nats/token", "se": 0.25, "n": num, "kind": "", "real_valid": value, "real_train": 1}
    conditions = {
        "text": "mine",
        "method": "Masked",
        "settings": {},
        "split": "valid",
        "num_samples": num,
        "judge": None,
    }
    conditions["tokenizer"] = "words"
    return json.dumps({**conditions, "sampler": "ancestral", "steps": steps, "nfe": steps / 2, "metrics": {name: row}})


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


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
        "deep.json": "[" * 100_000,
        "words.json": scores(1.0).replace('"value": 1.0', '"value": "one"'),
        "huge.json": scores(1.0).replace('"nfe": 100.0', '"nfe": 1' + "0" * 400),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return {name: str(tmp_path / name) for name in texts}


def test_seeds_make_one_row(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    command([files["a.0.json"], files["a.1.json"], files["b.json"]])
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "| 512 samples     | sampler       | calls | nll (nats/token) |",
        "|-----------------|---------------|-------|------------------|",
        "| real valid text |               |       |                  |",  # its likelihood depends on the model
        "| a               | ancestral 200 | 100   | 2 ± 1.4 (2 runs) |",
        "| b               | ancestral 20  | 10    | 7.5 ± 0.25       |",
    ]


def test_other_folders_or_settings_make_other_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
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
    rows = [cells(line)[:2] for line in capsys.readouterr().out.splitlines()[3:]]
    assert rows == [
        [f"{tmp_path}/A/x.json", "ancestral 200"],
        [f"{tmp_path}/B/x.json", "ancestral 200"],
        ["t-0.8", "ancestral 200"],
        ["t-0.9", "ancestral, temperature 0.9"],
    ]


def test_scores_at_the_matched_entropy_take_the_place_of_the_models_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    own, matched = json.loads(scores(1.0)), json.loads(scores(4.0))
    (tmp_path / "x.json").write_text(json.dumps(own | {"matched_entropy": {"temperature": 1.1, **matched}}))
    (tmp_path / "y.json").write_text(scores(2.0))
    command([str(tmp_path / "x.json"), "--matched_entropy"])
    row = cells(capsys.readouterr().out.splitlines()[3])
    assert row[1] == "ancestral 200, temperature matched" and row[-1] == "4 ± 0.25"
    with pytest.raises(UserError, match="y.json was written without evaluate --match_entropy"):
        command([str(tmp_path / "x.json"), str(tmp_path / "y.json"), "--matched_entropy"])


def test_real_text_has_the_first_row(
    files: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    command([files["b.json"], files["other.json"]])
    assert cells(capsys.readouterr().out.splitlines()[2]) == ["real valid text", "", "", "7.5", "1"]


def test_a_metric_that_a_row_lacks_is_left_blank(
    files: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    command([files["b.json"], files["other.json"]])
    assert [cells(line) for line in capsys.readouterr().out.splitlines()[3:]] == [
        ["b", "ancestral 20", "10", "7.5 ± 0.25", ""],
        ["other", "ancestral 200", "100", "", "1 ± 0.25"],
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.0.json", "few.json"], "num_samples"),
        (["a.0.json", "elsewhere.json"], "text"),
        (["list.json"], "no scores"),
        (["bare.json"], "no scores"),
        (["broken.json"], "broken.json"),
        (["b.json", "--metric=mauve"], "There are: nll"),
    ],
)
def test_scores_that_cannot_be_compared_are_refused(files: dict[str, str], names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        command([files.get(name, name) for name in names])


def wide(tmp_path: Path, names: list[str]) -> list[str]:
    """Files of scores with so many metrics that a row per file takes more than 80 columns."""
    paths = []
    for place, name in enumerate(names):
        result = json.loads(scores(float(place)))
        row = result["metrics"]["nll"]
        metrics = {metric: row | {"value": place + 0.125} for metric in DEFAULT_METRICS}
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(result | {"metrics": metrics, "settings": {"temperature": 0.5 + place / 10}}))
        paths.append(str(path))
    return paths


def test_a_wide_table_has_a_row_per_metric(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(wide(tmp_path, ["a", "b"]) + ["--metric=nll", "--metric=perplexity_ratio", "--metric=unigram_entropy"])
    assert capsys.readouterr().out.splitlines() == [
        "512 samples of each:",
        "",
        "- a: ancestral 200, temperature 0.5, 100 calls",
        "- b: ancestral 200, temperature 0.6, 100 calls",
        "",
        "| metric                        | real valid | a            | b            |",
        "|-------------------------------|------------|--------------|--------------|",
        "| nll (nats/token)              |            | 0.125 ± 0.25 | 1.125 ± 0.25 |",
        "| perplexity_ratio (nats/token) |            | 0.125 ± 0.25 | 1.125 ± 0.25 |",
        "| unigram_entropy (nats/token)  |            | 0.125 ± 0.25 | 1.125 ± 0.25 |",
    ]


@pytest.mark.parametrize("name", ["run", "a_run_with_a_name_of_more_than_twenty_characters"])
@pytest.mark.parametrize("columns", ["60", "80", "100", "1000"])
def test_lines_fit_and_no_value_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str, name: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    command(wide(tmp_path, [f"{name}{number}" for number in range(7)]))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= int(columns)
    values = [value for line in lines for value in cells(line) if "±" in value]
    expected = [f"{place + 0.125:.4g} ± 0.25" for place in range(7) for _ in DEFAULT_METRICS]
    assert sorted(values) == sorted(expected)
    assert all(f"{name}{number}" in "\n".join(lines) for number in range(7))


def with_entropy(entropy: float, members: float) -> str:
    contents = json.loads(scores(members, name="members"))
    contents["metrics"]["unigram_entropy"] = contents["metrics"]["members"] | {"value": entropy, "real_valid": 5.0}
    return json.dumps(contents)


def test_frontiers_are_read_off_at_the_entropy_of_real_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = {"masked.0.8": (4.8, 0.9), "masked.1": (5.2, 0.5), "ar.1": (4.9, 0.95)}
    for name, point in points.items():
        (tmp_path / f"{name}.json").write_text(with_entropy(*point))
    command([*(str(tmp_path / f"{name}.json") for name in points), f"--frontier={tmp_path}/frontier.png"])
    *_, head, _, masked, autoregressive = [cells(line) for line in capsys.readouterr().out.splitlines()]
    assert head == ["at the entropy of real text, 5 nats", "members"]
    assert masked == ["masked", "0.7 ± 0.25"] and autoregressive == ["ar", ""]  # one point is no frontier
    assert (tmp_path / "frontier.png").read_bytes().startswith(b"\x89PNG")


def test_points_without_a_number_are_left_out_of_a_frontier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    without = json.loads(with_entropy(4.9, 0.9))
    without["metrics"]["members"]["value"] = None
    (tmp_path / "m.1.json").write_text(json.dumps(without))
    (tmp_path / "m.2.json").write_text(with_entropy(4.8, 0.9))
    command([str(tmp_path / "m.1.json"), str(tmp_path / "m.2.json"), f"--frontier={tmp_path}/x.png"])
    assert cells(capsys.readouterr().out.splitlines()[-1]) == ["m", ""]
    without["metrics"]["unigram_entropy"]["real_valid"] = None
    (tmp_path / "m.1.json").write_text(json.dumps(without))
    with pytest.raises(UserError, match="do not have the entropy of real text"):
        command([str(tmp_path / "m.1.json"), f"--frontier={tmp_path}/x.png"])


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--frontier=x.jpg", "expected the name of a PNG file"),
        ("--frontier=/no/such/place/x.png", "there is no directory /no/such/place"),
        ("--at_bleu=15", "--at_bleu is of edits"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flag: str, message: str, files: dict[str, str]) -> None:
    with pytest.raises(UserError, match=message):
        command([files["b.json"], flag])


def test_a_frontier_needs_the_entropy_of_samples(files: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs unigram_entropy and one of perplexity_ratio, members"):
        command([files["b.json"], f"--frontier={tmp_path}/frontier.png"])
