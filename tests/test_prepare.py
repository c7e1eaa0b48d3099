"""python -m jtextdiff.prepare: no text is in two parts, pieces are short, and mistakes are named."""

import csv
import json
from pathlib import Path

import pytest
from support.command_line import run

CLAUSES = (
    "物流很快",
    "包装不错",
    "屏幕有划痕",
    "客服态度很差",
    "以后再买",
    "味道好极了",
    "不值这个价",
    "还会推荐给朋友",
)
REVIEWS = [f"{one}，{other}！{one}的第{number}次。" for number, one in enumerate(CLAUSES * 5) for other in CLAUSES]
RULES = "stars=sentiment(1=negative,5=positive)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("prepared")
    with open(place / "reviews.csv", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["comment", "stars"])
        rows.writerows([review, "1" if number % 3 else "5"] for number, review in enumerate(REVIEWS))
    done = run(
        *("prepare", "--text", "reviews.csv", "--column", "comment", "--labels", RULES),
        *("--length", "20", "--out", "zh"),
        cwd=place,
    )
    assert done.returncode == 0 and "characters" in done.stderr, done.stderr
    assert "--config.text.path=zh/pieces --config.text.tokenizer=characters:8 --config.text.length=21" in done.stderr
    return place / "zh"


def rows(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_pieces_are_clauses_of_the_right_lengths_in_one_split_each(folder: Path) -> None:
    train, valid = ([row["text"] for row in rows(folder / "pieces" / f"{split}.jsonl")] for split in ("train", "valid"))
    assert all(4 <= len(piece) <= 20 for piece in train + valid)
    assert all(set(row) == {"text"} for row in rows(folder / "pieces" / "train.jsonl"))
    assert len(set(train + valid)) == len(train + valid)
    assert {piece[-1] for piece in train} <= set("，！。")


def test_whole_texts_and_those_of_judges_are_different_and_keep_their_labels(folder: Path) -> None:
    whole, judge = rows(folder / "whole" / "train.jsonl"), rows(folder / "judge" / "train.jsonl")
    assert {row["sentiment"] for row in whole + judge} == {"negative", "positive"}
    assert not {row["text"] for row in whole} & {row["text"] for row in judge}
    assert all(len(row["text"]) <= 20 for row in whole) and any(len(row["text"]) > 20 for row in judge)
    of_models = [row["text"] for row in rows(folder / "pieces" / "train.jsonl")]
    assert 0.2 < len(judge) / len(REVIEWS) < 0.55
    assert not {row["text"] for row in judge} & set(of_models)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--out", "zh"], "exists already"),
        (["--out", "new", "--length", "3"], "--shortest must be from 1 to --length"),
        (["--out", "new", "--judge_share", "1"], "--judge_share"),
        (["--out", "new", "--text", "nowhere.csv"], "--text is 'nowhere.csv', which does not exist"),
        (["--out", "new", "--column", "review"], "give --column as one of them"),
        (["--out", "new", "--text", "lines.txt"], "--column is 'comment', but lines.txt has no columns"),
        (["--out", "new", "--labels", "absent=mood"], "--labels names the column 'absent'"),
        (["--out", "new", "--length", "90", "--shortest", "90"], "No piece has these lengths"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(folder: Path, flags: list[str], said: str) -> None:
    (folder.parent / "lines.txt").write_text("\n".join(REVIEWS), encoding="utf-8")
    done = run("prepare", "--text", "reviews.csv", "--column", "comment", *flags, cwd=folder.parent)
    assert done.returncode != 0 and said in done.stderr and "Traceback" not in done.stderr
    assert not (folder.parent / "new").exists()


def test_a_label_called_text_is_refused_and_may_be_renamed(tmp_path: Path) -> None:
    rows_of_file = [{"comment": f"包装不错第{n}次。", "text": str(n % 2)} for n in range(60)]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows_of_file)), encoding="utf-8")
    prepare = ["prepare", "--text", "in.jsonl", "--column", "comment", "--out", "out"]
    refused = run(*prepare, cwd=tmp_path)
    assert refused.returncode != 0 and "--labels text=NAME" in refused.stderr and not (tmp_path / "out").exists()
    renamed = run(*prepare, "--labels", "text=mood", cwd=tmp_path)
    assert renamed.returncode == 0, renamed.stderr
    assert all("包装" in row["text"] and row["mood"] in "01" for row in rows(tmp_path / "out/whole/train.jsonl"))


def test_texts_of_the_validation_split_are_in_no_training_text(tmp_path: Path) -> None:
    texts = [f"包装不错第{n}次。" for n in range(60)]
    (tmp_path / "in").mkdir()
    (tmp_path / "in/train.txt").write_text("\n".join(texts + texts[:9]), encoding="utf-8")
    (tmp_path / "in/valid.txt").write_text("\n".join(texts[:5]), encoding="utf-8")
    done = run("prepare", "--text", "in", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    kept, judge = ([row["text"] for row in rows(tmp_path / f"out/{name}/train.jsonl")] for name in ("whole", "judge"))
    assert sorted(kept + judge) == sorted(texts[5:])
    assert [row["text"] for row in rows(tmp_path / "out/whole/valid.jsonl")] == texts[:5]
    assert [row["text"] for row in rows(tmp_path / "out/judge/valid.jsonl")] == texts[:5]
    below_a_file = run("prepare", "--text", "in", "--out", "in/train.txt/out", cwd=tmp_path)
    assert below_a_file.returncode != 0 and "no folder that can be written to" in below_a_file.stderr


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl"])
def test_white_space_within_a_text_becomes_single_spaces(name: str, tmp_path: Path) -> None:
    """Texts that differ in it alone are repeated ones."""
    with open(tmp_path / name, "w", encoding="utf-8", newline="") as file:
        for text in ["text"] * (name == "in.csv") + [f"We  like{gap}pub {n} ." for n in range(60) for gap in "\n\t "]:
            file.write(f'"{text}"\r\n' if name == "in.csv" else json.dumps({"text": text}) + "\n")
    done = run("prepare", "--text", name, "--out", "out", cwd=tmp_path)
    assert done.returncode == 0 and "60 texts" in done.stderr, done.stderr
    texts = [row["text"] for file in tmp_path.glob("out/*/*.jsonl") for row in rows(file)]
    assert set(texts) == {f"We like pub {n} ." for n in range(60)}
