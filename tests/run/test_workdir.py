"""Resuming or loading a run: its config and its text must be those it was started with."""

from pathlib import Path

import pytest
from ml_collections import ConfigDict
from support.runs import ROOT

from jtextdiff.cli.errors import UserError
from jtextdiff.run import workdir
from jtextdiff.run.config import differences, from_json, to_json
from jtextdiff.run.config_files import load_config, override, override_run
from jtextdiff.run.workdir import locked, store_config

TEXT = {"train": "a", "valid": "b"}


def config(**changes: object) -> ConfigDict:
    spec = {"length": 8, "length_counts": [0, 1]} | {
        name: changes.pop(name) for name in ("length_counts",) if name in changes
    }
    return ConfigDict(
        {"text": {"path": None, "tokenizer": "words"}, "method": {"text_spec": spec}, "optim": {}, "num_steps": 5}
        | changes
    )


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a stored config and text; configs are compared as plain JSON."""
    monkeypatch.setattr(workdir, "read_config", lambda folder: config())
    store_config(tmp_path, config(), TEXT, resumed=False)
    return tmp_path


def test_the_same_text_is_resumed_and_what_may_change_is_stored(run: Path) -> None:
    store_config(run, config(num_steps=9), TEXT, resumed=True)
    assert '"num_steps": 9' in (run / "config.json").read_text()


@pytest.mark.parametrize("counts", [[0, 1], [0, 2]])
def test_another_text_is_named_whether_its_lengths_are_alike_or_not(counts: list[int], run: Path) -> None:
    with pytest.raises(UserError, match="text has changed since .*other texts or labels in train"):
        store_config(run, config(length_counts=counts), TEXT | {"train": "c"}, resumed=True)
    assert (run / "text.json").read_text().count('"a"') == 1


def test_a_field_that_the_user_changed_is_named_before_its_text(run: Path) -> None:
    with pytest.raises(UserError, match="text.path = None, not 'other.txt'"):
        store_config(run, config(text={"path": "other.txt", "tokenizer": "words"}), TEXT | {"train": "c"}, resumed=True)


def test_a_tokenizer_may_be_written_in_another_way(run: Path) -> None:
    store_config(run, config(text={"path": None, "tokenizer": "words:10"}), TEXT, resumed=True)
    with pytest.raises(UserError, match="text.tokenizer = 'words', not 'words:9'"):
        store_config(run, config(text={"path": None, "tokenizer": "words:9"}), TEXT, resumed=True)


def test_a_run_without_stored_digests_is_resumed_and_has_them_afterwards(run: Path) -> None:
    (run / "text.json").unlink()
    store_config(run, config(), TEXT, resumed=True)
    assert (run / "text.json").is_file()


@pytest.mark.parametrize(
    "text", ["text.length=9", "text.tokenizer=characters", "text.buckets=1", "seed=3", "optim.peak=0.1", "num_steps=7"]
)
def test_a_trained_run_refuses_what_only_training_reads(text: str) -> None:
    """A field may be given with the value that it has."""
    run = from_json(to_json(load_config(f"{ROOT}/configs/masked.py")))
    with pytest.raises(UserError, match=f"--override {text} has no effect on a trained run"):
        override_run(run, ["mesh.fsdp=1", text])
    name = text.partition("=")[0]
    for same in (f"text.length={run.text.length}", "text.path=x.csv", "method.sampler.steps=9", "text.column=review"):
        override_run(run, [same])
    assert differences(run, override_run(override(run, [text]), [text]), ())[0][0] == name


@pytest.mark.parametrize("name", ["run", "runs/control/run"])
def test_a_mistake_before_anything_is_written_leaves_no_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no label"), locked(tmp_path / name):
        raise UserError("no label")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["mine", "new/../mine", "new/link"])
def test_a_mistake_removes_nothing_that_a_user_had(name: str, tmp_path: Path) -> None:
    """Not even what a run writes itself, and not by another name of the folder."""
    (tmp_path / "mine/tokenizer").mkdir(parents=True)
    (tmp_path / "mine/config.json").write_text("{}")
    if name == "new/link":
        (tmp_path / "new").mkdir()
        (tmp_path / name).symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="no label"), locked(tmp_path / name):
        raise UserError("no label")
    assert (tmp_path / "mine/tokenizer").is_dir() and (tmp_path / "mine/config.json").read_text() == "{}"


def test_a_config_that_was_written_is_kept(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no label"), locked(tmp_path / "run"):
        store_config(tmp_path / "run", config(), TEXT, resumed=False)
        raise UserError("no label")
    assert (tmp_path / "run/config.json").is_file() and (tmp_path / "run/lock").is_file()


def test_an_empty_folder_of_a_user_is_kept_by_another_name(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no label"), locked(tmp_path / "new/../empty"):
        raise UserError("no label")
    assert (tmp_path / "empty").is_dir()


@pytest.mark.parametrize("error", [UserError, KeyboardInterrupt])
def test_a_folder_that_was_there_or_holds_a_training_is_kept(error: type[BaseException], tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name in ("there", "new/run", "new/other"):
        with pytest.raises(error), locked(tmp_path / name):
            if name == "new/run":
                (tmp_path / name / "metrics.jsonl").touch()
            raise error
    assert (tmp_path / "there").is_dir() and (tmp_path / "new/run/metrics.jsonl").is_file()
    assert (tmp_path / "new/other").exists() == (error is KeyboardInterrupt)
