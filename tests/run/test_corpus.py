"""The corpus of a run: in the tokens of the run, or of the run whose parameters it starts from."""

from pathlib import Path
from typing import Any

import pytest

from jtextdiff.cli.errors import UserError
from jtextdiff.run.config import to_json
from jtextdiff.run.config_files import load_config
from jtextdiff.run.corpus import open_corpus

CONFIG = f"{Path(__file__).parents[2]}/configs/diffusion_lm.py"


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two texts, and a run of the first with `words:1` but without parameters."""
    monkeypatch.setenv("JTEXTDIFF_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.txt").write_text("".join(f"The {name} is cheap .\n" for name in ("Mill", "Swan", "Oak")))
    (tmp_path / "b.txt").write_text("".join(f"The {name} was dear .\n" for name in ("Mill", "Swan", "Oak")))
    config = config_of(tmp_path, "a.txt")
    open_corpus(config, tmp_path / "first").tokenizer.save(tmp_path / "run" / "tokenizer")
    (tmp_path / "run" / "checkpoints" / "1").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text(to_json(config))
    return tmp_path


def config_of(folder: Path, file: str, **text: Any) -> Any:
    config = load_config(CONFIG, [f"--config.text.path={folder / file}", "--config.text.tokenizer=words:1"])
    config.text.update(text)
    return config


def test_another_tokenizer_than_that_of_the_parameters_is_refused(texts: Path) -> None:
    config = config_of(texts, "b.txt", tokenizer="characters:1")
    config.warm_start = str(texts / "run")
    with pytest.raises(UserError, match="give --config.text.tokenizer=words:1, or leave out warm_start"):
        open_corpus(config, texts / "new")
    config.text.tokenizer = "words:1"
    assert open_corpus(config, texts / "new").tokenizer.unknown_words("The cheap was") == ["was"]


def test_unknown_words_of_another_text_are_said(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own tokenizer would know all; that of the run, which is kept, does not."""
    config = config_of(texts, "b.txt")
    config.warm_start = str(texts / "run")
    open_corpus(config, texts / "new")
    said = capsys.readouterr().err
    assert "of the tokens of train are unknown to the tokenizer words:1; a run keeps its tokenizer" in said


def test_a_text_may_be_too_short_for_a_tokenizer_of_its_own(texts: Path) -> None:
    (texts / "run" / "config.json").write_text(to_json(config_of(texts, "a.txt", tokenizer="words:50")))
    config = config_of(texts, "b.txt", tokenizer="words:50")
    with pytest.raises(UserError, match="no token of the training texts occurs 50 times"):
        open_corpus(config, texts / "new")
    config.warm_start = str(texts / "run")
    assert open_corpus(config, texts / "new").tokenizer.unknown_words("cheap dear") == ["dear"]
