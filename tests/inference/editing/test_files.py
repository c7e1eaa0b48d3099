"""Files of texts to edit, and resuming a file of edits: only of the same texts, made with the same settings."""

import io
import json
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from ml_collections import ConfigDict

from jtextdiff.cli.errors import UserError
from jtextdiff.edit import build_parser, check_flags, command, input_lines, settings_of
from jtextdiff.inference.editing.files import digest, edit_stream, resume_output, write_rows
from jtextdiff.inference.editing.types import EMPTY, Edit

FLAGS = ["--checkpoint=runs/a", "--control=food=Japanese", "--seed=1"]


def made_with(*flags: str, step: int = 7, width: int = 3) -> str:
    model = SimpleNamespace(config=ConfigDict({"width": width}), step=step)
    return digest(settings_of(build_parser().parse_args([*FLAGS, *flags]), model))


@pytest.mark.parametrize(
    "other",
    [
        "--control=food=Thai",
        "--seed=2",
        "--strength=.3",
        "--hold=a",
        "--num=2",
        "--steps=5",
        "--sampler=ddim",
        "--balance",
    ]
    + ["--override=method.sampler.eta=1", "--target_probability=.5", "--max_time=2", "--source_pull=.1", "--rerank"],
)
def test_every_setting_of_an_edit_is_in_its_digest(other: str) -> None:
    assert made_with(other) != made_with()


def test_another_model_or_step_is_in_the_digest_and_files_are_not() -> None:
    assert len({made_with(), made_with(step=8), made_with(width=4)}) == 3
    assert made_with("--out=x.jsonl", "--input=y.txt") == made_with()


def test_a_control_that_is_trained_again_is_in_the_digest(tmp_path: Path) -> None:
    before = made_with(f"--checkpoint={tmp_path}")
    control = tmp_path / "controls" / "food"
    (control / "checkpoints" / "100").mkdir(parents=True)
    (control / "config.json").write_text("{}")
    trained = made_with(f"--checkpoint={tmp_path}")
    (control / "checkpoints" / "200").mkdir()
    assert len({before, trained, made_with(f"--checkpoint={tmp_path}")}) == 3


def test_edits_are_continued_with_the_same_settings_only(tmp_path: Path) -> None:
    out, rows = tmp_path / "edits.jsonl", [{"source": "a b", "rewrite": "c"}, {"source": "d", "rewrite": "e"}]
    written = io.StringIO()
    write_rows(written, rows, "one")
    assert [json.loads(line)["made_with"] for line in written.getvalue().splitlines()] == ["one", "one"]
    out.write_text(written.getvalue() + '{"source": "cut')
    lines = iter(["a b", "d", "f"])
    assert resume_output(out, lines, "one") == 2 and next(lines) == "f"
    assert out.read_text() == written.getvalue()  # the line that was cut short is gone
    for source, settings, message in ((["a b", "d"], "two", "other settings"), (["a b", "x"], "one", "another text")):
        with pytest.raises(UserError, match=message):
            resume_output(out, iter(source), settings)
    assert out.read_text() == written.getvalue()


def test_unknown_words_are_in_the_lines_and_said_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    model = SimpleNamespace(
        method=SimpleNamespace(text_spec=SimpleNamespace(length=9)), num_tokens=lambda texts: [3] * len(texts)
    )
    edit_texts = lambda texts, ids: [Edit("x", unknown=("zorb",) if "zorb" in text else ()) for text in texts]
    out = io.StringIO()
    edit_stream(edit_texts, model, iter(["a", "zorb"] * 70), 0, out, made_with="one")
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [row.get("unknown") for row in rows[:2]] == [None, ["zorb"]]
    assert "warning: 70 of 140 texts have words outside the model's vocabulary: zorb." in capsys.readouterr().err


def test_edits_below_the_target_are_marked_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    model = SimpleNamespace(
        method=SimpleNamespace(text_spec=SimpleNamespace(length=9)), num_tokens=lambda texts: [3] * len(texts)
    )
    edit_texts = lambda texts, ids: [Edit("x", distance=1.0, steps=2, reached=text != "far") for text in texts]
    out = io.StringIO()
    edit_stream(edit_texts, model, iter(["a", "far", "b"] * 40), 0, out, made_with="one")
    assert [json.loads(line).get("reached") for line in out.getvalue().splitlines()[:3]] == [None, False, None]
    assert "warning: 40 edits end below the target probability" in capsys.readouterr().err


def test_texts_that_stay_as_they_are_are_counted_by_their_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """A blank line needs no edit, and no warning."""
    model = SimpleNamespace(
        method=SimpleNamespace(text_spec=SimpleNamespace(length=4)), num_tokens=lambda texts: list(map(len, texts))
    )
    reasons = {"lost": "no path", "": EMPTY}
    edit_texts = lambda texts, ids: [Edit("x", skipped_because=reasons.get(text, "")) for text in texts]
    out = io.StringIO()
    edit_stream(edit_texts, model, iter(["a", "", "too long", "lost"] * 40), 0, out, made_with=None)
    assert out.getvalue().splitlines()[:4] == ["x", "", "too long", "lost"]
    said = capsys.readouterr().err
    assert "warning: 40 texts were not edited: longer than 3 tokens." in said
    assert "warning: 40 texts were not edited: no path." in said and said.count("not edited") == 2


def test_texts_to_edit_may_come_out_of_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    check_flags(build_parser().parse_args(["--checkpoint=x", f"--input={tmp_path / 'pipe'}"]))
    (tmp_path / "empty").touch()
    for name, message in (("absent", "no such file"), ("", "is a directory"), ("empty", "is empty")):
        with pytest.raises(UserError, match=message):
            check_flags(build_parser().parse_args(["--checkpoint=x", f"--input={tmp_path / name}"]))


CONTENT = "\ufeffone\u2028a\r\ntwo\r\rlast"
LINES = ["one\u2028a", "two", "", "last"]


@pytest.mark.parametrize("source", ["file", "pipe", "-"])
def test_lines_are_the_same_from_a_file_a_pipe_and_standard_input(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / source
    if source == "pipe":  # as in --input <(command)
        os.mkfifo(file)
        threading.Thread(target=file.write_text, args=[CONTENT], kwargs={"newline": ""}).start()
    else:
        file.write_text(CONTENT, newline="")
    with open(os.devnull if source == "pipe" else file, encoding="latin-1") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        name = "-" if source == "-" else str(file)
        check_flags(build_parser().parse_args(["--checkpoint=x", f"--input={name}"]))
        assert list(input_lines(name, 2)) == [line for line in LINES for _ in range(2)]


def test_a_line_that_is_no_text_has_its_number(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_bytes(b"one\ncaf\xe9\n")
    lines = input_lines(str(tmp_path / "texts.txt"), 1)
    assert next(lines) == "one"
    with pytest.raises(UserError, match="texts.txt, line 2: byte 0xe9 is not UTF-8"):
        next(lines)


def test_closed_standard_input_is_refused_before_a_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UserError, match="Standard input is closed"):
        command(["--checkpoint=absent"])


@pytest.mark.parametrize("setting", [None, "digits"])
def test_an_edit_is_one_line_of_its_file(setting: str | None) -> None:
    out, text = io.StringIO(), "a\r\u2028\x1b[2J\x85b"
    write_rows(out, [{"source": text, "rewrite": text}], setting)
    assert len(out.getvalue().splitlines()) == 1 and out.getvalue().isascii()
    assert setting is None or json.loads(out.getvalue())["rewrite"] == text
